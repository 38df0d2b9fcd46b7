"""Convolution over NHWC images that stays fast where XLA's own does not: in loops on a CPU."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
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
    vmap become groups. On a CPU, therefore, the derivatives are written out below as convolutions
    of transposed operands, and several kernels take turns. There, derivatives are by reverse mode
    alone, or forward over reverse.
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
    """Both derivatives of y[i] = sum_u x[s i + u - low] K[u] are convolutions themselves.

    dx[j] = sum over u of dy[(j + low - u) / s] K[u]: the kernel is flipped, and s - 1 zeros part
    the outputs. dK[u] = sum over i of x[s i + u - low] dy[i]: x is the image, dy the kernel, with
    s - 1 zeros between its pixels, and the images take the place of the channels.
    """
    images, kernel = operands
    for_images, for_kernel = [], []
    for axis, (stride, (low, _)) in enumerate(zip(strides, padding, strict=True)):
        length, size = images.shape[1 + axis], kernel.shape[axis]
        spread = (gradient.shape[1 + axis] - 1) * stride + 1
        for_images.append((size - 1 - low, length - spread + low))
        for_kernel.append((low, size - 1 - length - low + spread))
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    to_images = _plain(gradient, flipped, padding=tuple(for_images), lhs_dilation=strides)
    to_kernel = _plain(
        images.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        padding=tuple(for_kernel),
        rhs_dilation=strides,
    )
    return to_images, to_kernel.transpose(1, 2, 0, 3)


_with_fast_gradients.defvjp(_forward, _backward)


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
