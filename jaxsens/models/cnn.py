"""The small convolutional network of the Fashion-MNIST comparison."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers import Rngs, check_images, check_sizes, conv, linear, max_pool


class CNN(nnx.Module):
    """conv3x3, conv3x3, 2x2 max-pool, linear, linear; LeakyReLU after all but pool and logits.

    Convolutions are unpadded with `filters` channels, the hidden layer has `hidden` units, and
    LeakyReLU has slope 0.01 below zero. The pooled features are flattened by row, column,
    channel. Shapes: images (N, image_size, image_size, channels) to logits (N, classes), float32.
    The defaults are the paper's Fashion-MNIST setting (paper A, Section 5 and App. D). Initial
    weights and biases are U(-fan_in^-1/2, fan_in^-1/2). Raises ValueError for images under 6x6.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        classes: int,
        filters: int = 32,
        hidden: int = 128,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(image_size=image_size, channels=channels, classes=classes)
        check_sizes(filters=filters, hidden=hidden)
        if image_size < 6:
            raise ValueError(f"image_size is {image_size}: expected at least 6, for two 3x3 layers")
        self.image_size, self.channels = image_size, channels
        self.dtype = jnp.dtype(dtype)
        self.conv1 = conv(channels, filters, 3, padding=0, rngs=rngs, dtype=dtype)
        self.conv2 = conv(filters, filters, 3, padding=0, rngs=rngs, dtype=dtype)
        pooled = (image_size - 4) // 2
        self.hidden = linear(pooled**2 * filters, hidden, rngs=rngs, dtype=dtype)
        self.head = linear(hidden, classes, rngs=rngs, dtype=dtype)

    def __call__(
        self, images: Float[Array, "n h w c"], *, rngs: Rngs = None
    ) -> Float[Array, "n k"]:
        check_images(images, self.image_size, self.channels)
        x = jax.nn.leaky_relu(self.conv1(images.astype(self.dtype)))
        x = jax.nn.leaky_relu(self.conv2(x))
        x = max_pool(x, 2, 2).reshape(x.shape[0], -1)
        return self.head(jax.nn.leaky_relu(self.hidden(x))).astype(jnp.float32)
