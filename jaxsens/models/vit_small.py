"""ViT-small: the vision transformer for small data sets of Lee et al. 2021 (arXiv 2112.13492)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers import (
    Dropout,
    Rngs,
    attend,
    check_images,
    check_rates,
    check_sizes,
    gelu,
    layer_norm,
    linear,
    merge_heads,
    project_heads,
    to_patches,
)


class LocalitySelfAttention(nnx.Module):
    """softmax(exp(t) Q K^T, diagonal masked) V, with one learned log-temperature t a layer.

    t starts at log(head_dim^-1/2), the usual scale. A token never attends to itself.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        head_dim: int,
        dropout: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.heads = heads
        self.norm = layer_norm(dim, rngs=rngs, dtype=dtype)
        self.qkv = linear(dim, 3 * heads * head_dim, use_bias=False, rngs=rngs, dtype=dtype)
        self.log_temperature = nnx.Param(jnp.log(jnp.float32(head_dim**-0.5)))
        self.attention_dropout = Dropout(dropout)
        self.out = linear(heads * head_dim, dim, rngs=rngs, dtype=dtype)
        self.out_dropout = Dropout(dropout)

    def __call__(self, x: Float[Array, "n t d"], *, rngs: Rngs = None) -> Float[Array, "n t d"]:
        q, k, v = project_heads(self.qkv, self.norm(x), self.heads)
        # Scaling the queries costs head_dim / tokens of what scaling the scores would.
        q = q * jnp.exp(self.log_temperature[...]).astype(q.dtype)
        others = ~jnp.eye(x.shape[1], dtype=bool)[None, None]
        mixed = attend(q, k, v, mask=others, dropout=self.attention_dropout, rngs=rngs)
        return self.out_dropout(self.out(merge_heads(mixed)), rngs)


class FeedForward(nnx.Module):
    """Linear, exact GELU, linear, after a LayerNorm; dropout after the last two."""

    def __init__(
        self, dim: int, hidden: int, *, dropout: float, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.norm = layer_norm(dim, rngs=rngs, dtype=dtype)
        self.up = linear(dim, hidden, rngs=rngs, dtype=dtype)
        self.hidden_dropout = Dropout(dropout)
        self.down = linear(hidden, dim, rngs=rngs, dtype=dtype)
        self.out_dropout = Dropout(dropout)

    def __call__(self, x: Float[Array, "n t d"], *, rngs: Rngs = None) -> Float[Array, "n t d"]:
        hidden = self.hidden_dropout(gelu(self.up(self.norm(x))), rngs)
        return self.out_dropout(self.down(hidden), rngs)


class Block(nnx.Module):
    """x <- x + attention(x), then x <- x + feed_forward(x); each normalises its own input."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        head_dim: int,
        mlp_dim: int,
        dropout: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.attention = LocalitySelfAttention(
            dim, heads=heads, head_dim=head_dim, dropout=dropout, dtype=dtype, rngs=rngs
        )
        self.feed_forward = FeedForward(dim, mlp_dim, dropout=dropout, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "n t d"], *, rngs: Rngs = None) -> Float[Array, "n t d"]:
        x = x + self.attention(x, rngs=rngs)
        return x + self.feed_forward(x, rngs=rngs)


def with_shifts(images: Float[Array, "n h w c"]) -> Float[Array, "n h w c5"]:
    """The image and its copies moved one pixel right, left, down and up, stacked as channels.

    What moves in at an edge is zero.
    """
    n, height, width, c = images.shape
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moves = ((1, 1), (1, 0), (1, 2), (0, 1), (2, 1))
    return jnp.concatenate(
        [jax.lax.slice(padded, (0, i, j, 0), (n, i + height, j + width, c)) for i, j in moves],
        axis=-1,
    )


class ViTSmall(nnx.Module):
    """Shifted patch tokenisation and locality self-attention; paper A, Section 5 and App. D.

    Tokens are LayerNorm-then-linear images of patches of [image, four one-pixel shifts]; a CLS
    token and learned positions are added; `depth` pre-norm blocks follow; logits are read from
    the CLS token after a LayerNorm. Shapes: images (N, image_size, image_size, channels) to
    logits (N, classes), float32.

    The defaults are the paper's CIFAR-10 setting: 4,482,482 parameters at 32x32, patch 4.
    Initial weights: U(-fan_in^-1/2, fan_in^-1/2) for every linear map, N(0, 1) for the CLS token
    and positions. Dropout follows the embedding, the attention weights, and every linear map
    inside a block but the one to queries, keys and values.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        channels: int,
        classes: int,
        depth: int = 8,
        heads: int = 32,
        dim: int = 64,
        head_dim: int = 64,
        mlp_dim: int = 256,
        dropout: float = 0.1,
        embedding_dropout: float = 0.1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(
            image_size=image_size, patch_size=patch_size, channels=channels, classes=classes
        )
        check_sizes(depth=depth, heads=heads, dim=dim, head_dim=head_dim, mlp_dim=mlp_dim)
        check_rates(dropout=dropout, embedding_dropout=embedding_dropout)
        self.image_size, self.patch_size, self.channels = image_size, patch_size, channels
        self.dtype = jnp.dtype(dtype)
        patch_dim = 5 * channels * patch_size**2
        self.patch_norm = layer_norm(patch_dim, rngs=rngs, dtype=dtype)
        self.embedding = linear(patch_dim, dim, rngs=rngs, dtype=dtype)
        tokens = 1 + (image_size // patch_size) ** 2
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (1, tokens, dim)))
        self.cls = nnx.Param(jax.random.normal(rngs.params(), (1, 1, dim)))
        self.embedding_dropout = Dropout(embedding_dropout)
        self.blocks = nnx.List(
            [
                Block(
                    dim,
                    heads=heads,
                    head_dim=head_dim,
                    mlp_dim=mlp_dim,
                    dropout=dropout,
                    dtype=dtype,
                    rngs=rngs,
                )
                for _ in range(depth)
            ]
        )
        self.norm = layer_norm(dim, rngs=rngs, dtype=dtype)
        self.head = linear(dim, classes, rngs=rngs, dtype=dtype)

    def __call__(
        self, images: Float[Array, "n h w c"], *, rngs: Rngs = None
    ) -> Float[Array, "n k"]:
        check_images(images, self.image_size, self.channels)
        patches = to_patches(with_shifts(images.astype(self.dtype)), self.patch_size)
        x = self.embedding(self.patch_norm(patches))
        cls = jnp.broadcast_to(self.cls[...].astype(x.dtype), (x.shape[0], 1, x.shape[2]))
        x = jnp.concatenate([cls, x], axis=1) + self.positions[...].astype(x.dtype)
        x = self.embedding_dropout(x, rngs)
        for block in self.blocks:
            x = block(x, rngs=rngs)
        return self.head(self.norm(x[:, 0])).astype(jnp.float32)
