"""One attention head and a linear read-out, on one-hot tokens (paper A, 4.1)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxsens.models.layers import Rngs


class SingleHead(nnx.Module):
    """Phi(X) = < U, softmax(X W_Q W_K^T X^T) X W_V >, a real number whose sign is the label.

    X (T, M) holds a one-hot token in each row; the inputs are their numbers, (N, T) integers, and
    the outputs (N,). W_Q, W_K and W_V are (vocabulary, dim), U is (length, dim). Every entry is
    drawn from N(0, scale^2): ``scale`` is a standard deviation. Paper A, Section 4.1, which gives
    neither dim nor scale.
    """

    def __init__(
        self, *, vocabulary: int, length: int, dim: int, scale: float, rngs: nnx.Rngs
    ) -> None:
        self.length = length

        def weight(rows: int) -> nnx.Param:
            return nnx.Param(scale * jax.random.normal(rngs.params(), (rows, dim)))

        self.query, self.key, self.value = (weight(vocabulary) for _ in range(3))
        self.readout = weight(length)

    def attention(self, tokens: Int[Array, "n t"]) -> Float[Array, "n t t"]:
        """softmax(X W_Q W_K^T X^T): row i holds what position i attends to."""
        scores = jnp.einsum("nqd,nkd->nqk", self.query[...][tokens], self.key[...][tokens])
        return jax.nn.softmax(scores)

    def directions(self) -> Float[Array, "t m"]:
        """U W_V^T: what each token adds to Phi when position t attends to it alone."""
        return self.readout[...] @ self.value[...].T

    def __call__(self, tokens: Int[Array, "n t"], *, rngs: Rngs = None) -> Float[Array, " n"]:
        if tokens.ndim != 2 or tokens.shape[1] != self.length:
            raise ValueError(f"tokens have shape {tokens.shape}: expected (N, {self.length})")
        mixed = self.attention(tokens) @ self.value[...][tokens]
        return jnp.einsum("ntd,td->n", mixed, self.readout[...])
