"""The multi-layer perceptrons of the Fashion-MNIST and MNIST comparisons."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers import Rngs, check_images, check_size_lists, check_sizes, linear

ACTIVATIONS = {"leaky_relu": jax.nn.leaky_relu, "sigmoid": jax.nn.sigmoid}


class MLP(nnx.Module):
    """x <- act(x W + b) for each hidden width, then a linear map to the logits.

    Images (N, image_size, image_size, channels) are flattened by row, column, channel; logits are
    (N, classes), float32. `hidden` is (512, 128) for Fashion-MNIST and (100,) for MNIST in paper
    A, Section 5. LeakyReLU has slope 0.01 below zero. Initial weights and biases are
    U(-fan_in^-1/2, fan_in^-1/2). Raises ValueError for an activation not listed.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        classes: int,
        hidden: tuple[int, ...] = (512, 128),
        activation: str = "leaky_relu",
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(image_size=image_size, channels=channels, classes=classes)
        check_size_lists(hidden=hidden)
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation is {activation!r}: expected one of {', '.join(sorted(ACTIVATIONS))}"
            )
        self.image_size, self.channels = image_size, channels
        self.dtype = jnp.dtype(dtype)
        self.activation = activation
        widths = (image_size**2 * channels, *hidden)
        self.hidden = nnx.List(
            [
                linear(inputs, outputs, rngs=rngs, dtype=dtype)
                for inputs, outputs in itertools.pairwise(widths)
            ]
        )
        self.head = linear(widths[-1], classes, rngs=rngs, dtype=dtype)

    def __call__(
        self, images: Float[Array, "n h w c"], *, rngs: Rngs = None
    ) -> Float[Array, "n k"]:
        check_images(images, self.image_size, self.channels)
        act = ACTIVATIONS[self.activation]
        x = images.reshape(images.shape[0], -1).astype(self.dtype)
        for layer in self.hidden:
            x = act(layer(x))
        return self.head(x).astype(jnp.float32)
