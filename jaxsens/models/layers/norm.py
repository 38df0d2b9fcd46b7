"""LayerNorm and BatchNorm with PyTorch's epsilon and PyTorch's running variance."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike


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
