"""Products of activations with weights, whose derivatives are fast on a CPU too."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Float


def matmul(x: Float[Array, "*batch c"], kernel: Float[Array, "c o"]) -> Float[Array, "*batch o"]:
    """x @ kernel."""
    return dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def dot_general(x: Array, kernel: Array, dimension_numbers: Any, **settings: Any) -> Array:
    """`jax.lax.dot_general` of the last axis of x with the first of a matrix, in its signature.

    On a CPU XLA multiplies fast where the rows of the left matrix lie one after the other. Those of
    x^T in the derivative by the kernel, x^T dy, do not: the narrower of x and dy is transposed
    before, which makes it up to three times as fast.
    """

    def plain(x: Array, kernel: Array) -> Array:
        return jax.lax.dot_general(x, kernel, dimension_numbers, **settings)

    def transposed(x: Array, kernel: Array) -> Array:
        """The same by way of an operand transposed apart, which XLA does not fold back."""
        apart = jax.lax.optimization_barrier
        rows = x.reshape(-1, x.shape[-1])
        if kernel.shape[0] <= kernel.shape[1]:
            y = jax.lax.dot_general(apart(rows.T), kernel, (((0,), (0,)), ((), ())), **settings)
        else:
            y = jax.lax.dot_general(apart(kernel.T), rows, (((1,), (1,)), ((), ())), **settings)
            y = apart(y).T
        return y.reshape(*x.shape[:-1], kernel.shape[1])

    product = jax.custom_jvp(plain)
    on_cpu = transposed if settings.get("out_sharding") is None else plain

    def derivative(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
        (x, kernel), (dx, dkernel) = primals, tangents
        y = product(x, kernel)
        dy = jnp.zeros_like(y)
        if not isinstance(dx, SymbolicZero):
            dy = plain(dx, kernel)
        if not isinstance(dkernel, SymbolicZero):
            dy = dy + jax.lax.platform_dependent(x, dkernel, cpu=on_cpu, default=plain)
        return y, dy

    product.defjvp(derivative, symbolic_zeros=True)
    return product(x, kernel)
