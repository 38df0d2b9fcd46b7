"""Initial weights, after PyTorch's: outputs on the last axis, drawn in float32."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

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


def xavier_uniform(
    key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None
) -> Array:
    """U(-b, b) with b = (6 / (fan_in + fan_out))^1/2; one kernel of W_Q, W_K, W_V counts as one."""
    bound = math.sqrt(6 / (math.prod(shape[:-1]) + shape[-1]))
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
