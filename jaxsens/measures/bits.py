"""Average sensitivity of a network on bit strings: exact for short ones, sampled for long ones.

A network maps strings (N, n) of ±1 to numbers (N,), which ``read`` takes to the function that is
meant, in ±1 units: `signs` for one that is trained on ±1 labels, `zero_one` and `zero_one_signs`
for labels 0 and 1.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxsens import boolean
from jaxsens._check import checked_key, positive_int
from jaxsens._inference import inference
from jaxsens.data.bit_functions import points_of

EXACT = 20  # bits up to which all strings are evaluated
ROWS = 2**12  # strings at a time
Read = Callable[[Array], Array]


def signs(outputs: Array) -> Array:
    """+1 where the output is above 0, -1 elsewhere."""
    return jnp.where(outputs > 0, 1.0, -1.0)


def zero_one(outputs: Array) -> Array:
    """2 f - 1: real outputs on the scale of labels 0 and 1."""
    return 2 * outputs - 1


def zero_one_signs(outputs: Array) -> Array:
    """+1 where the output is above 1/2, -1 elsewhere."""
    return jnp.where(outputs > 0.5, 1.0, -1.0)


class AverageSensitivity(NamedTuple):
    """as_n(f), its standard error over sampled strings, 0 where all were evaluated."""

    value: float
    stderr: float
    exact: bool


def average_sensitivity(
    model: Any,
    n: int,
    *,
    key: Array,
    read: Read = signs,
    exact: int = EXACT,
    samples: int = 1000,
) -> AverageSensitivity:
    """The average sensitivity of a network on n bits (paper B, Section 2).

    ::

        as_n(f) = E_x sum_i ((f(x) - f(x with bit i flipped)) / 2)^2 = sum_S |S| f_hat(S)^2

    By the Walsh-Hadamard transform of all 2^n values up to n = ``exact``, beyond that the mean over
    ``samples`` uniform strings, at least 2, of :func:`sensitivity_at`. Raises ValueError for
    ``exact`` above 20.
    """
    if not 0 <= exact <= EXACT:
        raise ValueError(
            f"exact must lie in 0..{EXACT}: all 2^n strings are evaluated, got {exact}"
        )
    if positive_int("n", n) <= exact:
        weights = boolean.weights_by_degree(table(model, n, read=read))
        return AverageSensitivity(float(weights @ np.arange(n + 1)), 0.0, True)
    if positive_int("samples", samples) < 2:
        raise ValueError("samples must be at least 2, for a standard error")
    points = jax.random.rademacher(checked_key(key), (samples, n), jnp.float32)
    values = sensitivity_at(model, points, read=read)
    stderr = values.std(ddof=1) / np.sqrt(samples)
    return AverageSensitivity(float(values.mean()), float(stderr), False)


def table(model: Any, n: int, *, read: Read = signs) -> Float[np.ndarray, " N"]:
    """The values at all 2^n strings, in the order of ``jaxsens.boolean``.

    Raises ValueError for NaN.
    """
    size = min(2**n, ROWS)
    starts = jnp.arange(0, 2**n, size, dtype=jnp.int32)
    return _finite(_table(read, n, size, inference(model), starts))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _table(read: Read, n: int, size: int, model: Any, starts: Array) -> Array:
    rows = jnp.arange(size, dtype=jnp.int32)
    values = jax.lax.map(lambda start: read(model(points_of(start + rows, n))), starts)
    return values.reshape(-1)


def sensitivity_at(
    model: Any, points: Float[Array, "N n"], *, read: Read = signs
) -> Float[np.ndarray, " N"]:
    """s(f, x) = sum_i ((f(x) - f(x with bit i flipped)) / 2)^2 at each of N strings.

    For f of ±1 the number of bits that decide. Raises ValueError for NaN.
    """
    count, n = points.shape
    size = max(1, min(count, ROWS // (n + 1)))
    padded = jnp.pad(points, ((0, -count % size), (0, 0)), constant_values=1.0)
    parts = padded.reshape(-1, size, n)
    return _finite(_sensitivity_at(read, inference(model), parts))[:count]


def sensitivity_counts(
    model: Any, points: Float[Array, "N n"]
) -> tuple[Int[Array, " N"], Bool[Array, " N"]]:
    """How many bits decide at each string, and whether the output there is above 0.

    :func:`sensitivity_at` with ``signs`` in whole numbers, to be called under ``jax.jit``: one
    forward pass of all strings for each bit. The count is -1 where an output is NaN.
    """
    outputs, n = model(points), points.shape[1]

    def changed(i: Array) -> tuple[Array, Array]:
        flipped = model(points * (1 - 2 * jax.nn.one_hot(i, n))[None])
        return (flipped > 0) != (outputs > 0), jnp.isnan(flipped)

    differ, undefined = jax.lax.map(changed, jnp.arange(n))
    counts = differ.sum(0, dtype=jnp.int32)
    return jnp.where(undefined.any(0) | jnp.isnan(outputs), -1, counts), outputs > 0


@functools.partial(jax.jit, static_argnums=0)
def _sensitivity_at(read: Read, model: Any, parts: Float[Array, "p N n"]) -> Array:
    n = parts.shape[-1]
    flips = jnp.concatenate([jnp.ones((1, n)), 1 - 2 * jnp.eye(n)])

    def part(points: Array) -> Array:
        rows = (points[:, None] * flips[None]).reshape(-1, n)
        values = read(model(rows)).reshape(len(points), n + 1)
        return jnp.square((values[:, 1:] - values[:, :1]) / 2).sum(axis=1)

    return jax.lax.map(part, parts).reshape(-1)


def _finite(values: Array) -> np.ndarray:
    found = np.asarray(values, np.float64)
    if np.isnan(found).any():
        raise ValueError("the network's outputs are NaN; check its parameters and inputs")
    return found
