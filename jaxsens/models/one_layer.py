"""The one-layer transformer that learns modular addition (paper A, 7; Nanda et al. 2023)."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxsens.models.layers import Rngs

Start = Literal["published", "nanda"]


class OneLayerTransformer(nnx.Module):
    """Logits for the symbol that follows "a b =": attention, then a ReLU layer, no LayerNorm.

    ::

        x_i  = W_E[token i] + W_pos[i],  i = a, b, =
        q    = W_Q^T x_= + b_Q
        a_i  = softmax_i(q^h^T W_K^h^T x_i / sqrt(head_dim))  in head h
        y    = b_O + sum_h W_O^h sum_i a_i (W_V^h^T x_i + b_V^h)
        z    = y,  or  x_= + y  with residual=True
        out  = W_out^T relu(W_in^T z + b_in) + b_out,  plus z with residual=True
        logits = W_U^T out + b_U

    Only what the logits after "=" depend on is computed. Shapes: number pairs (N, 2) to logits
    (N, symbols), symbols = modulus + 1, where symbol number ``modulus`` is "=". "=" belongs to the
    model, so the inputs hold exactly the tokens that sensitivity perturbs:
    ``jaxsens.sensitivity(model.from_embeddings, model.embed(pairs), tokens=Positions(), ...)``.

    ``residual=False`` is what the authors' code trains, ``True`` the usual transformer. ``start``
    is where training begins; it decides what sensitivity does between memorising and generalising:

    - ``published``: the defaults of the authors' code, which are PyTorch's. Embedding N(0, 1);
      W_Q, W_K, W_V uniform with Xavier's bound for the stacked (3 dim, dim) matrix, which is
      sqrt(1.5 / dim); W_O and the three linear layers U(±fan_in^-1/2), the biases of the latter
      too; b_Q, b_V, b_O and positions 0. A bias of the keys would never move: the softmax does not
      see it.
    - ``nanda``: matrices N(0, 1/dim) but N(0, 1/symbols) for the unembedding; b_in, b_out and
      positions 0, no other biases.

    Raises ValueError unless heads divides dim, or for another start.
    """

    def __init__(
        self,
        *,
        modulus: int,
        dim: int = 128,
        heads: int = 4,
        hidden: int = 512,
        residual: bool = False,
        start: Start = "published",
        rngs: nnx.Rngs,
    ) -> None:
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads: expected a multiple")
        self.modulus, self.heads, self.residual = modulus, heads, residual

        if start not in get_args(Start):
            raise ValueError(f"start is {start!r}: expected one of {', '.join(get_args(Start))}")
        published, symbols = start == "published", modulus + 1

        def normal(rows: int, columns: int, variance: float) -> nnx.Param:
            return nnx.Param(jax.random.normal(rngs.params(), (rows, columns)) * variance**0.5)

        def uniform(*shape: int, bound: float) -> nnx.Param:
            return nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound))

        def zeros(*shape: int) -> nnx.Param:
            return nnx.Param(jnp.zeros(shape))

        self.positions = zeros(3, dim)
        if published:
            narrow, wide, stacked = dim**-0.5, hidden**-0.5, (1.5 / dim) ** 0.5
            self.embedding = normal(symbols, dim, 1.0)
            self.query, self.key, self.value = (uniform(dim, dim, bound=stacked) for _ in range(3))
            self.query_bias: nnx.Param | None = zeros(dim)
            self.value_bias: nnx.Param | None = zeros(dim)
            self.out_bias: nnx.Param | None = zeros(dim)
            self.out = uniform(dim, dim, bound=narrow)
            self.up, self.up_bias = (
                uniform(dim, hidden, bound=narrow),
                uniform(hidden, bound=narrow),
            )
            self.down, self.down_bias = uniform(hidden, dim, bound=wide), uniform(dim, bound=wide)
            self.unembedding = uniform(dim, symbols, bound=narrow)
            self.unembedding_bias: nnx.Param | None = uniform(symbols, bound=narrow)
        else:
            self.embedding = normal(symbols, dim, 1 / dim)
            self.query, self.key, self.value, self.out = (
                normal(dim, dim, 1 / dim) for _ in range(4)
            )
            self.up, self.up_bias = normal(dim, hidden, 1 / dim), zeros(hidden)
            self.down, self.down_bias = normal(hidden, dim, 1 / dim), zeros(dim)
            self.unembedding = normal(dim, symbols, 1 / symbols)
            self.query_bias = self.value_bias = self.out_bias = self.unembedding_bias = None

    def embed(self, pairs: Int[Array, "n 2"]) -> Float[Array, "n 2 d"]:
        """W_E[a], W_E[b], without positions."""
        return self.embedding[...][pairs]

    def from_embeddings(self, numbers: Float[Array, "n 2 d"]) -> Float[Array, "n symbols"]:
        """The logits for given embeddings of a and b."""
        return _plus(self.hidden_units(numbers)[1] @ self.unembedding[...], self.unembedding_bias)

    def hidden_units(
        self, numbers: Float[Array, "n 2 d"]
    ) -> tuple[Float[Array, "n hidden"], Float[Array, "n d"]]:
        """The ReLU activations, and what the unembedding reads."""
        n, _, dim = numbers.shape
        heads = (self.heads, dim // self.heads)
        equals = self.embedding[...][self.modulus] + self.positions[...][2]
        x = numbers + self.positions[...][None, :2]
        # Every example asks the same query, so keys need not be formed: W_K q is a vector a head.
        query = _plus((equals @ self.query[...])[None], self.query_bias).reshape(heads)
        asked = jnp.einsum("dhk,hk->dh", self.key[...].reshape(dim, *heads), query)
        asked = asked / jnp.sqrt(jnp.float32(heads[1]))
        own = jnp.broadcast_to((equals @ asked)[None, None], (n, 1, self.heads))
        weights = jax.nn.softmax(jnp.concatenate([x @ asked, own], axis=1), axis=1)
        values = _plus(x @ self.value[...], self.value_bias).reshape(n, 2, *heads)
        own_value = _plus((equals @ self.value[...])[None], self.value_bias).reshape(1, *heads)
        # Three multiply-adds: as a batched matrix product this is several times slower on a CPU.
        mixed = (
            weights[:, 0, :, None] * values[:, 0]
            + weights[:, 1, :, None] * values[:, 1]
            + weights[:, 2, :, None] * own_value
        ).reshape(n, dim)
        z = _plus(mixed @ self.out[...], self.out_bias) + (equals[None] if self.residual else 0.0)
        hidden = jax.nn.relu(z @ self.up[...] + self.up_bias[...][None])
        out = hidden @ self.down[...] + self.down_bias[...][None]
        return hidden, out + z if self.residual else out

    def __call__(self, pairs: Int[Array, "n 2"], *, rngs: Rngs = None) -> Float[Array, "n symbols"]:
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise ValueError(
                f"pairs have shape {pairs.shape}: expected (N, 2), the numbers a and b"
            )
        return self.from_embeddings(self.embed(pairs))


def _plus(values: Float[Array, "*rows d"], bias: nnx.Param | None) -> Float[Array, "*rows d"]:
    if bias is None:
        return values
    return values + bias[...].reshape((1,) * (values.ndim - 1) + (-1,))
