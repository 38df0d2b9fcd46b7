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
