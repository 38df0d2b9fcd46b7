"""What the language models take: token ids with a mask that is True at real tokens."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import DTypeLike

Text = Mapping[str, Array]


def check_text(inputs: Text, longest: int | None = None) -> tuple[Array, Array]:
    """The ids (N, T) and the mask (N, T) of ``{"ids": ..., "mask": ...}``.

    Raises TypeError or ValueError in one line for anything else, and for more than ``longest``
    tokens.
    """
    if not isinstance(inputs, Mapping) or not {"ids", "mask"} <= set(inputs):
        got = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise TypeError(f"inputs are {got}: expected a mapping with 'ids' and 'mask', both (N, T)")
    ids, mask = jnp.asarray(inputs["ids"]), jnp.asarray(inputs["mask"])
    if ids.ndim != 2 or ids.shape != mask.shape:
        raise ValueError(
            f"ids have shape {ids.shape} and mask {mask.shape}: expected (N, T) for both"
        )
    if not jnp.issubdtype(ids.dtype, jnp.integer) or mask.dtype != bool:
        raise TypeError(f"ids are {ids.dtype} and mask {mask.dtype}: expected integers and bool")
    if longest is not None and ids.shape[1] > longest:
        raise ValueError(f"inputs have {ids.shape[1]} tokens: the model has {longest} positions")
    return ids, mask


def last_token(x: Float[Array, "n t d"], mask: Bool[Array, "n t"]) -> Float[Array, "n d"]:
    """The vector of each row's last real token; of the first token where there is none."""
    last = jnp.where(mask, jnp.arange(mask.shape[1])[None], 0).max(axis=1)
    return jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]


def table(
    rows: int, dim: int, *, deviation: float, pad: int | None = None, rngs: nnx.Rngs
) -> nnx.Param:
    """An embedding table, N(0, deviation^2), whose row ``pad`` is 0."""
    drawn = deviation * jax.random.normal(rngs.params(), (rows, dim))
    return nnx.Param(drawn if pad is None else drawn.at[pad].set(0.0))


def look_up(table: nnx.Param, ids: Int[Array, "..."], dtype: DTypeLike) -> Float[Array, "... d"]:
    """Row ``ids`` of the table; NaN for an id that it does not have."""
    return table[...].astype(jnp.dtype(dtype)).at[ids].get(mode="fill", fill_value=jnp.nan)
