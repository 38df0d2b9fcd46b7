"""Attention: one core for every model, with padding, causal order, softmax or ReLU weights."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers.dropout import Dropout, Rngs
from jaxsens.models.layers.init import Initializer, fan_in_uniform
from jaxsens.models.layers.linear import linear

KINDS = ("softmax", "relu")


def attend(
    q: Float[Array, "n h q d"],
    k: Float[Array, "n h k d"],
    v: Float[Array, "n h k e"],
    *,
    mask: Bool[Array, "#n #h #q k"] | None = None,
    kind: str = "softmax",
    dropout: Dropout | None = None,
    rngs: Rngs = None,
) -> Float[Array, "n h q e"]:
    """sum_j w_ij v_j over the keys j that ``mask`` shows to query i; queries come scaled.

    ::

        softmax:  w_ij = exp(q_i . k_j) / sum_j' exp(q_i . k_j')
        relu:     w_ij = max(q_i . k_j, 0), without a normaliser

    A key that is not shown has weight 0, exactly. A query that is shown no key at all gets 0 from
    ReLU and the mean of v from softmax. ``dropout`` falls on the weights.
    """
    scores = jnp.einsum("nhqd,nhkd->nhqk", q, k, preferred_element_type=jnp.float32)
    if kind == "relu":
        weights = jax.nn.relu(scores)
        weights = weights if mask is None else jnp.where(mask, weights, 0.0)
        total = None
    else:
        if mask is not None:
            scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
        weights, total = _exponentials(scores)
    weights = weights.astype(v.dtype)
    if dropout is not None:
        weights = dropout(weights, rngs)
    mixed = jnp.einsum("nhqk,nhkd->nhqd", weights, v)
    return mixed if total is None else (mixed / total).astype(v.dtype)


def _exponentials(
    scores: Float[Array, "n h q k"],
) -> tuple[Float[Array, "n h q k"], Float[Array, "n h q 1"]]:
    """Weights and what the result is to be divided by, which together are the softmax.

    On a CPU the sum divides the product with v in place of the weights: one pass less over the
    largest array, and two less in the gradient. A GPU fuses the softmax as a whole.
    """

    def late(scores: Array) -> tuple[Array, Array]:
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
        return weights, weights.sum(axis=-1, keepdims=True)

    def at_once(scores: Array) -> tuple[Array, Array]:
        return jax.nn.softmax(scores), jnp.ones((*scores.shape[:-1], 1), scores.dtype)

    return jax.lax.platform_dependent(scores, cpu=late, default=at_once)


def visible(
    padding: Bool[Array, "n k"] | None, *, causal: bool, tokens: int
) -> Bool[Array, "#n 1 #q k"] | None:
    """Which keys each query sees: those that are no padding (True in ``padding``) and, in causal
    order, do not come after it."""
    mask = None if padding is None else padding[:, None, None, :]
    if causal:
        before = jnp.tri(tokens, dtype=bool)[None, None]
        mask = before if mask is None else mask & before
    return mask


def project_heads(
    qkv: nnx.Linear,
    x: Float[Array, "n q c"],
    heads: int,
    memory: Float[Array, "n k c"] | None = None,
) -> list[Float[Array, "n h _ e"]]:
    """Queries, keys and values of every head, from the one matrix [W_Q, W_K, W_V].

    Keys and values are of ``memory``, or of ``x`` too. Cutting the matrix rather than its product
    leaves no large array to cut again on the way back.
    """
    inner = qkv.out_features // 3
    memory = x if memory is None else memory
    parts = []
    for i, source in enumerate((x, memory, memory)):
        n, tokens, dim = source.shape
        columns = slice(i * inner, (i + 1) * inner)
        flat = source.reshape(n * tokens, dim).astype(qkv.dtype)
        y = _apart(flat @ qkv.kernel[:, columns].astype(qkv.dtype))
        if qkv.bias is not None:
            y = y + qkv.bias[columns].astype(qkv.dtype)[None]
        parts.append(split_heads(y.reshape(n, tokens, inner), heads))
    return parts


def _apart(product: Array) -> Array:
    """Without a barrier XLA moves the transposition that splits the heads into the gradient's
    matrix product, whose operands then no longer suit the fast kernels: a third of a step on a
    CPU."""
    return jax.lax.platform_dependent(
        product, cpu=jax.lax.optimization_barrier, default=lambda product: product
    )


def split_heads(x: Float[Array, "n t hd"], heads: int) -> Float[Array, "n h t d"]:
    """The parts of each token's vector that belong to each head."""
    n, tokens, _ = x.shape
    return x.reshape(n, tokens, heads, -1).transpose(0, 2, 1, 3)


