"""ResNet-18 of He et al. 2016 (arXiv 1512.03385) with the stem that suits 32x32 images."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers import (
    BatchNorm,
    Rngs,
    check_images,
    check_size_lists,
    check_sizes,
    conv,
    linear,
)


class Shortcut(nnx.Module):
    """norm(conv1x1(x)): the skip connection where the shape changes."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.conv = conv(inputs, outputs, 1, stride=stride, use_bias=False, rngs=rngs, dtype=dtype)
        self.norm = BatchNorm(outputs, dtype=dtype)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        return self.norm(self.conv(x))


class Residual(nnx.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))), two 3x3 convolutions without bias.

    The shortcut is the identity wherever the shape stays.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.conv1 = conv(inputs, outputs, 3, stride=stride, use_bias=False, rngs=rngs, dtype=dtype)
        self.norm1 = BatchNorm(outputs, dtype=dtype)
        self.conv2 = conv(outputs, outputs, 3, use_bias=False, rngs=rngs, dtype=dtype)
        self.norm2 = BatchNorm(outputs, dtype=dtype)
        changes = stride != 1 or inputs != outputs
        self.shortcut = (
            Shortcut(inputs, outputs, stride, rngs=rngs, dtype=dtype) if changes else None
        )

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
    """3x3 stem without pooling, stages of residual blocks, mean over space, linear logits.

    Stage s has `depths[s]` blocks of `width * 2^s` channels; each stage after the first halves
    the image. Shapes: images (N, image_size, image_size, channels) to logits (N, classes),
    float32. The defaults are ResNet-18 (paper A, Section 5): 11,173,962 parameters for 10 classes.
    Initial weights and biases are U(-fan_in^-1/2, fan_in^-1/2).
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        classes: int,
        width: int = 64,
        depths: tuple[int, ...] = (2, 2, 2, 2),
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(image_size=image_size, channels=channels, classes=classes)
        check_sizes(width=width)
        check_size_lists(depths=depths)
        self.image_size, self.channels = image_size, channels
        self.dtype = jnp.dtype(dtype)
        self.stem = conv(channels, width, 3, use_bias=False, rngs=rngs, dtype=dtype)
        self.stem_norm = BatchNorm(width, dtype=dtype)
        blocks = []
        inputs = width
        for stage, depth in enumerate(depths):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                outputs = width * 2**stage
                blocks.append(Residual(inputs, outputs, stride, rngs=rngs, dtype=dtype))
                inputs = outputs
        self.blocks = nnx.List(blocks)
        self.head = linear(inputs, classes, rngs=rngs, dtype=dtype)

    def __call__(
        self, images: Float[Array, "n h w c"], *, rngs: Rngs = None
    ) -> Float[Array, "n k"]:
        check_images(images, self.image_size, self.channels)
        x = jax.nn.relu(self.stem_norm(self.stem(images.astype(self.dtype))))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=(1, 2))).astype(jnp.float32)
