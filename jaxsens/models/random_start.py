"""Networks on bit strings for random weights of a chosen scale (Bhattamishra et al. 2023)."""

import itertools
import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxsens.models.layers import Block, Rngs, check_sizes, layer_norm, linear
from jaxsens.models.lstm import LSTMLayer

Model = TypeVar("Model", bound=nnx.Module)
STARTS = ("gaussian", "uniform", "xavier")
EMBEDDINGS, POSITIONS, READOUT = "embedding", "positions", "head"  # names of parameters below


class ReadTransformer(nnx.Module):
    """A number for each string of bits (±1), read at a token behind the string.

    ::

        x_i = dim^1/2 E[bit i] + P_i,   x_n = dim^1/2 E[read] + P_n
        x <- x + A(norm(x)),  x <- x + W2 relu(W1 norm(x))      depth times, W1 (dim, 2 dim)
        f = w . norm(x_n)

    With ``norm="post"`` LayerNorms follow each sum, x <- norm(x + A(x)), and there is none before
    w. Shapes: (N, bits) to (N,). Its weights are for `redraw` to draw. Raises TypeError or
    ValueError for sizes that are no positive integers, or a dim that does not divide into heads.
    """

    def __init__(
        self,
        *,
        bits: int,
        dim: int = 64,
        heads: int = 8,
        depth: int = 2,
        norm: str = "pre",
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(bits=bits, dim=dim, heads=heads, depth=depth)
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads: expected a multiple")
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (3, dim)))
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (bits + 1, dim)))
        self.blocks = nnx.List(
            [
                Block(
                    dim,
                    heads=heads,
                    mlp_dim=2 * dim,
                    norm=norm,
                    activation="relu",
                    fused=False,
                    rngs=rngs,
                )
                for _ in range(depth)
            ]
        )
        self.norm = layer_norm(dim, rngs=rngs, dtype=jnp.float32) if norm == "pre" else None
        self.head = linear(dim, 1, rngs=rngs, dtype=jnp.float32)

    def __call__(self, points: Float[Array, "n bits"], *, rngs: Rngs = None) -> Float[Array, " n"]:
        ids = jnp.pad((points < 0).astype(jnp.int32), ((0, 0), (0, 1)), constant_values=2)
        dim = self.embedding.shape[-1]
        x = math.sqrt(dim) * self.embedding[...][ids] + self.positions[...][None]
        *others, last = self.blocks
        for block in others:
            x = block(x)
        x = last(x, rows=slice(-1, None))
        read = x[:, -1] if self.norm is None else self.norm(x[:, -1])
        return self.head(read)[:, 0]


class ReadLSTM(nnx.Module):
    """A number for each string of bits (±1): embedding, LSTM layers, linear map of the last state.

    Shapes: (N, bits) to (N,). Its weights are for `redraw` to draw.
    """

    def __init__(self, *, dim: int = 64, depth: int = 2, rngs: nnx.Rngs) -> None:
        check_sizes(dim=dim, depth=depth)
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (2, dim)))
        self.layers = nnx.List(
            [LSTMLayer(dim, dim, dtype=jnp.float32, rngs=rngs) for _ in range(depth)]
        )
        self.head = linear(dim, 1, rngs=rngs, dtype=jnp.float32)

    def __call__(self, points: Float[Array, "n bits"], *, rngs: Rngs = None) -> Float[Array, " n"]:
        x = self.embedding[...][(points < 0).astype(jnp.int32)].swapaxes(0, 1)
        for layer in self.layers:
            x = layer(x)
        return self.head(x[-1])[:, 0]


class BitMLP(nnx.Module):
    """x <- relu(W x + b) ``depth`` times from the bits (±1) themselves, then a linear map.

    Shapes: (N, bits) to (N,). Its weights are for `redraw` to draw.
    """

    def __init__(self, *, bits: int, dim: int = 64, depth: int = 2, rngs: nnx.Rngs) -> None:
        check_sizes(bits=bits, dim=dim, depth=depth)
        widths = [bits] + [dim] * depth
        self.hidden = nnx.List(
            [linear(a, b, rngs=rngs, dtype=jnp.float32) for a, b in itertools.pairwise(widths)]
        )
        self.head = linear(dim, 1, rngs=rngs, dtype=jnp.float32)

    def __call__(self, points: Float[Array, "n bits"], *, rngs: Rngs = None) -> Float[Array, " n"]:
        x = points
        for layer in self.hidden:
            x = jax.nn.relu(layer(x))
        return self.head(x)[:, 0]


def redraw(model: Model, key: Array, *, start: str, scale: float = 10.0) -> Model:
    """A copy of the model with all weights drawn anew, as in Bhattamishra et al. 2023.

    ==========  ========================  =============  =============  =============
    start       matrices                  embedding      positions      read-out
    ==========  ========================  =============  =============  =============
    gaussian    N(0, scale^2)             N(0, 1)        U(-1, 1)       N(0, 1)
    uniform     U(-scale, scale)          as matrices    as matrices    as matrices
    xavier      N(0, 2/(fan_in+fan_out))  N(0, 1)        N(0, 1)        as matrices
    ==========  ========================  =============  =============  =============

    Biases are 0 and the gains of LayerNorms 1. ``scale`` is a standard deviation or a bound, and
    nothing to xavier. Parameters are told apart by the names that the models here give
    them. Raises ValueError for an unknown start or a scale that is not
    positive.
    """
    if start not in STARTS:
        raise ValueError(f"start is {start!r}: expected one of {', '.join(STARTS)}")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a positive number, got {scale}")
    graph, params, *rest = nnx.split(model, nnx.Param, ...)
    found, structure = jax.tree_util.tree_flatten_with_path(params)
    keys = jax.random.split(key, len(found))
    drawn = [
        _draw(_names(path), leaf, k, start, scale)
        for (path, leaf), k in zip(found, keys, strict=True)
    ]
    return nnx.merge(graph, jax.tree_util.tree_unflatten(structure, drawn), *rest)


def _names(path: Any) -> list[str]:
    return [str(getattr(part, "key", getattr(part, "name", part))) for part in path]


def _draw(names: list[str], leaf: Array, key: Array, start: str, scale: float) -> Array:
    shape, dtype = leaf.shape, leaf.dtype
    if leaf.ndim == 1:
        return jnp.ones_like(leaf) if "scale" in names else jnp.zeros_like(leaf)
    if start == "uniform":
        return jax.random.uniform(key, shape, dtype, -scale, scale)
    if POSITIONS in names and start == "gaussian":
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0)
    normal = jax.random.normal(key, shape, dtype)
    if {EMBEDDINGS, POSITIONS} & set(names):
        return normal
    if start == "gaussian":
        return normal if READOUT in names else scale * normal
    return normal * math.sqrt(2 / sum(shape))
