"""ViT-simple: the plain ViT baseline of Beyer et al. 2022 (arXiv 2205.01580)."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers import (
    Block,
    Rngs,
    check_images,
    check_sizes,
    layer_norm,
    linear,
    to_patches,
)


def sincos_positions(side: int, dim: int) -> Float[np.ndarray, "t d"]:
    """Fixed 2-D positions: [sin(w x), cos(w x), sin(w y), cos(w y)] for dim/4 frequencies w.

    x is the column and y the row of each of the side x side patches, row by row, and
    w_k = 10000^(-k / (dim/4 - 1)), k = 0 .. dim/4 - 1.
    """
    frequencies = 10000.0 ** -(np.arange(dim // 4) / max(dim // 4 - 1, 1))
    row, column = np.divmod(np.arange(side * side), side)
    x, y = np.outer(column, frequencies), np.outer(row, frequencies)
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)


class ViTSimple(nnx.Module):
    """Fixed sine-cosine positions, no CLS token, mean over tokens; paper A, Section 5 and App. D.

    A patch goes through LayerNorm, linear, LayerNorm; then `depth` pre-norm blocks whose attention
    has no biases; a LayerNorm; the mean over tokens; and a linear map to the logits. Shapes:
    images (N, image_size, image_size, channels) to logits (N, classes), float32.

    The defaults are the paper's CIFAR-10 setting: 1,975,210 parameters at 32x32, patch 4. Initial
    weights and biases are U(-fan_in^-1/2, fan_in^-1/2). Raises ValueError unless 4 divides dim.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        channels: int,
        classes: int,
        depth: int = 6,
        heads: int = 16,
        dim: int = 64,
        head_dim: int = 64,
        mlp_dim: int = 512,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(
            image_size=image_size, patch_size=patch_size, channels=channels, classes=classes
        )
        check_sizes(depth=depth, heads=heads, dim=dim, head_dim=head_dim, mlp_dim=mlp_dim)
        if dim % 4:
            raise ValueError(f"dim is {dim}: expected a multiple of 4, for sine-cosine positions")
        self.image_size, self.patch_size, self.channels = image_size, patch_size, channels
        self.dim, self.dtype = dim, jnp.dtype(dtype)
        patch_dim = channels * patch_size**2
        self.patch_norm = layer_norm(patch_dim, rngs=rngs, dtype=dtype)
        self.embedding = linear(patch_dim, dim, rngs=rngs, dtype=dtype)
        self.embedding_norm = layer_norm(dim, rngs=rngs, dtype=dtype)
        self.blocks = nnx.List(
            [
                Block(
                    dim,
                    heads=heads,
                    head_dim=head_dim,
                    mlp_dim=mlp_dim,
                    attention_bias=False,
                    rngs=rngs,
                    dtype=dtype,
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
        patches = to_patches(images.astype(self.dtype), self.patch_size)
        x = self.embedding_norm(self.embedding(self.patch_norm(patches)))
        positions = sincos_positions(self.image_size // self.patch_size, self.dim)
        x = x + jnp.asarray(positions, x.dtype)[None]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(axis=1)).astype(jnp.float32)
