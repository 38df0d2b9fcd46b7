"""Convolution over NHWC images that stays fast where XLA's own does not: in loops on a CPU."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

NUMBERS = ("NHWC", "HWIO", "NHWC")
Pairs = tuple[tuple[int, int], ...]


def convolve(
    images: Float[Array, "n h w c"],
    kernel: Float[Array, "u v c o"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **settings: Any,
) -> Float[Array, "n h2 w2 o"]:
    """`jax.lax.conv_general_dilated` of images with one group and no dilation, in its signature.

    XLA has fast convolutions for CPUs, but takes them inside a loop (a scan over training steps)
    only for operands that lie as NHWC and HWIO and have one group. The derivatives that JAX asks
    for lie otherwise, where they take 5 (images) or 200 times (kernel) as long, and kernels under
    vmap become groups. On a CPU, therefore, the derivatives are written out below, as a convolution
    (by the images) and as products of matrices (by the kernel), and several kernels take turns.
    There, derivatives are by reverse mode alone, or forward over reverse.
    """

    def direct(images: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(images, kernel, strides, padding, **settings)

    def on_cpu(images: Array, kernel: Array) -> Array:
        pads = tuple((low, high) for low, high in padding)
        if kernel.shape[:2] == (1, 1) and pads == ((0, 0), (0, 0)):
            return images[:, :: strides[0], :: strides[1]] @ kernel[0, 0]
        return _with_fast_gradients(tuple(strides), pads, images, kernel)

    return jax.lax.platform_dependent(images, kernel, cpu=on_cpu, default=direct)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _with_fast_gradients(
    strides: tuple[int, ...], padding: Pairs, images: Array, kernel: Array
) -> Array:
    return _plain(images, kernel, strides=strides, padding=padding)


def _forward(
    strides: tuple[int, ...], padding: Pairs, images: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _plain(images, kernel, strides=strides, padding=padding), (images, kernel)


def _backward(
    strides: tuple[int, ...], padding: Pairs, operands: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    """Both derivatives of y[i] = sum_u x[s i + u - low] K[u].

    dx[j] = sum over u of dy[(j + low - u) / s] K[u] is a convolution itself: the kernel is flipped,
    and s - 1 zeros part the outputs.
    """
    images, kernel = operands
    sides = []
    for axis, (stride, (low, _)) in enumerate(zip(strides, padding, strict=True)):
        length, size = images.shape[1 + axis], kernel.shape[axis]
        spread = (gradient.shape[1 + axis] - 1) * stride + 1
        sides.append((size - 1 - low, length - spread + low))
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    to_images = _plain(gradient, flipped, padding=tuple(sides), lhs_dilation=strides)
    rows, columns, inputs, outputs = kernel.shape
    if strides == (1, 1) and outputs <= inputs:
        # dK[u] = sum over j of x[j] dy[j + low - u]
        x = images.reshape(-1, inputs)
        products = [x.T @ dy for dy in _windows(gradient, (rows, columns), tuple(sides), (1, 1))]
        by_row = jnp.stack(products[::-1]).reshape(rows, inputs, columns, outputs)
        return to_images, by_row[:, :, ::-1].transpose(0, 2, 1, 3)
    # dK[u] = sum over i of x[s i + u - low] dy[i]
    dy = gradient.reshape(-1, outputs)
    products = [x.T @ dy for x in _windows(images, (rows, columns), padding, strides)]
    return to_images, jnp.stack(products).reshape(kernel.shape)


_with_fast_gradients.defvjp(_forward, _backward)


def _windows(
    images: Array, sizes: tuple[int, int], padding: Pairs, strides: tuple[int, ...]
) -> list[Array]:
    """The pixels under each row of a kernel: (N H2 W2, columns C), a line a place."""
    pads = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    padded = jax.lax.pad(images, jnp.zeros((), images.dtype), pads)  # low or high may be negative
    down, across = (
        [slice(at, length - size + at + 1, stride) for at in range(size)]
        for length, size, stride in zip(padded.shape[1:3], sizes, strides, strict=True)
    )
    # Laid out once: each product would lay it out again, which costs more than the product.
    beside = jax.lax.optimization_barrier(
        jnp.concatenate([padded[:, :, columns] for columns in across], axis=-1)
    )
    return [beside[:, rows].reshape(-1, beside.shape[-1]) for rows in down]


def _plain(images: Array, kernel: Array, *, strides: tuple[int, ...] = (1, 1), **how: Any) -> Array:
    """XLA's convolution; under vmap over images and kernels together, one after the other."""

    def direct(images: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(
            images, kernel, strides, dimension_numbers=NUMBERS, **how
        )

    convolution = jax.custom_batching.custom_vmap(direct)

    @convolution.def_vmap
    def batched(_: int, is_batched: list[bool], *operands: Array) -> tuple[Array, bool]:
        if all(is_batched):
            return jax.lax.map(lambda pair: convolution(*pair), operands), True
        axes = [0 if batched else None for batched in is_batched]  # no groups arise
        return jax.vmap(direct, axes)(*operands), True

    return convolution(images, kernel)


def depthwise(
    images: Float[Array, "n h w c"], kernel: Float[Array, "u v 1 c"]
) -> Float[Array, "n h w c"]:
    """y[i, j, c] = sum_uv x[i + u, j + v, c] K[u, v, c] for a square kernel, zero-padded to "same".

    On a CPU written as shifted multiply-adds, which XLA fuses into one loop: some ten to thirty
    times faster than the same grouped convolution, and it stays so under vmap over kernels. There,
    derivatives are by reverse mode alone, or forward over reverse.
    """
    size = len(kernel)
    sides = ((size - 1) // 2, size // 2)

    def grouped(images: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(
            images,
            kernel,
            (1, 1),
            (sides, sides),
            dimension_numbers=NUMBERS,
            feature_group_count=images.shape[-1],
        )

    def on_cpu(images: Array, kernel: Array) -> Array:
        return _shifted(sides, images, kernel[:, :, 0])

    return jax.lax.platform_dependent(images, kernel, cpu=on_cpu, default=grouped)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _shifted(sides: tuple[int, int], images: Array, kernel: Array) -> Array:
    weights = kernel.reshape(-1, 1, 1, 1, images.shape[-1])
    y = jnp.zeros((), images.dtype)
    for part, weight in zip(_shifts(sides, images), weights, strict=True):
        y = y + part * weight
    return y


def _shifts(sides: tuple[int, int], images: Array) -> list[Array]:
    n, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), sides, sides, (0, 0)))
    places = range(sum(sides) + 1)
    return [
        jax.lax.slice(padded, (0, u, v, 0), (n, u + height, v + width, channels))
        for u in places
        for v in places
    ]


def _shifted_forward(
    sides: tuple[int, int], images: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _shifted(sides, images, kernel), (images, kernel)


def _shifted_backward(
    sides: tuple[int, int], operands: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    """dx is dy under the kernel flipped; dK[u, v] = sum over n, i, j of x[i + u, j + v] dy[i, j].

    XLA's sums over all axes but the last are slow: up to eight rows are added up as arrays before.
    """
    images, kernel = operands
    to_images = _shifted(sides[::-1], gradient, kernel[::-1, ::-1])
    rows = max(rows for rows in range(1, 9) if images.shape[1] % rows == 0)
    parts = []
    for part in _shifts(sides, images):
        product = part * gradient
        parts.append(sum(product[:, row::rows] for row in range(rows)))
    added = jax.lax.optimization_barrier(jnp.stack(parts))
    return to_images, added.sum((1, 2, 3)).reshape(kernel.shape)


_shifted.defvjp(_shifted_forward, _shifted_backward)
