"""A small pre-norm transformer on bit strings, for parities and other Boolean functions."""

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxsens.models.layers import (
    ZEROS,
    Dropout,
    Rngs,
    attend,
    layer_norm,
    linear,
    merge_heads,
    uniform_bias,
)
from jaxsens.models.layers.attention import split_heads
from jaxsens.models.layers.shortcuts import attend_table

READOUTS = ("cls", "mean")


class BitBlock(nnx.Module):
    """x <- x + attention(norm(x)), then x <- x + W2 relu(W1 norm(x)), with biases.

    Dropout falls on what is added. ``first`` computes the output of token 0 alone, from the keys
    and values of all tokens.
    """

    def __init__(
        self, dim: int, *, heads: int, hidden: int, dropout: float, gain: float, rngs: nnx.Rngs
    ) -> None:
        xavier = jax.nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")

        def layer(inputs: int, outputs: int) -> nnx.Linear:
            return linear(
                inputs, outputs, rngs=rngs, dtype=jnp.float32, kernel_init=xavier, bias_init=ZEROS
            )

        self.heads = heads
        self.norm = layer_norm(dim, rngs=rngs, dtype=jnp.float32)
        self.query, self.key, self.value, self.out = (layer(dim, dim) for _ in range(4))
        self.mlp_norm = layer_norm(dim, rngs=rngs, dtype=jnp.float32)
        self.up, self.down = layer(dim, hidden), layer(hidden, dim)
        self.dropout = Dropout(dropout)

    def __call__(
        self, x: Float[Array, "n t d"], *, first: bool = False, rngs: Rngs = None
    ) -> Float[Array, "n q d"]:
        normed = self.norm(x)
        asking, x = (normed[:, :1], x[:, :1]) if first else (normed, x)
        parts = (self.query(asking), self.key(normed), self.value(normed))
        q, k, v = (split_heads(part, self.heads) for part in parts)
        mixed = merge_heads(attend(q / math.sqrt(q.shape[-1]), k, v))
        return self._finish(x, mixed, rngs)

    def of_table(
        self, table: Float[Array, "t 2 d"], second: Bool[Array, "n t"], *, rngs: Rngs = None
    ) -> Float[Array, "n t d"]:
        """The same where token j is ``table[j, 0]``, or ``table[j, 1]`` if ``second[:, j]``.

        See :func:`~jaxsens.models.layers.shortcuts.attend_table`.
        """
        (t, _, d), n = table.shape, len(second)
        normed = self.norm(table).reshape(1, 2 * t, d)
        q, k, v = (self._split(f(normed))[0] for f in (self.query, self.key, self.value))
        mixed = attend_table(q / math.sqrt(q.shape[-1]), k, v, second)
        x = jnp.where(second[..., None], table[:, 1], table[:, 0])
        return self._finish(x, mixed.reshape(n, t, d), rngs)

    def _finish(
        self, x: Float[Array, "n q d"], mixed: Float[Array, "n q d"], rngs: Rngs
    ) -> Float[Array, "n q d"]:
        x = x + self.dropout(self.out(mixed), rngs)
        return x + self.dropout(self.down(jax.nn.relu(self.up(self.mlp_norm(x)))), rngs)

    def _split(self, x: Float[Array, "n t d"]) -> Float[Array, "n t h k"]:
        return x.reshape(*x.shape[:2], self.heads, -1)


