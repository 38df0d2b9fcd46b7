"""The few layers every architecture here shares, with the conventions of the PyTorch originals.

The papers trained PyTorch models, so initial distributions, epsilons and the BatchNorm update are
PyTorch's. Parameters are float32; `dtype` is the type of the arithmetic between them. Statistics
(means, variances, softmax) are always taken in float32.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt32
from numpy.typing import DTypeLike

from jaxsens.models.convolution import convolve

Rngs = nnx.Rngs | None
Initializer = jax.nn.initializers.Initializer
ZEROS = jax.nn.initializers.zeros


# Weights are drawn flat and then shaped: the same numbers, but the generator compiles five times
# faster than for a four-dimensional kernel, and every new shape compiles it again.
def fan_in_uniform(
    key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None
) -> Array:
    """U(-b, b) with b = fan_in^-1/2 and outputs on the last axis: PyTorch's Linear and Conv."""
    bound = 1 / math.sqrt(math.prod(shape[:-1]))
    return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)


def he_normal(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
    """N(0, 2 / fan_in) with outputs on the last axis."""
    deviation = math.sqrt(2 / math.prod(shape[:-1]))
    return deviation * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def normal_002(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
    """N(0, 0.02^2)."""
    return 0.02 * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def uniform_bias(fan_in: int) -> Initializer:
    """U(-b, b) with b = fan_in^-1/2: what PyTorch draws for the bias beside a fan-in weight."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def linear(
    inputs: int,
    outputs: int,
    *,
    rngs: nnx.Rngs,
    dtype: DTypeLike,
    use_bias: bool = True,
    kernel_init: Initializer = fan_in_uniform,
    bias_init: Initializer | None = None,
) -> nnx.Linear:
    """y = x W + b, both drawn from U(-inputs^-1/2, inputs^-1/2) unless told otherwise."""
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=kernel_init,
        bias_init=bias_init or uniform_bias(inputs),
        rngs=rngs,
    )


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
    """y[i, j, c] = b[c] + sum_uv x[i + u, j + v, c] K[u, v, c], size x size, zero-padded to "same".

    Written as size^2 shifted multiply-adds, which XLA fuses into one loop: on a CPU some ten to
    thirty times faster than the same grouped convolution, and it stays so under vmap over kernels.
    """

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
        self.size = size
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n, height, width, channels = x.shape
        sides = ((self.size - 1) // 2, self.size // 2)
        padded = jnp.pad(x.astype(self.dtype), ((0, 0), sides, sides, (0, 0)))
        kernel = self.kernel[...].astype(self.dtype)
        y = self.bias[...].astype(self.dtype)[None, None, None]
        for i in range(self.size):
            for j in range(self.size):
                window = jax.lax.slice(padded, (0, i, j, 0), (n, i + height, j + width, channels))
                y = y + window * kernel[i, j][None, None]
        return y


def layer_norm(
    features: int, *, rngs: nnx.Rngs, dtype: DTypeLike, epsilon: float = 1e-5
) -> nnx.LayerNorm:
    """(x - mean) / sqrt(var + epsilon) * scale + bias over the last axis; scale 1 and bias 0."""
    return nnx.LayerNorm(features, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs)


class BatchNorm(nnx.Module):
    """(x - mean) / sqrt(var + 1e-5) * scale + bias, one mean and variance a channel (last axis).

    Training uses the batch's mean and biased variance, and moves the running statistics a tenth
    of the way to the batch's mean and *unbiased* variance, as PyTorch does (flax's own BatchNorm
    keeps the biased one). With `use_running_average` the running statistics are used instead.
    """

    def __init__(self, features: int, *, dtype: DTypeLike) -> None:
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((features,), jnp.float32))
        self.dtype = jnp.dtype(dtype)
        self.use_running_average = False

    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            axes = tuple(range(x.ndim - 1))
            wide = x.astype(jnp.float32)
            mean, var = wide.mean(axes), wide.var(axes)
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            self.mean[...] = 0.9 * self.mean[...] + 0.1 * jax.lax.stop_gradient(mean)
            self.var[...] = 0.9 * self.var[...] + 0.1 * jax.lax.stop_gradient(unbiased)
        scale = self.scale[...] * jax.lax.rsqrt(var + 1e-5)
        shape = (1,) * (x.ndim - 1) + (-1,)
        # The shift is folded in float32 only once a channel: x * scale + shift is one fused pass.
        shift = self.bias[...] - mean * scale
        return (x * scale.reshape(shape) + shift.reshape(shape)).astype(self.dtype)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Choose running or batch statistics; called by `nnx.view`.

        Args:
          use_running_average: if True, normalise with the running statistics.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average


def random_bits(key: Array, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """32 random bits an element: two rounds of an integer mixer over the element's index.

    Each round xors and multiplies so that every input bit moves every output bit. Half of the key
    enters before each: with one round, the masks of two keys would be shifts of one another.
    JAX's own generator costs some twenty times as much on a CPU, where drawing the dropout masks
    of attention took about as long as the attention.
    """
    first, second = jax.random.bits(key, (2,))
    x = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) + first
    for offset in (second, jnp.uint32(0)):
        x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
        x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
        x = (x ^ (x >> 16)) + offset
    return x


class Dropout(nnx.Module):
    """Zero each element with probability `rate`, and divide the others by 1 - rate.

    The mask comes from the `dropout` stream passed at call time, so the module itself holds no
    random state. Raises ValueError in training without a stream.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.deterministic = False

    def __call__(self, x: Float[Array, "..."], rngs: Rngs) -> Float[Array, "..."]:
        if self.deterministic or self.rate == 0.0:
            return x
        if rngs is None:
            raise ValueError(
                "a model with dropout in training needs rngs: got None, expected "
                "model(images, rngs=nnx.Rngs(dropout=key)); or evaluate "
                "nnx.view(model, deterministic=True)"
            )
        keep = random_bits(rngs.dropout(), x.shape) >= jnp.uint32(round(self.rate * 2**32))
        return jnp.where(keep, x / (1.0 - self.rate), 0.0).astype(x.dtype)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Turn the mask off or on; called by `nnx.view`.

        Args:
          deterministic: if True, return the input as it is.
        """
        if deterministic is not None:
            self.deterministic = deterministic


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x Phi(x) with the exact Gaussian distribution function, not its tanh approximation."""
    return jax.nn.gelu(x, approximate=False)


def to_patches(images: Float[Array, "n h w c"], size: int) -> Float[Array, "n t d"]:
    """Non-overlapping patches in row-major order, each flattened as (row, column, channel)."""
    n, height, width, channels = images.shape
    rows, columns = height // size, width // size
    grid = images.reshape(n, rows, size, columns, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(n, rows * columns, size * size * channels)


def project_heads(
    qkv: nnx.Linear, x: Float[Array, "n t c"], heads: int
) -> list[Float[Array, "n h t d"]]:
    """Queries, keys and values of every head, from the one matrix [W_Q, W_K, W_V].

    Cutting the matrix rather than its product leaves no large array to cut again on the way back.
    """
    n, tokens, dim = x.shape
    flat = x.reshape(n * tokens, dim).astype(qkv.dtype)
    parts = []
    for i in range(3):
        inner = qkv.out_features // 3
        columns = slice(i * inner, (i + 1) * inner)
        # Without the barrier XLA moves the transposition below into the gradient's matrix
        # product, whose operands then no longer suit the fast kernels: a third of a step on a CPU.
        y = jax.lax.optimization_barrier(flat @ qkv.kernel[:, columns].astype(qkv.dtype))
        if qkv.bias is not None:
            y = y + qkv.bias[columns].astype(qkv.dtype)[None]
        parts.append(y.reshape(n, tokens, heads, -1).transpose(0, 2, 1, 3))
    return parts


def merge_heads(x: Float[Array, "n h t d"]) -> Float[Array, "n t hd"]:
    """The heads of each token side by side."""
    n, _, tokens, _ = x.shape
    return x.transpose(0, 2, 1, 3).reshape(n, tokens, -1)


def check_images(images: Float[Array, "n h w c"], image_size: int, channels: int) -> None:
    """Raise ValueError unless `images` is (N, image_size, image_size, channels)."""
    expected = (image_size, image_size, channels)
    if images.ndim != 4 or images.shape[1:] != expected:
        raise ValueError(
            f"images have shape {images.shape}: expected (N, {image_size}, {image_size}, "
            f"{channels}), batch first and channels last, as the model was created"
        )
