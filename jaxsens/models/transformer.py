"""The plain pre-norm transformer block that ViT-simple and the ImageNet ViTs are made of."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers import (
    Initializer,
    fan_in_uniform,
    gelu,
    layer_norm,
    linear,
    merge_heads,
    project_heads,
)


class Attention(nnx.Module):
    """softmax(Q K^T head_dim^-1/2) V over `heads` heads, after a LayerNorm; then a linear map.

    Q, K and V come from one projection. `use_bias` gives a bias to both linear maps.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        head_dim: int,
        use_bias: bool,
        epsilon: float,
        kernel_init: Initializer,
        bias_init: Initializer | None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.heads, self.head_dim = heads, head_dim
        inner = heads * head_dim
        self.norm = layer_norm(dim, epsilon=epsilon, rngs=rngs, dtype=dtype)
        self.qkv = linear(
            dim,
            3 * inner,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
            rngs=rngs,
            dtype=dtype,
        )
        self.out = linear(
            inner,
            dim,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
            rngs=rngs,
            dtype=dtype,
        )

    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        q, k, v = project_heads(self.qkv, self.norm(x), self.heads)
        q = q * self.head_dim**-0.5
        scores = jnp.einsum("nhqd,nhkd->nhqk", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores).astype(v.dtype)
        return self.out(merge_heads(jnp.einsum("nhqk,nhkd->nhqd", weights, v)))


class Block(nnx.Module):
    """x <- x + attention(x), then x <- x + W2 gelu(W1 norm(x)), with biases and exact GELU."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        head_dim: int,
        mlp_dim: int,
        attention_bias: bool = False,
        epsilon: float = 1e-5,
        kernel_init: Initializer = fan_in_uniform,
        bias_init: Initializer | None = None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.attention = Attention(
            dim,
            heads=heads,
            head_dim=head_dim,
            use_bias=attention_bias,
            epsilon=epsilon,
            kernel_init=kernel_init,
            bias_init=bias_init,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = layer_norm(dim, epsilon=epsilon, rngs=rngs, dtype=dtype)
        self.up = linear(
            dim, mlp_dim, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs, dtype=dtype
        )
        self.down = linear(
            mlp_dim, dim, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs, dtype=dtype
        )

    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        x = x + self.attention(x)
        return x + self.down(gelu(self.up(self.norm(x))))