class BitTransformer(nnx.Module):
    """A real number for each string of d bits (±1); its sign is the Boolean function.

    Token i holds bits ``bits_per_token * i`` onwards: W x_group + P_i, with one W for all tokens
    and a learned position P_i. With one bit a token that is an embedding for each of the two
    values plus a position, and a point with any other value gives NaN. ``readout``: "cls", a
    learned token in front, or "mean" over the tokens; then LayerNorm and a linear map. Shapes:
    (N, d) to (N,), float32.

    Initial weights of the blocks: Xavier's U(-b, b), b = gain (6 / (fan_in + fan_out))^1/2, their
    biases 0; of the last map U(-dim^-1/2, dim^-1/2); N(0, 1) for W and P. Raises ValueError unless
    heads divides dim, bits_per_token divides bits, the read-out is known, dropout is in [0, 1) and
    gain is positive.
    """

    def __init__(
        self,
        *,
        bits: int,
        depth: int = 2,
        heads: int = 4,
        dim: int = 32,
        bits_per_token: int = 1,
        readout: str = "cls",
        dropout: float = 0.0,
        gain: float = 1.0,
        rngs: nnx.Rngs,
    ) -> None:
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads: expected a multiple")
        if bits_per_token < 1 or bits % bits_per_token:
            raise ValueError(
                f"{bits} bits do not divide into tokens of {bits_per_token}: expected a divisor"
            )
        if readout not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}, got {readout!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        if not 0 < gain < math.inf:
            raise ValueError(f"gain must be a positive number, got {gain}")
        self.bits, self.bits_per_token, self.readout = bits, bits_per_token, readout
        tokens = bits // bits_per_token + (readout == "cls")
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (bits_per_token, dim)))
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (tokens, dim)))
        self.blocks = nnx.List(
            [
                BitBlock(dim, heads=heads, hidden=4 * dim, dropout=dropout, gain=gain, rngs=rngs)
                for _ in range(depth)
            ]
        )
        self.norm = layer_norm(dim, rngs=rngs, dtype=jnp.float32)
        self.head = linear(dim, 1, rngs=rngs, dtype=jnp.float32, bias_init=uniform_bias(dim))

    def __call__(self, points: Float[Array, "n bits"], *, rngs: Rngs = None) -> Float[Array, " n"]:
        self._check(points)
        if self.bits_per_token > 1 or len(self.blocks) == (self.readout == "cls"):
            return self.by_token(points, rngs=rngs)
        either = self._embed(jnp.array([[-1.0], [1.0]]) * jnp.ones((1, self.bits)))
        second = jnp.pad(points > 0, ((0, 0), (int(self.readout == "cls"), 0)))
        first, *blocks = self.blocks
        x = first.of_table(either.swapaxes(0, 1), second, rngs=rngs)
        return self._answers(points, x, blocks, rngs)

    def by_token(self, points: Float[Array, "n bits"], *, rngs: Rngs = None) -> Float[Array, " n"]:
        """The same answers, slower, with every token of every point in the first layer too.

        For what looks into the layers: otherwise the first computes its two possible tokens at
        each position once for all points.
        """
        self._check(points)
        return self._answers(points, self._embed(points.astype(jnp.float32)), self.blocks, rngs)

    def _check(self, points: Float[Array, "n bits"]) -> None:
        if points.ndim != 2 or points.shape[1] != self.bits:
            raise ValueError(f"points have shape {points.shape}: expected (N, {self.bits})")

    def _answers(
        self, points: Array, x: Float[Array, "n t d"], blocks: Iterable[BitBlock], rngs: Rngs
    ) -> Float[Array, " n"]:
        blocks = list(blocks)
        last = blocks.pop() if self.readout == "cls" else None  # of the others all are needed
        for block in blocks:
            x = block(x, rngs=rngs)
        x = x.mean(axis=1) if last is None else last(x, first=True, rngs=rngs)[:, 0]
        answers = self.head(self.norm(x))[:, 0]
        if self.bits_per_token == 1:  # taken by their signs, other points would get an answer too
            answers = jnp.where((abs(points) == 1).all(axis=1), answers, jnp.nan)
        return answers

    def _embed(self, points: Float[Array, "n bits"]) -> Float[Array, "n t d"]:
        x = points.reshape(len(points), -1, self.bits_per_token) @ self.embedding[...]
        if self.readout == "cls":
            x = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))
        return x + self.positions[...][None]
