"""The kernels of an `Architecture` from neural-tangents: the first witness of `theory.recursion`.

Linear attention with (head width)^(-1/2) scaling, independent queries and keys and infinitely many
heads is `stax.GlobalSelfAttention(..., linear_scaling=False, attention_mechanism="IDENTITY")`, the
one attention with that scaling for which a closed form exists.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Shaped

from .architecture import Architecture
from .nt_compat import neural_tangents
from .recursion import _points, tiles


@contextmanager
def float64() -> Iterator[None]:
    """A local float64 context for neural-tangents, which also relies on rank promotion."""
    with (
        jax.enable_x64(True),
        jax.numpy_rank_promotion("allow"),
        warnings.catch_warnings(),
    ):
        # Its reminder that summed branches must be independent: here every branch ends in weights
        # of its own (`Architecture`), so they are.
        warnings.filterwarnings("ignore", message=".*FanIn. layers assume independent")
        yield


def ck_ntk(
    architecture: Architecture, x: Shaped[np.ndarray, "n d"], y: Shaped[np.ndarray, "m d"]
) -> tuple[Float64[np.ndarray, "n m"], Float64[np.ndarray, "n m"]]:
    """The CK and the NTK of the scalar output, (n, m) float64 each, by neural-tangents.

    Same arguments, errors and meaning as `theory.recursion.ck_ntk`, with which it agrees to 1e-12
    relative to the largest entry; the NTK of ReLU networks to 1e-8 where tokens coincide or are
    opposite, since neural-tangents evaluates a square-root singularity at a rounded correlation
    (`theory.activations`). Use the recursion for spectra; this is the check on it.
    """
    x, y = _points(x, "x"), _points(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must have the same d, got {x.shape[1]} and {y.shape[1]}")
    shape = (-1, architecture.tokens, architecture.check(x.shape[1]))
    ck, ntk = np.empty((len(x), len(y))), np.empty((len(x), len(y)))
    with float64():
        _, _, kernel_fn = network(architecture)
        tokens_x, tokens_y = jnp.asarray(x.reshape(shape)), jnp.asarray(y.reshape(shape))
        for rows, columns in tiles(len(x), len(y), architecture.tokens):
            kernel = kernel_fn(tokens_x[rows], tokens_y[columns], ("nngp", "ntk"))
            ck[rows, columns], ntk[rows, columns] = kernel.nngp, kernel.ntk
    return ck, ntk


def network(architecture: Architecture, width: int = 1) -> tuple[Any, Any, Any]:
    """(init_fn, apply_fn, kernel_fn) of neural-tangents, on inputs of shape (n, T, d/T).

    `width` is the number of channels and of heads of the finite network, and does not touch
    kernel_fn.
    """
    stax = neural_tangents().stax
    layers = [_dense(architecture, width)] if architecture.embedding else []
    if architecture.positions:
        layers.append(_positions(architecture.positions))
    for _ in range(architecture.depth):
        if architecture.attention == "linear":
            attention = stax.GlobalSelfAttention(
                n_chan_out=width,
                n_chan_key=width,
                n_chan_val=width,
                n_heads=width,
                linear_scaling=False,
                attention_mechanism="IDENTITY",
            )
            layers.append(_sublayer(architecture, attention))
        if architecture.mlp != "none":
            phi = {"relu": stax.Relu, "erf": stax.Erf, "gelu": stax.Gelu}[architecture.mlp]()
            inside = [_dense(architecture, width), phi]
            if not architecture.plain_mlp:
                inside.append(_dense(architecture, width))
            layers.append(_sublayer(architecture, *inside))
    if architecture.layer_norm == "pre":
        layers.append(stax.LayerNorm(eps=0.0))
    layers += {
        "flatten": [stax.Flatten()],
        "mean": [stax.GlobalAvgPool()],
        "last": [stax.Index(stax.Slice[:, -1])],
    }[architecture.readout]
    return stax.serial(*layers, _dense(architecture, 1))


def _dense(architecture: Architecture, width: int) -> Any:
    return neural_tangents().stax.Dense(width, W_std=1.0, b_std=architecture.bias or None)


def _sublayer(architecture: Architecture, *inside: Any) -> Any:
    stax = neural_tangents().stax
    pre = [stax.LayerNorm(eps=0.0)] if architecture.layer_norm == "pre" else []
    layer = stax.serial(*pre, *inside)
    if architecture.residual:
        layer = stax.serial(stax.FanOut(2), stax.parallel(stax.Identity(), layer), stax.FanInSum())
    if architecture.layer_norm == "post":
        layer = stax.serial(layer, stax.LayerNorm(eps=0.0))
    return layer


def _positions(std: float) -> tuple[Any, Any, Any]:
    """z_a + P_a with trained P_a ~ N(0, std² I); neural-tangents has it inside attention only."""

    def init_fn(key: jax.Array, input_shape: tuple[int, ...]) -> tuple[tuple[int, ...], jax.Array]:
        return input_shape, jax.random.normal(key, input_shape[1:])

    def apply_fn(params: jax.Array, inputs: jax.Array, **_: Any) -> jax.Array:
        return inputs + std * params

    def kernel_fn(kernel: Any, **_: Any) -> Any:
        tokens = kernel.shape1[1]
        covariance = std**2 * (1.0 if kernel.diagonal_spatial else jnp.eye(tokens))

        def plus(a: Any) -> Any:
            return None if a is None else a + covariance

        return kernel.replace(
            nngp=plus(kernel.nngp),
            ntk=plus(kernel.ntk),
            cov1=plus(kernel.cov1),
            cov2=plus(kernel.cov2),
        )

    return init_fn, apply_fn, kernel_fn
