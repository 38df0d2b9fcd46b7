"""Random changes of training images that leave the label true, on the device."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def crop(
    images: Float[Array, "n h w c"], key: Array, *, padding: int = 4, fill: float = -1.0
) -> Float[Array, "n h w c"]:
    """Each image cut at a uniform random place out of itself with a border of ``padding`` pixels.

    The border has the value ``fill``; -1 is black on pixels in [-1, 1]. Keeps the shape.
    """
    n, height, width, channels = images.shape
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, border, constant_values=fill)
    corners = jax.random.randint(key, (n, 2), 0, 2 * padding + 1)

    def one(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (*corner, 0), (height, width, channels))

    return jax.vmap(one)(padded, corners)


def flip(images: Float[Array, "n h w c"], key: Array) -> Float[Array, "n h w c"]:
    """Each image mirrored left to right with probability 1/2."""
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def crop_and_flip(images: Float[Array, "n h w c"], key: Array) -> Float[Array, "n h w c"]:
    """`crop` with its defaults, then `flip`: the usual augmentation of CIFAR-10."""
    crop_key, flip_key = jax.random.split(key)
    return flip(crop(images, crop_key), flip_key)
