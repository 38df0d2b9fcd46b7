"""ConvNeXt V2 of Woo et al. 2023 (arXiv 2301.00808)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers import (
    ZEROS,
    DepthwiseConv,
    Rngs,
    check_images,
    check_size_lists,
    check_sizes,
    gelu,
    layer_norm,
    linear,
    normal_002,
    to_patches,
)


class GlobalResponseNorm(nnx.Module):
    """x + gamma (x r) + beta, with r = g / (mean_c g + 1e-6) and g[c] the L2 norm over space."""

    def __init__(self, channels: int, *, dtype: DTypeLike) -> None:
        self.gamma = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.beta = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        squares = jnp.square(x.astype(jnp.float32)).sum(axis=(1, 2), keepdims=True)
        # The square root has no gradient at zero; a channel dead over a whole image is common.
        alive = squares > 0
        g = jnp.where(alive, jnp.sqrt(jnp.where(alive, squares, 1.0)), 0.0)
        response = g / (g.mean(axis=-1, keepdims=True) + 1e-6)
        scale = 1 + self.gamma[...][None, None, None] * response
        return (x * scale + self.beta[...][None, None, None]).astype(self.dtype)


class Block(nnx.Module):
    """x + W2 grn(gelu(W1 norm(depthwise7x7(x)))), widened fourfold between W1 and W2."""

    def __init__(self, dim: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.depthwise = DepthwiseConv(
            dim, 7, kernel_init=normal_002, bias_init=ZEROS, rngs=rngs, dtype=dtype
        )
        self.norm = layer_norm(dim, epsilon=1e-6, rngs=rngs, dtype=dtype)
        self.up = linear(
            dim, 4 * dim, kernel_init=normal_002, bias_init=ZEROS, rngs=rngs, dtype=dtype
        )
        self.response_norm = GlobalResponseNorm(4 * dim, dtype=dtype)
        self.down = linear(
            4 * dim, dim, kernel_init=normal_002, bias_init=ZEROS, rngs=rngs, dtype=dtype
        )

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        y = gelu(self.up(self.norm(self.depthwise(x))))
        return x + self.down(self.response_norm(y))


class Reduce(nnx.Module):
    """Cut into size x size patches and map each linearly: a convolution of stride = size."""

    def __init__(
        self, inputs: int, outputs: int, size: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.size = size
        self.linear = linear(
            size**2 * inputs,
            outputs,
            kernel_init=normal_002,
            bias_init=ZEROS,
            rngs=rngs,
            dtype=dtype,
        )

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        n, height, width, _ = x.shape
        patches = self.linear(to_patches(x, self.size))
        return patches.reshape(n, height // self.size, width // self.size, -1)


class ConvNeXtV2(nnx.Module):
    """4x4 stem, stages of depthwise blocks, norm of the mean over space, linear logits.

    Stage s has `depths[s]` blocks of `widths[s]` channels; a LayerNorm and a 2x2 reduction come
    between stages, a LayerNorm after the stem. LayerNorm's epsilon is 1e-6 and GELU is exact.
    Shapes: images (N, image_size, image_size, channels) to logits (N, classes), float32. The
    defaults are ConvNeXtV2-Tiny (paper A, Section 5): 28,635,496 parameters for 1000 classes.

    Initial weights are N(0, 0.02^2), biases and the response norm zero, as in the PyTorch release
    (whose truncation at 100 standard deviations never acts). Raises ValueError unless `depths`
    and `widths` are of one length and image_size is a multiple of 2^(stages + 1).
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        classes: int,
        depths: tuple[int, ...] = (3, 3, 9, 3),
        widths: tuple[int, ...] = (96, 192, 384, 768),
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(image_size=image_size, channels=channels, classes=classes)
        check_size_lists(depths=depths, widths=widths)
        if len(depths) != len(widths):
            raise ValueError(
                f"depths has {len(depths)} stages and widths {len(widths)}: expected the same"
            )
        smallest = 2 ** (len(depths) + 1)
        if image_size % smallest:
            raise ValueError(
                f"image_size is {image_size}: expected a multiple of {smallest}, the total stride"
            )
        self.image_size, self.channels = image_size, channels
        self.dtype = jnp.dtype(dtype)
        reductions, norms, blocks = [], [], []
        inputs = channels
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            reductions.append(Reduce(inputs, width, 4 if stage == 0 else 2, rngs=rngs, dtype=dtype))
            # After the stem the norm follows the reduction; between stages it comes before it.
            norms.append(
                layer_norm(width if stage == 0 else inputs, epsilon=1e-6, rngs=rngs, dtype=dtype)
            )
            blocks.append(nnx.List([Block(width, rngs=rngs, dtype=dtype) for _ in range(depth)]))
            inputs = width
        self.reductions, self.norms = nnx.List(reductions), nnx.List(norms)
        self.stages = nnx.List(blocks)
        self.norm = layer_norm(inputs, epsilon=1e-6, rngs=rngs, dtype=dtype)
        self.head = linear(
            inputs, classes, kernel_init=normal_002, bias_init=ZEROS, rngs=rngs, dtype=dtype
        )

    def __call__(
        self, images: Float[Array, "n h w c"], *, rngs: Rngs = None
    ) -> Float[Array, "n k"]:
        check_images(images, self.image_size, self.channels)
        x = self.norms[0](self.reductions[0](images.astype(self.dtype)))
        for stage, blocks in enumerate(self.stages):
            if stage > 0:
                x = self.reductions[stage](self.norms[stage](x))
            for block in blocks:
                x = block(x)
        return self.head(self.norm(x.mean(axis=(1, 2)))).astype(jnp.float32)
