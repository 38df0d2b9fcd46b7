"""Linear maps with PyTorch's initial weights, and the exact GELU between them."""

import jax
from flax import nnx
from jaxtyping import Array, Float
from numpy.typing import DTypeLike

from jaxsens.models.layers.init import Initializer, fan_in_uniform, uniform_bias


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


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x Phi(x) with the exact Gaussian distribution function, not its tanh approximation."""
    return jax.nn.gelu(x, approximate=False)
