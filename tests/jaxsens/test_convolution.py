"""Convolution by windows against XLA's own: values, gradients, several kernels at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.models.convolution import convolve

NUMBERS = jax.lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), ("NHWC", "HWIO", "NHWC"))
CASES = [(1, 1, (0, 0)), (1, 2, (0, 0)), (3, 1, (1, 1)), (3, 2, (1, 1)), (2, 2, (2, 0))]


@pytest.fixture
def images():
    return jax.random.normal(jax.random.key(0), (2, 6, 7, 3))


def both(images, kernel, strides, padding):
    settings = {"dimension_numbers": NUMBERS}
    return (
        convolve(images, kernel, strides, padding, **settings),
        jax.lax.conv_general_dilated(images, kernel, strides, padding, **settings),
    )


@pytest.mark.parametrize(("size", "stride", "pad"), CASES)
def test_values_and_gradients_are_those_of_xla(images, size, stride, pad):
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 4))
    strides, padding = (stride, stride), (pad, (0, 1))
    ours, theirs = both(images, kernel, strides, padding)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    weights = jax.random.normal(jax.random.key(2), theirs.shape)

    def loss(which, images, kernel):
        return (weights * both(images, kernel, strides, padding)[which]).sum()

    ours, theirs = (jax.grad(loss, (1, 2))(which, images, kernel) for which in (0, 1))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_several_kernels_and_a_loop_over_steps(images):
    kernels = jax.random.normal(jax.random.key(1), (3, 3, 3, 3, 3))

    def many(which, kernels):
        def step(x, _):
            return jnp.tanh(both(x, kernels, (1, 1), ((1, 1), (1, 1)))[which]), None

        return jax.lax.scan(step, images, length=2)[0]

    ours, theirs = (jax.jit(jax.vmap(lambda k, w=w: many(w, k)))(kernels) for w in (0, 1))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_gradients_for_several_kernels_are_those_of_xla(images):
    """Seeds side by side, with images of their own (a hidden layer) or shared (the first)."""
    kernels = jax.random.normal(jax.random.key(1), (3, 3, 3, 3, 4))
    several = jnp.stack([images, 2 * images, images[::-1]])

    def gradients(which, images, kernel):
        def loss(images, kernel):
            return jnp.tanh(both(images, kernel, (2, 1), ((1, 1), (0, 1)))[which]).sum()

        return jax.grad(loss, (0, 1))(images, kernel)

    for batch, axis in ((several, 0), (images, None)):
        ours, theirs = (
            jax.jit(jax.vmap(lambda x, k, w=w: gradients(w, x, k), (axis, 0)))(batch, kernels)
            for w in (0, 1)
        )
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_forward_over_reverse_is_that_of_xla(images):
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))

    def curvature(which):
        def loss(kernel):
            return jnp.tanh(both(images, kernel, (1, 1), ((1, 1), (1, 1)))[which]).sum()

        return jax.jvp(jax.grad(loss), (kernel,), (kernel,))[1]

    np.testing.assert_allclose(curvature(0), curvature(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seeds", [None, 2])
def test_every_convolution_on_a_cpu_is_one_that_is_fast_in_loops(images, seeds):
    """NHWC times HWIO, one group: in any other form a weight gradient takes 200 times as long."""
    kernels = jax.random.normal(jax.random.key(1), (seeds or 1, 3, 3, 3, 3))

    def loss(kernel, images):
        x = both(images, kernel, (1, 1), ((1, 1), (1, 1)))[0]
        return jnp.tanh(both(x, kernel, (2, 2), ((1, 1), (1, 1)))[0]).sum()

    gradient = jax.grad(loss, (0, 1))
    if seeds is None:
        lowered = jax.jit(gradient).lower(kernels[0], images)
    else:
        several = jnp.stack([images] * seeds)
        lowered = jax.jit(jax.vmap(gradient)).lower(kernels, several)
    found = [line for line in lowered.as_text().splitlines() if "stablehlo.convolution" in line]
    assert len(found) == 6  # two layers, and for each its two derivatives
    for line in found:
        assert "dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line
        assert "feature_group_count = 1 " in line
        assert "batch_group_count = 1 " in line
