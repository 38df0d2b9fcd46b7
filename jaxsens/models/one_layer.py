"""The one-layer transformer that learns modular addition (paper A, 7; Nanda et al. 2023)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxsens.models.layers import Rngs


class OneLayerTransformer(nnx.Module):
    """Logits for the symbol that follows "a b =": attention, then a ReLU layer, no LayerNorm.

    ::

        x_i  = W_E[token i] + W_pos[i],  i = a, b, =
        y    = sum_h W_O^h sum_i softmax_i(x_=^T W_Q^h W_K^h^T x_i / sqrt(head_dim)) W_V^h^T x_i
        z    = y,  or  x_= + y  with residual=True
        out  = W_out^T relu(W_in^T z + b_in) + b_out,  plus z with residual=True
        logits = W_U^T out

    Only what the logits after "=" depend on is computed. Shapes: number pairs (N, 2) to logits
    (N, symbols), symbols = modulus + 1, where symbol number ``modulus`` is "=". "=" belongs to the
    model, so the inputs hold exactly the tokens that sensitivity perturbs:
    ``jaxsens.sensitivity(model.from_embeddings, model.embed(pairs), tokens=Positions(), ...)``.

    ``residual=False`` is what the authors' code trains, ``True`` the usual transformer. Initial
    weights: N(0, 1/dim) but N(0, 1/symbols) for the unembedding; positions and biases 0.
    Raises ValueError unless heads divides dim.
    """

    def __init__(
        self,
        *,
        modulus: int,
        dim: int = 128,
        heads: int = 4,
        hidden: int = 512,
        residual: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads: expected a multiple")
        self.modulus, self.heads, self.residual = modulus, heads, residual

        def weight(rows: int, columns: int, fan: int) -> nnx.Param:
            return nnx.Param(jax.random.normal(rngs.params(), (rows, columns)) * fan**-0.5)

        symbols = modulus + 1
        self.embedding = weight(symbols, dim, dim)
        self.positions = nnx.Param(jnp.zeros((3, dim)))
        self.query, self.key, self.value, self.out = (weight(dim, dim, dim) for _ in range(4))
        self.up, self.up_bias = weight(dim, hidden, dim), nnx.Param(jnp.zeros((hidden,)))
        self.down, self.down_bias = weight(hidden, dim, dim), nnx.Param(jnp.zeros((dim,)))
        self.unembedding = weight(dim, symbols, symbols)

    def embed(self, pairs: Int[Array, "n 2"]) -> Float[Array, "n 2 d"]:
        """W_E[a], W_E[b], without positions."""
        return self.embedding[...][pairs]

    def from_embeddings(self, numbers: Float[Array, "n 2 d"]) -> Float[Array, "n symbols"]:
        """The logits for given embeddings of a and b."""
        return self.hidden_units(numbers)[1] @ self.unembedding[...]

    def hidden_units(
        self, numbers: Float[Array, "n 2 d"]
    ) -> tuple[Float[Array, "n hidden"], Float[Array, "n d"]]:
        """The ReLU activations, and what the unembedding reads."""
        n, _, dim = numbers.shape
        heads = (self.heads, dim // self.heads)
        equals = self.embedding[...][self.modulus] + self.positions[...][2]
        x = numbers + self.positions[...][None, :2]
        # Every example asks the same query, so keys need not be formed: W_K q is a vector a head.
        query = (equals @ self.query[...]).reshape(heads)
        asked = jnp.einsum("dhk,hk->dh", self.key[...].reshape(dim, *heads), query)
        asked = asked / jnp.sqrt(jnp.float32(heads[1]))
        own = jnp.broadcast_to((equals @ asked)[None, None], (n, 1, self.heads))
        weights = jax.nn.softmax(jnp.concatenate([x @ asked, own], axis=1), axis=1)
        values = (x @ self.value[...]).reshape(n, 2, *heads)
        own_value = (equals @ self.value[...]).reshape(1, *heads)
        # Three multiply-adds: as a batched matrix product this is several times slower on a CPU.
        mixed = (
            weights[:, 0, :, None] * values[:, 0]
            + weights[:, 1, :, None] * values[:, 1]
            + weights[:, 2, :, None] * own_value
        ).reshape(n, dim)
        z = mixed @ self.out[...] + (equals[None] if self.residual else 0.0)
        hidden = jax.nn.relu(z @ self.up[...] + self.up_bias[...][None])
        out = hidden @ self.down[...] + self.down_bias[...][None]
        return hidden, out + z if self.residual else out

    def __call__(self, pairs: Int[Array, "n 2"], *, rngs: Rngs = None) -> Float[Array, "n symbols"]:
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise ValueError(
                f"pairs have shape {pairs.shape}: expected (N, 2), the numbers a and b"
            )
        return self.from_embeddings(self.embed(pairs))
