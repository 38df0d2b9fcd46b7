"""DenseNet-121 of Huang et al. 2017 (arXiv 1608.06993) with a 3x3, stride-1 first convolution."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers import (
    ZEROS,
    BatchNorm,
    Rngs,
    check_images,
    check_size_lists,
    check_sizes,
    conv,
    he_normal,
    linear,
    max_pool,
)


class Dense(nnx.Module):
    """[x, conv3x3(relu(norm(conv1x1(relu(norm(x))))))]: `growth` new channels beside the old."""

    def __init__(self, inputs: int, growth: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.norm1 = BatchNorm(inputs, dtype=dtype)
        self.conv1 = conv(
            inputs,
            4 * growth,
            1,
            use_bias=False,
            kernel_init=he_normal,
            rngs=rngs,
            dtype=dtype,
        )
        self.norm2 = BatchNorm(4 * growth, dtype=dtype)
        self.conv2 = conv(
            4 * growth,
            growth,
            3,
            use_bias=False,
            kernel_init=he_normal,
            rngs=rngs,
            dtype=dtype,
        )

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c2"]:
        y = self.conv1(jax.nn.relu(self.norm1(x)))
        y = self.conv2(jax.nn.relu(self.norm2(y)))
        return jnp.concatenate([x, y], axis=-1)


class Transition(nnx.Module):
    """conv1x1(relu(norm(x))) to half the channels, then a 2x2 mean."""

    def __init__(self, inputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.norm = BatchNorm(inputs, dtype=dtype)
        self.conv = conv(
            inputs,
            inputs // 2,
            1,
            use_bias=False,
            kernel_init=he_normal,
            rngs=rngs,
            dtype=dtype,
        )

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        return nnx.avg_pool(self.conv(jax.nn.relu(self.norm(x))), (2, 2), (2, 2))


class DenseNet(nnx.Module):
    """Stem, dense stages with transitions between them, norm, ReLU, mean over space, linear.

    The stem is a 3x3 convolution of stride 1 to 2 * growth channels, norm, ReLU and a 3x3
    max-pool of stride 2: the CIFAR stem of the PyTorch model zoo the paper's parameter count
    belongs to. Stage s has `depths[s]` dense layers. Shapes: images (N, image_size, image_size,
    channels) to logits (N, classes), float32.

    The defaults are DenseNet-121 (paper A, Section 5): 6,956,426 parameters for 10 classes.
    Initial convolutions are He normal, N(0, 2 / fan_in); the head's weight is
    U(-fan_in^-1/2, fan_in^-1/2) and its bias zero. Raises ValueError when the image is too small
    to be halved once for the stem and once for each transition.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        classes: int,
        growth: int = 32,
        depths: tuple[int, ...] = (6, 12, 24, 16),
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(image_size=image_size, channels=channels, classes=classes)
        check_sizes(growth=growth)
        check_size_lists(depths=depths)
        if image_size < 2 ** len(depths):
            raise ValueError(
                f"image_size {image_size} cannot be halved {len(depths)} times: expected at least "
                f"{2 ** len(depths)}, or fewer stages in depths"
            )
        self.image_size, self.channels = image_size, channels
        self.dtype = jnp.dtype(dtype)
        features = 2 * growth
        self.stem = conv(
            channels, features, 3, use_bias=False, kernel_init=he_normal, rngs=rngs, dtype=dtype
        )
        self.stem_norm = BatchNorm(features, dtype=dtype)
        layers: list[nnx.Module] = []
        for stage, depth in enumerate(depths):
            if stage > 0:
                layers.append(Transition(features, rngs=rngs, dtype=dtype))
                features //= 2
            for _ in range(depth):
                layers.append(Dense(features, growth, rngs=rngs, dtype=dtype))
                features += growth
        self.layers = nnx.List(layers)
        self.norm = BatchNorm(features, dtype=dtype)
        self.head = linear(features, classes, bias_init=ZEROS, rngs=rngs, dtype=dtype)

    def __call__(
        self, images: Float[Array, "n h w c"], *, rngs: Rngs = None
    ) -> Float[Array, "n k"]:
        check_images(images, self.image_size, self.channels)
        x = jax.nn.relu(self.stem_norm(self.stem(images.astype(self.dtype))))
        x = max_pool(x, 3, 2, padding=1)
        for layer in self.layers:
            x = layer(x)
        x = jax.nn.relu(self.norm(x))
        return self.head(x.mean(axis=(1, 2))).astype(jnp.float32)
