"""Attention at less cost, exactly: where tokens are rows of a table, and where one query asks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxsens.models.layers.attention import Attention


def attend_table(
    q: Float[Array, "k h d"],
    k: Float[Array, "k h d"],
    v: Float[Array, "k h d"],
    second: Bool[Array, "n t"],
) -> Float[Array, "n t h d"]:
    """Softmax attention of strings whose token j is row 2j of a table, or 2j + 1: ``second[:, j]``.

    ``q`` (scaled), ``k`` and ``v`` are those of the 2t rows. All scores that can occur are those
    between rows of the table, so numerators and denominators of the softmax are one product of
    matrices, of the choices with their exponentials, in place of the attention of every string.

    NaN in float32 for a head and query whose highest score in the table is more than about 170
    above the highest score that every string is sure to have, max_j min(score of 2j, of 2j + 1):
    exp overflows, or a sum vanishes, also for strings that do not choose that row. A shift for each
    string would prevent it, and is what this saves.
    """
    (rows, heads, _), (n, t) = q.shape, second.shape
    scores = jnp.einsum("qhd,khd->kqh", q, k)
    # A sum has at least the lower score of each token in it, at most the highest of all: half
    # way between, neither end leaves the range of float32 unless they are 170 apart.
    either = scores.reshape(t, 2, *scores.shape[1:])
    shift = (either.min(axis=1).max(axis=0) + scores.max(axis=0)) / 2
    weights = jnp.exp(scores - jax.lax.stop_gradient(shift)[None])
    choices = jnp.stack([~second, second], axis=-1).astype(jnp.float32).reshape(n, rows)

    def total(terms: Float[Array, "k ..."]) -> Float[Array, "n t m"]:
        sums = (choices @ terms.reshape(rows, -1)).reshape(n, t, 2, -1)
        return jnp.where(second[..., None], sums[:, :, 1], sums[:, :, 0])

    upper, lower = total(weights[..., None] * v[:, None]), total(weights)
    # The derivative of a ratio has the square of its denominator, which would leave the range.
    size = jax.lax.stop_gradient(lower)
    return (upper.reshape(n, t, heads, -1) / size[..., None]) / (lower / size)[..., None]


def attend_once(
    attention: Attention, x: Float[Array, "n t c"], asking: Float[Array, "n c"]
) -> Float[Array, "n c"]:
    """``attention`` with ``asking`` as its one query, over the tokens ``x``, without dropout.

    ::

        q . (W_K x_j + b_K) = (W_K^T q) . x_j + const,    sum_j w_j W_V x_j = W_V sum_j w_j x_j

    so that no key or value is formed: two products of width c for each token and head, in place of
    two matrices. Softmax attention with one matrix for queries, keys and values.
    """
    kernel, given = attention.qkv.kernel[...], attention.qkv.bias
    heads, width = attention.heads, attention.head_dim
    inner = heads * width
    bias = jnp.zeros(3 * inner, kernel.dtype) if given is None else given[...]
    of_query, of_key, of_value = (
        kernel[:, i * inner : (i + 1) * inner].reshape(-1, heads, width) for i in range(3)
    )
    q = jnp.einsum("nc,chd->nhd", asking, of_query) + bias[:inner].reshape(1, heads, width)
    asked = jnp.einsum("nhd,chd->hnc", q * width**-0.5, of_key)
    mixed = []
    for head in range(heads):  # sums of products: tiny batched matrix products are slow on a CPU
        weights = jax.nn.softmax((x * asked[head][:, None]).sum(axis=-1), axis=-1)
        mixed.append((weights[..., None] * x).sum(axis=1))
    values = jnp.einsum("hnc,chd->nhd", jnp.stack(mixed), of_value)
    values = values.reshape(len(x), inner) + bias[2 * inner :][None]
    return attention.out(values)
