"""RoBERTa (arXiv 1907.11692) at the small size of the language experiments."""

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
    layer_norm,
    linear,
    look_up,
    normal_002,
    table,
)
from jaxsens.models.layers.text import Text

START = Start(normal_002, normal_002, normal_002, normal_002, ZEROS, ZEROS)
PERTURBED = ("normalised", "words", "block")
PAD = 1


class RoBERTa(nnx.Module):
    """Post-norm encoder; logits from the first token: dropout, dense, tanh, dropout, dense.

    ::

        e_i = norm(word[ids_i] + position[1 + i] + type),  real tokens counted from i = 1
        x <- norm(x + attention(x)),  x <- norm(x + W2 gelu(W1 x)),  ``depth`` times

    ``attention="relu"`` puts max(QK^T / sqrt(head_dim), 0) in the place of the softmax, without a
    normaliser. Inputs are ``{"ids": (N, T) integers, "mask": (N, T) bool}``, True at real tokens;
    logits (N, classes), float32. The defaults are paper A's (Section 6), whose MLP is as wide as
    roberta-base's. Initial weights N(0, 0.02^2), biases and the rows of the padding 0.

    ``model(inputs)`` is always the plain network. What sensitivity perturbs is ``embed(inputs)``,
    which ``from_embeddings(vectors, mask)`` takes on to the logits. ``perturbed``: "normalised",
    e_i (the text); or what the published code may have done, where positions and types are added
    and normalised after the noise: "words", word[ids_i]; "block", e_i, so that positions count
    twice, without noise too. Raises ValueError or TypeError for arguments that do not fit.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 50265,
        classes: int = 2,
        depth: int = 4,
        heads: int = 8,
        dim: int = 256,
        mlp_dim: int = 3072,
        positions: int = 514,
        attention: str = "softmax",
        dropout: float = 0.1,
        perturbed: str = "normalised",
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(vocabulary=vocabulary, classes=classes, depth=depth, heads=heads)
        check_sizes(dim=dim, mlp_dim=mlp_dim, positions=positions)
        check_rates(dropout=dropout)
        check_choice("perturbed", perturbed, PERTURBED)
        self.perturbed, self.dtype = perturbed, jnp.dtype(dtype)
        self.words = table(vocabulary, dim, deviation=0.02, pad=PAD, rngs=rngs)
        self.positions = table(positions, dim, deviation=0.02, pad=PAD, rngs=rngs)
        self.kinds = table(1, dim, deviation=0.02, rngs=rngs)
        self.norm = layer_norm(dim, rngs=rngs, dtype=dtype)
        self.blocks = nnx.List(
            [
                Block(
                    dim,
                    heads=heads,
                    mlp_dim=mlp_dim,
                    norm="post",
                    kind=attention,
                    fused=False,
                    dropout=dropout,
                    attention_dropout=dropout,
                    start=START,
                    rngs=rngs,
                    dtype=dtype,
                )
                for _ in range(depth)
            ]
        )
        self.dense, self.head = (
            linear(dim, size, kernel_init=normal_002, bias_init=ZEROS, rngs=rngs, dtype=dtype)
            for size in (dim, classes)
        )
        self.dropout = Dropout(dropout)

    def embed(self, inputs: Text) -> Float[Array, "n t d"]:
        """What sensitivity perturbs, (N, T, dim)."""
        ids, mask = self._check(inputs)
        words = look_up(self.words, ids, self.dtype)
        return words if self.perturbed == "words" else self._normalised(words, mask)

    def from_embeddings(
        self, vectors: Float[Array, "n t d"], mask: Bool[Array, "n t"], *, rngs: Rngs = None
    ) -> Float[Array, "n k"]:
        """The logits for what ``embed`` returns."""
        vectors = vectors.astype(self.dtype)
        again = self.perturbed != "normalised"
        return self._encode(self._normalised(vectors, mask) if again else vectors, mask, rngs)

    def __call__(self, inputs: Text, *, rngs: Rngs = None) -> Float[Array, "n k"]:
        ids, mask = self._check(inputs)
        words = look_up(self.words, ids, self.dtype)
        return self._encode(self._normalised(words, mask), mask, rngs)

    def _check(self, inputs: Text) -> tuple[Int[Array, "n t"], Bool[Array, "n t"]]:
        return check_text(inputs, len(self.positions[...]) - PAD - 1)

    def _normalised(
        self, vectors: Float[Array, "n t d"], mask: Bool[Array, "n t"]
    ) -> Float[Array, "n t d"]:
        positions = jnp.cumsum(mask, axis=1) * mask + PAD
        places = look_up(self.positions, positions, self.dtype)
        return self.norm(vectors + places + self.kinds[...].astype(self.dtype)[None])

    def _encode(
        self, x: Float[Array, "n t d"], mask: Bool[Array, "n t"], rngs: Rngs
    ) -> Float[Array, "n k"]:
        x = self.dropout(x, rngs)
        for i, block in enumerate(self.blocks):
            # Of the last block's output the first token alone is read.
            rows = slice(None) if i + 1 < len(self.blocks) else slice(0, 1)
            x = block(x, padding=mask, rows=rows, rngs=rngs)
        hidden = jnp.tanh(self.dense(self.dropout(x[:, 0], rngs)))
        return self.head(self.dropout(hidden, rngs)).astype(jnp.float32)
