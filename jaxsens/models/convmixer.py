"""ConvMixer: patches mixed by depthwise and pointwise convolutions (arXiv 2201.09792)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers import (
    BatchNorm,
    DepthwiseConv,
    Rngs,
    check_images,
    check_sizes,
    gelu,
    linear,
    to_patches,
)


class Mixer(nnx.Module):
    """x <- x + norm(gelu(depthwise(x))), then x <- norm(gelu(pointwise(x)))."""

    def __init__(self, dim: int, kernel_size: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.depthwise = DepthwiseConv(dim, kernel_size, rngs=rngs, dtype=dtype)
        self.depthwise_norm = BatchNorm(dim, dtype=dtype)
        self.pointwise = linear(dim, dim, rngs=rngs, dtype=dtype)
        self.pointwise_norm = BatchNorm(dim, dtype=dtype)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        x = x + self.depthwise_norm(gelu(self.depthwise(x)))
        return self.pointwise_norm(gelu(self.pointwise(x)))


class ConvMixer(nnx.Module):
    """Patch embedding, exact GELU, BatchNorm, `depth` mixers, mean over space, linear logits.

    Shapes: images (N, image_size, image_size, channels) to logits (N, classes), float32. The
    defaults are the paper's CIFAR-10 setting (paper A, Section 5 and App. D), ConvMixer-128/6:
    117,642 parameters at patch 4. Initial weights and biases are U(-fan_in^-1/2, fan_in^-1/2).
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        channels: int,
        classes: int,
        depth: int = 6,
        dim: int = 128,
        kernel_size: int = 3,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(
            image_size=image_size, patch_size=patch_size, channels=channels, classes=classes
        )
        check_sizes(depth=depth, dim=dim, kernel_size=kernel_size)
        self.image_size, self.patch_size, self.channels = image_size, patch_size, channels
        self.dtype = jnp.dtype(dtype)
        self.embedding = linear(channels * patch_size**2, dim, rngs=rngs, dtype=dtype)
        self.embedding_norm = BatchNorm(dim, dtype=dtype)
        self.mixers = nnx.List(
            [Mixer(dim, kernel_size, rngs=rngs, dtype=dtype) for _ in range(depth)]
        )
        self.head = linear(dim, classes, rngs=rngs, dtype=dtype)

    def __call__(
        self, images: Float[Array, "n h w c"], *, rngs: Rngs = None
    ) -> Float[Array, "n k"]:
        check_images(images, self.image_size, self.channels)
        side = self.image_size // self.patch_size
        x = self.embedding(to_patches(images.astype(self.dtype), self.patch_size))
        x = self.embedding_norm(gelu(x)).reshape(-1, side, side, x.shape[-1])
        for mixer in self.mixers:
            x = mixer(x)
        return self.head(x.mean(axis=(1, 2))).astype(jnp.float32)
