"""Convolution over NHWC images, as XLA's own or, on a CPU, as a matrix product over windows."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def convolve(
    images: Float[Array, "n h w c"],
    kernel: Float[Array, "u v c o"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **settings: Any,
) -> Float[Array, "n h2 w2 o"]:
    """`jax.lax.conv_general_dilated` of images with one group and no dilation, in its signature.

    On a CPU it becomes a matrix product over windows. XLA has a fast convolution there, but not
    inside a loop: in a scan over training steps, or a map over batches, it falls back to one that
    is 25 to 100 times slower, and under vmap over kernels likewise.
    """

    def direct(images: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(images, kernel, strides, padding, **settings)

    def by_windows(images: Array, kernel: Array) -> Array:
        height, width, channels, outputs = kernel.shape
        cut = windows(images, (height, width), strides, padding)
        flat = kernel.reshape(height * width * channels, outputs)
        return jax.lax.dot_general(
            cut, flat, (((3,), (0,)), ((), ())), precision=settings.get("precision")
        )

    return jax.lax.platform_dependent(images, kernel, cpu=by_windows, default=direct)


def windows(
    images: Float[Array, "n h w c"],
    size: tuple[int, int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> Float[Array, "n h2 w2 uvc"]:
    """The window under every output pixel, its pixels in row order, zero beyond the border."""
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    n, height, width, channels = padded.shape
    rows = height - size[0] + 1, width - size[1] + 1
    parts = [
        jax.lax.slice(
            padded,
            (0, i, j, 0),
            (n, i + rows[0], j + rows[1], channels),
            (1, *strides, 1),
        )
        for i in range(size[0])
        for j in range(size[1])
    ]
    return jnp.concatenate(parts, axis=-1)
