"""Stacked LSTMs: the language experiments' classifier, and random ones on strings of bits."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers import (
    Dropout,
    Rngs,
    check_rates,
    check_sizes,
    check_text,
    last_token,
    layer_norm,
    linear,
    look_up,
    table,
    uniform_bias,
)
from jaxsens.models.layers.text import Text

PAD = 1


def run_layer(
    x: Float[Array, "t n c"],
    kernel: Float[Array, "c h4"],
    recurrent: Float[Array, "h h4"],
    bias: Float[Array, " h4"],
) -> Float[Array, "t n h"]:
    """The hidden states of one layer, time first, from zero.

    ::

        i, f, g, o = x_t W + h_{t-1} U + b
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g),  h_t = sigmoid(o) tanh(c_t)

    What does not wait for the step before, x W + b, is one product for all steps.
    """
    t, n, channels = x.shape
    ahead = (x.reshape(t * n, channels) @ kernel + bias[None]).reshape(t, n, -1)

    def step(carry: tuple[Array, Array], ahead: Array) -> tuple[tuple[Array, Array], Array]:
        c, h = carry
        i, f, g, o = jnp.split(ahead + h @ recurrent, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    zero = jnp.zeros((n, recurrent.shape[0]), ahead.dtype)
    return jax.lax.scan(step, (zero, zero), ahead)[1]


class LSTMLayer(nnx.Module):
    """`run_layer` with PyTorch's parameters: two biases, all U(-dim^-1/2, dim^-1/2)."""

    def __init__(self, inputs: int, dim: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        uniform, width = uniform_bias(dim), 4 * dim
        self.input_kernel = nnx.Param(uniform(rngs.params(), (inputs, width)))
        self.hidden_kernel = nnx.Param(uniform(rngs.params(), (dim, width)))
        self.input_bias = nnx.Param(uniform(rngs.params(), (width,)))
        self.hidden_bias = nnx.Param(uniform(rngs.params(), (width,)))
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: Float[Array, "t n c"]) -> Float[Array, "t n h"]:
        bias = self.input_bias[...] + self.hidden_bias[...]
        kernels = (self.input_kernel[...], self.hidden_kernel[...], bias)
        return run_layer(x, *(kernel.astype(self.dtype) for kernel in kernels))


class LSTM(nnx.Module):
    """Embedding, LayerNorm, ``depth`` LSTM layers, linear map of the state at the last real token.

    Inputs are ``{"ids": (N, T) integers, "mask": (N, T) bool}``, True at real tokens, which come
    first; logits (N, classes), float32. Dropout falls between layers. The defaults are paper A's
    (Section 6). Initial weights are PyTorch's: N(0, 1) for the embedding, whose row for padding is
    0, and U(-dim^-1/2, dim^-1/2) for all else.

    What sensitivity perturbs is ``embed(inputs)``, the normalised embedding, which
    ``from_embeddings(vectors, mask)`` takes on to the logits. Raises ValueError or TypeError for
    arguments that do not fit.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 50265,
        classes: int = 2,
        depth: int = 4,
        dim: int = 256,
        dropout: float = 0.1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(vocabulary=vocabulary, classes=classes, depth=depth, dim=dim)
        check_rates(dropout=dropout)
        self.dtype = jnp.dtype(dtype)
        self.words = table(vocabulary, dim, deviation=1.0, pad=PAD, rngs=rngs)
        self.norm = layer_norm(dim, rngs=rngs, dtype=dtype)
        self.layers = nnx.List([LSTMLayer(dim, dim, rngs=rngs, dtype=dtype) for _ in range(depth)])
        self.dropout = Dropout(dropout)
        self.head = linear(dim, classes, rngs=rngs, dtype=dtype)

    def embed(self, inputs: Text) -> Float[Array, "n t d"]:
        """What sensitivity perturbs, (N, T, dim)."""
        ids, _ = check_text(inputs)
        return self.norm(look_up(self.words, ids, self.dtype))

    def from_embeddings(
        self, vectors: Float[Array, "n t d"], mask: Bool[Array, "n t"], *, rngs: Rngs = None
    ) -> Float[Array, "n k"]:
        """The logits for what ``embed`` returns."""
        x = vectors.astype(self.dtype).swapaxes(0, 1)
        for i, layer in enumerate(self.layers):
            x = layer(x if i == 0 else self.dropout(x, rngs))
        return self.head(last_token(x.swapaxes(0, 1), mask)).astype(jnp.float32)

    def __call__(self, inputs: Text, *, rngs: Rngs = None) -> Float[Array, "n k"]:
        return self.from_embeddings(self.embed(inputs), check_text(inputs)[1], rngs=rngs)


class BitLSTM(nnx.Module):
    """A real number for each string of d bits (±1): an LSTM over tokens of one bit.

    The last state goes through a linear map. Initial weights are Flax's (LeCun-normal inputs,
    orthogonal recurrences, zero biases) or, with ``uniform``, U(-width^-1/2, width^-1/2). Shapes:
    (N, d) to (N,).
    """

    def __init__(self, width: int, depth: int, *, uniform: bool, rngs: nnx.Rngs) -> None:
        def scaled(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
            bound = width**-0.5
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        start: dict[str, Any] = {}
        if uniform:
            start = {"kernel_init": scaled, "recurrent_kernel_init": scaled, "bias_init": scaled}
        self.cells = nnx.List(
            nnx.OptimizedLSTMCell(1 if i == 0 else width, width, rngs=rngs, **start)
            for i in range(depth)
        )
        self.readout = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        z = x.T[:, :, None]
        for cell in self.cells:
            recurrent: Any = cell.dense_h
            z = run_layer(z, cell.dense_i.kernel[...], recurrent.kernel[...], recurrent.bias[...])
        return self.readout(z[-1])[:, 0]
