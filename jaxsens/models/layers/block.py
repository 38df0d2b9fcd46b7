"""The transformer block, with LayerNorm before or after each of its two parts."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers.attention import Attention
from jaxsens.models.layers.dropout import Dropout, Rngs
from jaxsens.models.layers.init import Initializer, fan_in_uniform
from jaxsens.models.layers.linear import gelu, linear
from jaxsens.models.layers.norm import layer_norm

NORMS = ("pre", "post")
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu-tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


@dataclasses.dataclass(frozen=True)
class Start:
    """Initial weights of a block; None for a bias is U(-fan_in^-1/2, fan_in^-1/2)."""

    projection: Initializer = fan_in_uniform
    """W_Q, W_K and W_V."""
    out: Initializer = fan_in_uniform
    """W_O."""
    up: Initializer = fan_in_uniform
    """W1 of the MLP."""
    down: Initializer = fan_in_uniform
    """W2 of the MLP."""
    attention_bias: Initializer | None = None
    """Biases of the four maps of attention."""
    mlp_bias: Initializer | None = None
    """Biases of the MLP."""


class Block(nnx.Module):
    """Attention, then an MLP, each added to its input; LayerNorm before or after.

    ::

        pre:   x <- x + A(norm(x)),    x <- x + W2 act(W1 norm(x))
        post:  x <- norm(x + A(x)),    x <- norm(x + W2 act(W1 x))

    ``dropout`` falls on what is added, ``attention_dropout`` on the attention weights,
    ``hidden_dropout`` after the activation. ``rows`` computes the output of those tokens alone,
    from the keys and values of all. The other arguments are those of `Attention`.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        mlp_dim: int,
        norm: str = "pre",
        activation: str = "gelu",
        head_dim: int | None = None,
        kind: str = "softmax",
        causal: bool = False,
        fused: bool = True,
        attention_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        epsilon: float = 1e-5,
        start: Start = Start(),
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if norm not in NORMS:
            raise ValueError(f"norm is {norm!r}: expected one of {', '.join(NORMS)}")
        self.norm, self.activation = norm, activation
        self.attention_norm = layer_norm(dim, epsilon=epsilon, rngs=rngs, dtype=dtype)
        self.attention = Attention(
            dim,
            heads=heads,
            head_dim=head_dim,
            kind=kind,
            causal=causal,
            fused=fused,
            use_bias=attention_bias,
            dropout=attention_dropout,
            kernel_init=start.projection,
            bias_init=start.attention_bias,
            out_init=start.out,
            rngs=rngs,
            dtype=dtype,
        )
        self.mlp_norm = layer_norm(dim, epsilon=epsilon, rngs=rngs, dtype=dtype)

        def layer(inputs: int, outputs: int, init: Initializer) -> nnx.Linear:
            return linear(
                inputs, outputs, kernel_init=init, bias_init=start.mlp_bias, rngs=rngs, dtype=dtype
            )

        self.up, self.down = layer(dim, mlp_dim, start.up), layer(mlp_dim, dim, start.down)
        self.hidden_dropout, self.dropout = Dropout(hidden_dropout), Dropout(dropout)

    def __call__(
        self,
        x: Float[Array, "n t d"],
        *,
        padding: Bool[Array, "n t"] | None = None,
        rows: slice = slice(None),
        rngs: Rngs = None,
    ) -> Float[Array, "n q d"]:
        pre = self.norm == "pre"
        source = self.attention_norm(x) if pre else x
        mixed = self.attention(source, padding=padding, rows=rows, rngs=rngs)
        x = x[:, rows] + self.dropout(mixed, rngs)
        x = x if pre else self.attention_norm(x)
        hidden = ACTIVATIONS[self.activation](self.up(self.mlp_norm(x) if pre else x))
        x = x + self.dropout(self.down(self.hidden_dropout(hidden, rngs)), rngs)
        return x if pre else self.mlp_norm(x)
