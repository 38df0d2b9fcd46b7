"""The rows of a batch: clean examples, or with one token replaced by noise of the row's own."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import threefry_2x32
from jax.typing import ArrayLike

from jaxsens._plan import CLEAN, Rows
from jaxsens.noise import Noise
from jaxsens.tokens import Tokens


def row_keys(key: Array, rows: Rows) -> tuple[Array, Array]:
    """For each row a key of its own, and one that all examples share for its token and draw.

    Both depend on the key and the row's numbers alone: Threefry of (token, draw), whose two words
    are the key of Threefry of (example, 1), or of (0, 2) for the shared one.
    """
    numbers = jnp.concatenate([rows.token, rows.draw]).astype(jnp.uint32)
    by_draw = threefry_2x32(jax.random.key_data(key), numbers).reshape(2, -1).T

    def derived(first: Array, kind: int) -> Array:
        counts = jnp.stack([first.astype(jnp.uint32), jnp.full(first.shape, kind, jnp.uint32)], 1)
        return jax.random.wrap_key_data(
            jax.vmap(threefry_2x32)(by_draw, counts), impl="threefry2x32"
        )

    return derived(rows.example, 1), derived(jnp.zeros_like(rows.example), 2)


def replace_tokens(
    tokens: Tokens, noise: Noise, examples: Array, within: Array | None, rows: Rows, key: Array
) -> Array:
    """The given rows, (rows, ...), of a block of examples. Only places ``within`` may change."""

    def one(place: ArrayLike, token: Array, own_key: Array, shared_key: Array) -> Array:
        clean = examples[place]
        noised = tokens.replace(
            clean, jnp.maximum(token, 0), functools.partial(noise, key=own_key), shared_key
        )
        may_change = token != CLEAN
        if within is not None:
            inside = within[place]
            missing = tuple(range(inside.ndim, clean.ndim))
            may_change = jnp.broadcast_to(
                jnp.expand_dims(may_change & inside, missing), clean.shape
            )
        return jnp.where(may_change, noised, clean)

    return jax.vmap(one)(rows.place, rows.token, *row_keys(key, rows))
