"""The small post-norm transformer on bit strings of paper B (Hahn and Rofin 2024)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxsens.models.layers import (
    ZEROS,
    Block,
    Rngs,
    Start,
    check_sizes,
    linear,
    xavier_uniform,
)
from jaxsens.models.layers.shortcuts import attend_once, attend_table

START = Start(projection=xavier_uniform, attention_bias=ZEROS)  # the rest is PyTorch's fan-in


class LengthTransformer(nnx.Module):
    """A real number for each string of n bits, read at its last position.

    ::

        x_i = [E[bit i], P_i]                              each of width dim / 2
        x <- norm(x + A(x)),  x <- norm(x + W2 relu(W1 x))     depth times
        f = w . x_n + b

    Strings are points of ``jaxsens.boolean``: +1 is bit 0, -1 is bit 1, and any other number gives
    NaN. Shapes: (N, n) to (N,), float32; training regresses on labels 0 and 1.

    Initial weights: E and P N(0, 1); [W_Q, W_K, W_V] uniform with Xavier's bound for the one
    stacked matrix, (1.5 / dim)^1/2; W_O, the MLP and the head U(±fan_in^-1/2), with the biases of
    the latter two; other biases 0. As in the authors' code all blocks start with the *same* weights
    (PyTorch's encoder copies the one it is given); ``independent`` draws each.

    The first block computes attention from the table of the 2n tokens that there are, the last one
    the one position that the head reads, which is exact: with one block, as it is written.

    Raises TypeError or ValueError unless all sizes are positive integers, dim is even and divides
    into heads.
    """

    def __init__(
        self,
        *,
        bits: int,
        dim: int = 128,
        heads: int = 2,
        depth: int = 2,
        independent: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(bits=bits, dim=dim, heads=heads, depth=depth)
        if dim % 2:
            raise ValueError(f"dim {dim} has no two halves, of token and position: expected even")
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads: expected a multiple")
        self.bits = bits
        self.tokens = nnx.Param(jax.random.normal(rngs.params(), (2, dim // 2)))
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (bits, dim // 2)))

        def block() -> Block:
            return Block(
                dim,
                heads=heads,
                mlp_dim=dim,
                norm="post",
                activation="relu",
                start=START,
                rngs=rngs,
            )

        first = block()
        others = [block() if independent else nnx.clone(first) for _ in range(depth - 1)]
        self.blocks = nnx.List([first, *others])
        self.head = linear(dim, 1, rngs=rngs, dtype=jnp.float32)

    def __call__(self, points: Float[Array, "n bits"], *, rngs: Rngs = None) -> Float[Array, " n"]:
        if points.ndim != 2 or points.shape[1] != self.bits:
            raise ValueError(f"points have shape {points.shape}: expected (N, {self.bits})")
        second = points < 0
        first, *others = self.blocks
        if others:
            x = self._first(first, second)
            for block in others[:-1]:
                x = block(x)
            x = self._last(others[-1], x)
        else:
            x = self._last(first, self._look_up(second))
        answers = self.head(x)[:, 0]
        return jnp.where((abs(points) == 1).all(axis=1), answers, jnp.nan)

    def _table(self) -> Float[Array, "2 t d"]:
        """What token j is for either bit."""
        n, half = self.positions.shape
        tokens = jnp.broadcast_to(self.tokens[...][:, None], (2, n, half))
        positions = jnp.broadcast_to(self.positions[...][None], (2, n, half))
        return jnp.concatenate([tokens, positions], axis=-1)

    def _look_up(self, second: Bool[Array, "n t"]) -> Float[Array, "n t d"]:
        table = self._table()
        return jnp.where(second[..., None], table[1][None], table[0][None])

    def _first(self, block: Block, second: Array) -> Float[Array, "n t d"]:
        table = self._table()
        attention, dim = block.attention, table.shape[-1]
        rows = table.swapaxes(0, 1).reshape(-1, dim)
        heads, width = attention.heads, attention.head_dim
        q, k, v = jnp.split(attention.qkv(rows).reshape(-1, 3 * heads, width), 3, axis=1)
        mixed = attend_table(q * width**-0.5, k, v, second).reshape(*second.shape, dim)
        return _finish(block, self._look_up(second) + attention.out(mixed))

    def _last(self, block: Block, x: Float[Array, "n t d"]) -> Float[Array, "n d"]:
        mixed = attend_once(block.attention, x, x[:, -1])
        return _finish(block, (x[:, -1] + mixed)[:, None])[:, 0]


def _finish(block: Block, x: Array) -> Array:
    """A post-norm block from its first LayerNorm on."""
    x = block.attention_norm(x)
    return block.mlp_norm(x + block.down(jax.nn.relu(block.up(x))))
