"""Dropout from a stream given at the call, with masks that cost little on a CPU."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt32

Rngs = nnx.Rngs | None


def random_bits(key: Array, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """32 random bits an element: two rounds of an integer mixer over the element's index.

    Each round xors and multiplies so that every input bit moves every output bit. Half of the key
    enters before each: with one round, the masks of two keys would be shifts of one another.
    JAX's own generator costs some twenty times as much on a CPU, where drawing the dropout masks
    of attention took about as long as the attention.
    """
    first, second = jax.random.bits(key, (2,))
    x = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) + first
    for offset in (second, jnp.uint32(0)):
        x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
        x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
        x = (x ^ (x >> 16)) + offset
    return x


class Dropout(nnx.Module):
    """Zero each element with probability `rate`, and divide the others by 1 - rate.

    The mask comes from the `dropout` stream passed at call time, so the module itself holds no
    random state. Raises ValueError in training without a stream.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.deterministic = False

    def __call__(self, x: Float[Array, "..."], rngs: Rngs) -> Float[Array, "..."]:
        if self.deterministic or self.rate == 0.0:
            return x
        if rngs is None:
            raise ValueError(
                "a model with dropout in training needs rngs: got None, expected "
                "model(images, rngs=nnx.Rngs(dropout=key)); or evaluate "
                "nnx.view(model, deterministic=True)"
            )
        keep = random_bits(rngs.dropout(), x.shape) >= jnp.uint32(round(self.rate * 2**32))
        return jnp.where(keep, x / (1.0 - self.rate), 0.0).astype(x.dtype)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Turn the mask off or on; called by `nnx.view`.

        Args:
          deterministic: if True, return the input as it is.
        """
        if deterministic is not None:
            self.deterministic = deterministic