def merge_heads(x: Float[Array, "n h t d"]) -> Float[Array, "n t hd"]:
    """The heads of each token side by side."""
    n, _, tokens, _ = x.shape
    return x.transpose(0, 2, 1, 3).reshape(n, tokens, -1)


class Attention(nnx.Module):
    """W_O [attend(q_h, k_h, v_h) over heads h] with q = W_Q x / head_dim^1/2, k = W_K m, v = W_V m.

    m is ``memory``, or x itself. ``fused`` keeps W_Q, W_K, W_V as one kernel ``qkv`` (PyTorch's
    MultiheadAttention and GPT-2), else they are ``query``, ``key``, ``value`` (BERT's family).
    ``padding`` (N, keys) is True at tokens that count and may be left out; ``causal`` hides what
    comes after. Dropout falls on the weights. ``rows`` names the queries whose output is wanted.
    Raises ValueError for an unknown kind, and unless heads divides dim or ``head_dim`` is given.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        head_dim: int | None = None,
        kind: str = "softmax",
        causal: bool = False,
        fused: bool = True,
        use_bias: bool = True,
        dropout: float = 0.0,
        kernel_init: Initializer = fan_in_uniform,
        bias_init: Initializer | None = None,
        out_init: Initializer = fan_in_uniform,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"attention is {kind!r}: expected one of {', '.join(KINDS)}")
        if head_dim is None and dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads: expected a multiple")
        self.heads, self.kind, self.causal = heads, kind, causal
        self.head_dim = dim // heads if head_dim is None else head_dim
        inner = heads * self.head_dim

        def layer(inputs: int, outputs: int, init: Initializer) -> nnx.Linear:
            return linear(
                inputs,
                outputs,
                use_bias=use_bias,
                kernel_init=init,
                bias_init=bias_init,
                rngs=rngs,
                dtype=dtype,
            )

        if fused:
            self.qkv = layer(dim, 3 * inner, kernel_init)
        else:
            self.query, self.key, self.value = (layer(dim, inner, kernel_init) for _ in range(3))
        self.fused = fused
        self.out = layer(inner, dim, out_init)
        self.dropout = Dropout(dropout)

    def __call__(
        self,
        x: Float[Array, "n t d"],
        *,
        memory: Float[Array, "n k d"] | None = None,
        padding: Bool[Array, "n k"] | None = None,
        rows: slice = slice(None),
        rngs: Rngs = None,
    ) -> Float[Array, "n q d"]:
        mask = visible(padding, causal=self.causal, tokens=x.shape[1])
        if mask is not None and mask.shape[2] > 1:
            mask = mask[:, :, rows]
        memory = x if memory is None else memory
        q, k, v = self._project(x[:, rows], memory)
        mixed = attend(
            q * self.head_dim**-0.5,
            k,
            v,
            mask=mask,
            kind=self.kind,
            dropout=self.dropout,
            rngs=rngs,
        )
        return self.out(merge_heads(mixed))

    def _project(
        self, x: Float[Array, "n q d"], memory: Float[Array, "n k d"]
    ) -> list[Float[Array, "n h _ e"]]:
        if self.fused:
            return project_heads(self.qkv, x, self.heads, memory)
        pairs = ((self.query, x), (self.key, memory), (self.value, memory))
        return [split_heads(_apart(layer(source)), self.heads) for layer, source in pairs]
