"""Products with weights against XLA's own: values and derivatives of every mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsens.models.layers import linear
from jaxsens.models.product import matmul

SHAPES = [((7, 3), 5), ((2, 4, 6), 3), ((5,), 2), ((1, 4), 4), ((0, 3), 2)]


def operands(shape, outputs):
    keys = jax.random.split(jax.random.key(0), 4)
    sizes = (shape, (shape[-1], outputs), shape, (shape[-1], outputs))
    return [jax.random.normal(key, size) for key, size in zip(keys, sizes, strict=True)]


def close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, theirs)


@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
def test_values_and_derivatives_are_those_of_xla(shape, outputs):
    x, kernel, dx, dkernel = operands(shape, outputs)
    close(matmul(x, kernel), x @ kernel)
    found = []
    for product in (matmul, jnp.matmul):

        def loss(x, kernel, product=product):
            return jnp.sin(product(x, kernel)).sum()

        found.append(
            [
                jax.grad(loss, (0, 1))(x, kernel),
                jax.grad(loss, 1)(x, kernel),
                jax.jvp(loss, (x, kernel), (dx, dkernel)),
                jax.jvp(jax.grad(loss, (0, 1)), (x, kernel), (dx, dkernel)),
                jax.jacfwd(loss, 1)(x, kernel),
            ]
        )
    close(*found)


@pytest.mark.parametrize("shared", [True, False])
def test_several_kernels_at_once(shared):
    x, kernel, *_ = operands((6, 4), 3)
    kernels, axis = jnp.stack([kernel, 2 * kernel, -kernel]), None if shared else 0
    several = x if shared else jnp.stack([x, -x, 3 * x])

    def gradients(product):
        def loss(x, kernel):
            return jnp.sin(product(x, kernel)).sum()

        return jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (axis, 0)))(several, kernels)

    close(gradients(matmul), gradients(jnp.matmul))


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 3)])
def test_of_two_operands_the_narrower_is_transposed(inputs, outputs):
    """Apart from the product; and only where the derivative by the kernel is asked for."""
    layer = linear(inputs, outputs, rngs=nnx.Rngs(0), dtype=jnp.float32)
    graphdef, state = nnx.split(layer)

    def loss(state, x):
        return jnp.sin(nnx.merge(graphdef, state)(x)).sum()

    x = jnp.ones((2, 20, inputs))
    text = jax.jit(jax.grad(loss)).lower(state, x).as_text()
    barriers = [line for line in text.splitlines() if "optimization_barrier" in line]
    narrow, wide = sorted((inputs, outputs))
    assert any(f"tensor<{narrow}x40xf32>" in line for line in barriers)
    assert not any(f"tensor<{wide}x40xf32>" in line for line in barriers)
    for text in (
        jax.jit(jax.grad(loss, 1)).lower(state, x).as_text(),
        jax.jit(loss).lower(state, x).as_text(),
    ):
        assert "optimization_barrier" not in text
