"""The ImageNet vision transformers of Dosovitskiy et al. 2021 (arXiv 2010.11929)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers import (
    ZEROS,
    Block,
    Rngs,
    Start,
    check_images,
    check_sizes,
    layer_norm,
    linear,
    normal_002,
    to_patches,
)

START = Start(normal_002, normal_002, normal_002, normal_002, ZEROS, ZEROS)


class ViT(nnx.Module):
    """Linear patch embedding, CLS token, learned positions, pre-norm blocks; logits from CLS.

    Everything has a bias, LayerNorm's epsilon is 1e-6 and GELU is exact, as in the published
    PyTorch weights. Shapes: images (N, image_size, image_size, channels) to logits (N, classes),
    float32. The defaults are ViT-L/16 (paper A, Section 5): 304,326,632 parameters at 224x224,
    1000 classes.

    Initial weights follow the PyTorch release: N(0, 0.02^2) for linear maps and positions, zero
    biases, N(0, 1e-6^2) for the CLS token, U(-fan_in^-1/2, fan_in^-1/2) for the patch embedding.
    Raises ValueError unless heads divides dim.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        channels: int,
        classes: int,
        depth: int = 24,
        heads: int = 16,
        dim: int = 1024,
        mlp_dim: int = 4096,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(
            image_size=image_size, patch_size=patch_size, channels=channels, classes=classes
        )
        check_sizes(depth=depth, heads=heads, dim=dim, mlp_dim=mlp_dim)
        self.image_size, self.patch_size, self.channels = image_size, patch_size, channels
        self.dtype = jnp.dtype(dtype)
        self.embedding = linear(channels * patch_size**2, dim, rngs=rngs, dtype=dtype)
        tokens = 1 + (image_size // patch_size) ** 2
        self.cls = nnx.Param(1e-6 * jax.random.normal(rngs.params(), (1, 1, dim)))
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, tokens, dim)))
        self.blocks = nnx.List(
            [
                Block(
                    dim,
                    heads=heads,
                    mlp_dim=mlp_dim,
                    epsilon=1e-6,
                    start=START,
                    rngs=rngs,
                    dtype=dtype,
                )
                for _ in range(depth)
            ]
        )
        self.norm = layer_norm(dim, epsilon=1e-6, rngs=rngs, dtype=dtype)
        self.head = linear(
            dim, classes, kernel_init=normal_002, bias_init=ZEROS, rngs=rngs, dtype=dtype
        )

    def __call__(
        self, images: Float[Array, "n h w c"], *, rngs: Rngs = None
    ) -> Float[Array, "n k"]:
        check_images(images, self.image_size, self.channels)
        x = self.embedding(to_patches(images.astype(self.dtype), self.patch_size))
        cls = jnp.broadcast_to(self.cls[...].astype(x.dtype), (x.shape[0], 1, x.shape[2]))
        x = jnp.concatenate([cls, x], axis=1) + self.positions[...].astype(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0])).astype(jnp.float32)
