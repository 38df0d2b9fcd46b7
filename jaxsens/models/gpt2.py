"""GPT-2 (Radford et al. 2019) as a classifier, at the small size of the language experiments."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import DTypeLike

from jaxsens.models.layers import (
    ZEROS,
    Block,
    Dropout,
    Rngs,
    Start,
    check_choice,
    check_rates,
    check_sizes,
    check_text,
    last_token,
    layer_norm,
    linear,
    look_up,
    normal_002,
    table,
)
from jaxsens.models.layers.text import Text

PERTURBED = ("normalised", "raw", "raw-twice")
READOUTS = ("last", "last-padded")


class GPT2(nnx.Module):
    """Pre-norm causal transformer; logits by a linear map without bias of the last real token.

    ::

        e_i = word[ids_i] + position[i]
        x <- x + attention(norm(x)),  x <- x + W2 gelu(W1 norm(x)),  ``depth`` times;  norm

    GELU is the tanh approximation. Inputs are ``{"ids": (N, T) integers, "mask": (N, T) bool}``,
    True at real tokens; logits (N, classes), float32. ``readout="last-padded"`` reads position T
    as it is, padding or not: what the published code did. Initial weights N(0, 0.02^2), those that
    lead back to x divided by sqrt(2 depth), biases 0. MLP: ``mlp_dim``, or 4 dim.

    What sensitivity perturbs is ``embed(inputs)``, which ``from_embeddings(vectors, mask)`` takes
    on to the logits; the latter of the former is ``model(inputs)``. ``perturbed``: "normalised",
    norm(e_i), with a LayerNorm of its own, as paper A's text has it of every model (its Section
    6), which GPT-2 has not; "raw", e_i, GPT-2 itself, whose entries are near 0.03 at the start;
    "raw-twice", e_i and positions added once more, in every pass: the published code. Raises
    ValueError or TypeError for arguments that do not fit.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 50265,
        classes: int = 2,
        depth: int = 4,
        heads: int = 8,
        dim: int = 256,
        mlp_dim: int | None = None,
        positions: int = 1024,
        attention: str = "softmax",
        dropout: float = 0.1,
        readout: str = "last",
        perturbed: str = "normalised",
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(vocabulary=vocabulary, classes=classes, depth=depth, heads=heads)
        check_sizes(dim=dim, positions=positions, mlp_dim=4 * dim if mlp_dim is None else mlp_dim)
        check_rates(dropout=dropout)
        check_choice("perturbed", perturbed, PERTURBED)
        check_choice("readout", readout, READOUTS)
        self.perturbed, self.readout, self.dtype = perturbed, readout, jnp.dtype(dtype)

        def back(key: Array, shape: Any, dtype: Any = jnp.float32, *_: Any, **__: Any) -> Array:
            return normal_002(key, shape, dtype) / math.sqrt(2 * depth)

        self.words = table(vocabulary, dim, deviation=0.02, rngs=rngs)
        self.positions = table(positions, dim, deviation=0.02, rngs=rngs)
        normalises = perturbed == "normalised"
        self.embedding_norm = layer_norm(dim, rngs=rngs, dtype=dtype) if normalises else None
        self.dropout = Dropout(dropout)
        self.blocks = nnx.List(
            [
                Block(
                    dim,
                    heads=heads,
                    mlp_dim=mlp_dim or 4 * dim,
                    activation="gelu-tanh",
                    kind=attention,
                    causal=True,
                    dropout=dropout,
                    attention_dropout=dropout,
                    start=Start(normal_002, back, normal_002, back, ZEROS, ZEROS),
                    rngs=rngs,
                    dtype=dtype,
                )
                for _ in range(depth)
            ]
        )
        self.norm = layer_norm(dim, rngs=rngs, dtype=dtype)
        self.head = linear(
            dim, classes, use_bias=False, kernel_init=normal_002, rngs=rngs, dtype=dtype
        )

    def embed(self, inputs: Text) -> Float[Array, "n t d"]:
        """What sensitivity perturbs, (N, T, dim)."""
        ids, _ = self._check(inputs)
        x = look_up(self.words, ids, self.dtype) + self._places(ids.shape[1])
        return x if self.embedding_norm is None else self.embedding_norm(x)

    def from_embeddings(
        self, vectors: Float[Array, "n t d"], mask: Bool[Array, "n t"], *, rngs: Rngs = None
    ) -> Float[Array, "n k"]:
        """The logits for what ``embed`` returns."""
        x = vectors.astype(self.dtype)
        if self.perturbed == "raw-twice":
            x = x + self._places(x.shape[1])
        x = self.dropout(x, rngs)
        for block in self.blocks:
            x = block(x, padding=mask, rngs=rngs)
        x = x[:, -1] if self.readout == "last-padded" else last_token(x, mask)
        return self.head(self.norm(x)).astype(jnp.float32)

    def __call__(self, inputs: Text, *, rngs: Rngs = None) -> Float[Array, "n k"]:
        return self.from_embeddings(self.embed(inputs), self._check(inputs)[1], rngs=rngs)

    def _check(self, inputs: Text) -> tuple[Int[Array, "n t"], Bool[Array, "n t"]]:
        return check_text(inputs, len(self.positions[...]))

    def _places(self, tokens: int) -> Float[Array, "1 t d"]:
        return jax.lax.slice_in_dim(self.positions[...], 0, tokens).astype(self.dtype)[None]
