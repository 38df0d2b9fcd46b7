"""Convolutions over NHWC images with PyTorch's initial weights."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from jaxsens.models.convolution import convolve, depthwise
from jaxsens.models.layers.init import Initializer, fan_in_uniform, uniform_bias


def conv(
    inputs: int,
    outputs: int,
    size: int,
    *,
    rngs: nnx.Rngs,
    dtype: DTypeLike,
    stride: int = 1,
    padding: int | None = None,
    use_bias: bool = True,
    kernel_init: Initializer = fan_in_uniform,
    bias_init: Initializer | None = None,
) -> nnx.Conv:
    """A square NHWC convolution, padded by `padding` on every side (default: size // 2)."""
    pad = size // 2 if padding is None else padding
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=((pad, pad), (pad, pad)),
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=kernel_init,
        bias_init=bias_init or uniform_bias(size * size * inputs),
        conv_general_dilated=convolve,
        rngs=rngs,
    )


class DepthwiseConv(nnx.Module):
    """A bias a channel, and sum_uv x[i + u, j + v, c] K[u, v, c], zero-padded to "same"."""

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        kernel_init: Initializer = fan_in_uniform,
        bias_init: Initializer | None = None,
    ) -> None:
        bias_init = bias_init or uniform_bias(size * size)
        shape = (size, size, 1, channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(bias_init(rngs.params(), (channels,), jnp.float32))
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        y = depthwise(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
        return y + self.bias[...].astype(self.dtype)[None, None, None]
