"""A small pre-norm transformer on bit strings, for parities and other Boolean functions."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxsens.models.layers import Rngs, layer_norm, linear, uniform_bias

READOUTS = ("cls", "mean")


class BitBlock(nnx.Module):
    """x <- x + attention(norm(x)), then x <- x + W2 relu(W1 norm(x)), with biases.

    ``first`` computes the output of token 0 alone, from the keys and values of all tokens.
    """

    def __init__(self, dim: int, *, heads: int, hidden: int, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.norm = layer_norm(dim, rngs=rngs, dtype=jnp.float32)
        self.query, self.key, self.value, self.out = (
            linear(dim, dim, rngs=rngs, dtype=jnp.float32) for _ in range(4)
        )
        self.mlp_norm = layer_norm(dim, rngs=rngs, dtype=jnp.float32)
        self.up = linear(dim, hidden, rngs=rngs, dtype=jnp.float32)
        self.down = linear(hidden, dim, rngs=rngs, dtype=jnp.float32)

    def __call__(self, x: Float[Array, "n t d"], *, first: bool = False) -> Float[Array, "n q d"]:
        normed = self.norm(x)
        asking, x = (normed[:, :1], x[:, :1]) if first else (normed, x)
        q, k, v = map(self._split, (self.query(asking), self.key(normed), self.value(normed)))
        scores = jnp.einsum("nqhd,nkhd->nhqk", q / math.sqrt(q.shape[-1]), k)
        mixed = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), v)
        x = x + self.out(mixed.reshape(x.shape))
        return x + self.down(jax.nn.relu(self.up(self.mlp_norm(x))))

    def _split(self, x: Float[Array, "n t d"]) -> Float[Array, "n t h k"]:
        return x.reshape(*x.shape[:2], self.heads, -1)


class BitTransformer(nnx.Module):
    """A real number for each string of d bits (±1); its sign is the Boolean function.

    Token i holds bits ``bits_per_token * i`` onwards: W x_group + P_i, with one W for all tokens
    and a learned position P_i. With one bit a token that is an embedding for each of the two
    values plus a position. ``readout``: "cls", a learned token in front, or "mean" over the
    tokens; then LayerNorm and a linear map. Shapes: (N, d) to (N,), float32.

    Initial weights and biases: U(-fan_in^-1/2, fan_in^-1/2); N(0, 1) for W and P. Raises
    ValueError unless heads divides dim, bits_per_token divides bits, and the read-out is known.
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
        self.bits, self.bits_per_token, self.readout = bits, bits_per_token, readout
        tokens = bits // bits_per_token + (readout == "cls")
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (bits_per_token, dim)))
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (tokens, dim)))
        self.blocks = nnx.List(
            [BitBlock(dim, heads=heads, hidden=4 * dim, rngs=rngs) for _ in range(depth)]
        )
        self.norm = layer_norm(dim, rngs=rngs, dtype=jnp.float32)
        self.head = linear(dim, 1, rngs=rngs, dtype=jnp.float32, bias_init=uniform_bias(dim))

    def __call__(self, points: Float[Array, "n bits"], *, rngs: Rngs = None) -> Float[Array, " n"]:
        if points.ndim != 2 or points.shape[1] != self.bits:
            raise ValueError(f"points have shape {points.shape}: expected (N, {self.bits})")
        n = len(points)
        groups = points.astype(jnp.float32).reshape(n, -1, self.bits_per_token)
        x = groups @ self.embedding[...]
        if self.readout == "cls":
            x = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))
        x = x + self.positions[...][None]
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        cls = self.readout == "cls"
        x = last(x, first=cls)
        return self.head(self.norm(x[:, 0] if cls else x.mean(axis=1)))[:, 0]
