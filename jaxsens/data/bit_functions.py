"""Functions of bit strings as tasks without a data set: strings are drawn on the device.

Strings are points of ``jaxsens.boolean``, +1 for bit 0 and -1 for bit 1, (N, n) float32; labels are
in [0, 1], (N,) float32, as paper B trains on them. A real function f in ±1 units, which is what
sensitivities are of, is 2 label - 1.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jaxsens.data.batches import Fresh
from jaxsens.data.split import Split

# points (N, n) -> labels (N,)
Function = Callable[[Array], Array]


def parity(points: Float[Array, "N n"]) -> Float[Array, " N"]:
    """The sum of the bits modulo 2."""
    return (1 - jnp.prod(points, axis=1)) / 2


def majority(points: Float[Array, "N n"]) -> Float[Array, " N"]:
    """1 where more than half of the bits are 1; a tie is 0."""
    return (points.sum(axis=1) < 0).astype(jnp.float32)


def first(points: Float[Array, "N n"]) -> Float[Array, " N"]:
    """The first bit."""
    return (1 - points[:, 0]) / 2


def mean(points: Float[Array, "N n"]) -> Float[Array, " N"]:
    """The share of ones: a real number."""
    return (1 - points.mean(axis=1)) / 2


BUILT_IN: Mapping[str, Function] = {
    "parity": parity,
    "majority": majority,
    "first": first,
    "mean": mean,
}


def average_sensitivity_of(name: str, n: int) -> float:
    """as_n of a function of `BUILT_IN` in ±1 units, in closed form (paper B, Section 3).

    ::

        PARITY n,   FIRST 1,   MEAN 1 / n,
        MAJORITY 2^(1-n) (a+1) binom(n, a+1), a = floor(n / 2): the edges of the cube that it cuts
    """
    above = n // 2 + 1
    return {
        "parity": float(n),
        "majority": 2.0 ** (1 - n) * above * math.comb(n, above),
        "first": 1.0,
        "mean": 1 / n,
    }[name]


def labels_of(function: Function, points: Array) -> Array:
    """The labels that a function gives, checked while it is traced.

    Raises ValueError unless it maps (N, n) to N bits or real numbers, TypeError for other types.
    """
    n = points.shape[1]
    found = function(points)
    name = getattr(function, "__name__", repr(function))
    if not hasattr(found, "dtype") or not hasattr(found, "shape"):
        raise TypeError(
            f"{name} returned {type(found).__name__}; expected an array of {len(points)} labels"
        )
    if found.shape != (len(points),):
        raise ValueError(
            f"{name} returned shape {found.shape} for points ({len(points)}, {n}); expected one "
            f"label for each, ({len(points)},)"
        )
    if not (found.dtype == bool or jnp.issubdtype(found.dtype, jnp.integer)) and not (
        jnp.issubdtype(found.dtype, jnp.floating)
    ):
        raise TypeError(f"{name} returned {found.dtype}; expected bits or real numbers")
    return found.astype(jnp.float32)


def points_of(rows: Int[Array, " N"], n: int) -> Float[Array, "N n"]:
    """The strings with these indices in the order of ``jaxsens.boolean``, n <= 30."""
    bits = rows[:, None] >> jnp.arange(n - 1, -1, -1)[None] & 1
    return 1.0 - 2.0 * bits.astype(jnp.float32)


def rows_of(points: Float[Array, "N n"]) -> Int[Array, " N"]:
    """The row of each string in a table of 2^n values, n <= 30."""
    n = points.shape[1]
    return (points < 0).astype(jnp.int32) @ (2 ** jnp.arange(n - 1, -1, -1, dtype=jnp.int32))


@dataclasses.dataclass(frozen=True)
class Uniform:
    """``draw(key, which)``: uniform strings labelled by number ``which`` of some functions.

    The number is an argument, so one compiled training serves them all.
    """

    n: int
    batch: int
    functions: tuple[Function, ...]

    def __call__(self, key: Array, which: Array) -> Split:
        points = jax.random.rademacher(key, (self.batch, self.n), jnp.float32)
        each = [functools.partial(labels_of, function) for function in self.functions]
        return Split(points, jax.lax.switch(which, each, points))


@dataclasses.dataclass(frozen=True)
class FromTable:
    """``draw(key, given)``: strings drawn with replacement from a list, labelled by a table.

    ``given`` holds "table", the labels of all 2^n strings, and either nothing else (all strings)
    or "order", indices of strings, of which the first "count" are drawn from.
    """

    n: int
    batch: int

    def __call__(self, key: Array, given: Mapping[str, Array]) -> Split:
        table = given["table"]
        which = jax.random.randint(key, (self.batch,), 0, given.get("count", 2**self.n))
        rows = given["order"][which] if "order" in given else which
        return Split(points_of(rows, self.n), table[rows])


def fresh(functions: Mapping[str, Function], name: str, *, n: int, batch: int) -> Fresh:
    """Batches of uniform strings with the labels of one of these functions.

    Sources for other names of the same ``functions`` run in the same compiled program.
    """
    which = np.int32(list(functions).index(name))
    return Fresh(Uniform(n, batch, tuple(functions.values())), which)


def checked_table(table: Any, *, n: int, name: str = "the table") -> Float[np.ndarray, " N"]:
    """A table of labels from outside, float32. Raises ValueError unless it is 2^n real numbers."""
    found = np.asarray(table)
    if found.ndim != 1 or len(found) != 2**n:
        raise ValueError(
            f"{name} has shape {found.shape}; expected the labels of all strings of {n} bits, "
            f"(2^{n},) = ({2**n},)"
        )
    if found.dtype != bool and not np.issubdtype(found.dtype, np.number):
        raise ValueError(f"{name} holds {found.dtype}; expected bits or real numbers")
    if np.iscomplexobj(found) or not np.isfinite(found.astype(np.float32)).all():
        raise ValueError(f"{name} holds numbers that are not real and finite")
    return found.astype(np.float32)
