"""Max-pooling whose derivative is fast on a CPU."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def max_pool(
    images: Float[Array, "n h w c"], size: int, stride: int, padding: int = 0
) -> Float[Array, "n h2 w2 c"]:
    """y[i, j] = max over u, v < size of x[s i + u - p, s j + v - p], as PyTorch's `max_pool2d`.

    The first of several equal pixels, row by row, has the whole derivative, and NaN is the largest
    number. XLA's own derivative of a maximum over windows takes ten times as long on a CPU as the
    comparisons of slices that are written out here.
    """
    for axis in (2, 1):  # in a row the first column, then the first row
        pads = [(padding, padding, 0) if a == axis else (0, 0, 0) for a in range(4)]
        x = jax.lax.pad(images, jnp.array(-jnp.inf, images.dtype), pads)
        end = x.shape[axis] - size
        images = functools.reduce(
            _larger, [jax.lax.slice_in_dim(x, u, end + u + 1, stride, axis) for u in range(size)]
        )
    return images


def _larger(first: Array, second: Array) -> Array:
    return jnp.where((first >= second) | jnp.isnan(first), first, second)
