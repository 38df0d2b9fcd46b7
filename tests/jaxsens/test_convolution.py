"""Convolution against XLA's own: values, gradients, several kernels at once; so for pooling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsens.models.convolution import convolve, depthwise
from jaxsens.models.layers import max_pool

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


@pytest.mark.parametrize("outputs", [2, 4])
@pytest.mark.parametrize(("size", "stride", "pad"), CASES)
def test_values_and_gradients_are_those_of_xla(images, size, stride, pad, outputs):
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, outputs))
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
    """NHWC times HWIO, one group; derivatives by kernels are products of matrices."""
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
    assert len(found) == 4  # two layers, and the derivative of each by its images
    for line in found:
        assert "dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line
        assert "feature_group_count = 1 " in line
        assert "batch_group_count = 1 " in line


def grouped(images, kernel):
    size = len(kernel)
    sides = ((size - 1) // 2, size // 2)
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), (sides, sides), dimension_numbers=NUMBERS, feature_group_count=3
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(2, 6, 7, 3), (1, 11, 5, 3), (2, 16, 4, 3)])
def test_depthwise_values_and_gradients_are_those_of_xla(shape, size):
    images = jax.random.normal(jax.random.key(0), shape)
    kernels = jax.random.normal(jax.random.key(1), (2, size, size, 1, 3))
    weights = jax.random.normal(jax.random.key(2), shape)

    def loss(convolution, images, kernel):
        return (weights * jnp.tanh(convolution(images, kernel))).sum()

    ours, theirs = (
        jax.vmap(jax.value_and_grad(functools.partial(loss, f), (0, 1)), (None, 0))(images, kernels)
        for f in (depthwise, grouped)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 0), (2, 3, 1)]
)
def test_max_pooling_is_that_of_xla(images, size, stride, padding):
    """Rounded, so that there are ties: the first of the largest has all of the derivative."""
    images = jnp.round(2 * images).at[1, 2, 3, 0].set(jnp.nan)

    def theirs(images):
        pads = ((padding, padding),) * 2
        return nnx.max_pool(images, (size, size), (stride, stride), padding=pads)

    ours, ours_back = jax.vjp(lambda x: max_pool(x, size, stride, padding), images)
    expected, theirs_back = jax.vjp(theirs, images)
    np.testing.assert_array_equal(ours, expected)
    dy = jax.random.normal(jax.random.key(2), expected.shape)
    np.testing.assert_allclose(ours_back(dy)[0][0], theirs_back(dy)[0][0], rtol=1e-5, atol=1e-6)
