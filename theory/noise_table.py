"""Both bounds on Pr[f(x) != f(x')] beside the probability: a row for each function or kind of it.

Every row is exact on the whole cube; what varies is which functions, the random and the trained
ones depending on their seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float64, Int8, Int64

from jaxsens import boolean

from .digits import steady
from .network_functions import mlp, random_functions, trained_functions, transformer
from .noise_bounds import average_sensitivity_bound, maximum_sensitivity_bound

RHO = 0.9
BITS = 8  # of the networks
FAMILIES = {
    "softmax transformer": transformer(BITS),
    "linear-attention transformer": transformer(BITS, softmax=False),
    "MLP": mlp(BITS),
}


@dataclass(frozen=True)
class Noise:
    """What the two bounds say at one rho of each of n functions on d bits."""

    rho: float
    probability: Float64[np.ndarray, " n"]
    average: Float64[np.ndarray, " n"]  # S(f)
    maximum: Int64[np.ndarray, " n"]  # S_max(f)

    @property
    def by_average(self) -> Float64[np.ndarray, " n"]:
        """(1 - rho^S) / 2."""
        return average_sensitivity_bound(self.average, self.rho)

    @property
    def by_maximum(self) -> Float64[np.ndarray, " n"]:
        """(1 - rho^(S_max²)) / 2, Proposition 3.2."""
        return maximum_sensitivity_bound(self.maximum, self.rho)

    @property
    def varying(self) -> np.ndarray:
        """Which functions are not constant: the bounds are 0 for those, and attained."""
        return self.maximum > 0

    def holds(self) -> bool:
        """Pr <= (1 - rho^S)/2 <= (1 - rho^(S_max²))/2 for every function, to rounding."""
        room = 1e-14
        return bool(
            np.all(self.probability <= self.by_average + room)
            and np.all(self.by_average <= self.by_maximum + room)
        )


def noise_of(tables: Int8[np.ndarray, "n N"], rho: float = RHO) -> Noise:
    """Both bounds for tables (n, 2^d) of ±1; ValueError for other values and rho outside [0, 1]."""
    if not 0 <= rho <= 1:
        raise ValueError(f"the bounds are about correlations rho in [0, 1], got {rho}")
    tables = np.atleast_2d(np.asarray(tables))
    return Noise(
        rho,
        np.maximum(0.0, (1 - boolean.noise_stability(tables, rho)) / 2),
        boolean.average_sensitivity(tables),
        boolean.maximum_sensitivity(tables),
    )


@cache
def four_bits() -> Int8[np.ndarray, "65536 16"]:
    """Every function of four bits."""
    return (1 - 2 * (np.arange(2**16)[:, None] >> np.arange(16) & 1)).astype(np.int8)


def named(d: int) -> dict[str, Int8[np.ndarray, " N"]]:
    """Textbook functions of d bits, d an odd multiple of 3."""
    return {
        "dictator": boolean.dictator(d),
        "majority": boolean.majority(d),
        "tribes of 3": boolean.tribes(d, 3),
        "parity of 3": boolean.parity(d, range(3)),
        "parity": boolean.parity(d),
    }


def exact_table(progress: Callable[[str], None] = lambda _: None) -> str:
    """The rows that depend on no seed, in Markdown."""
    progress("noise: all functions of 4 bits, named functions of 9")
    return _header(RHO) + "".join(_row(*row) for row in _exact_rows(RHO))


def noise_table(
    rho: float, draws: int, seeds: int, progress: Callable[[str], None] = lambda _: None
) -> str:
    """Every row, in Markdown: the exact ones, random networks, and networks learning a parity."""
    rows = _exact_rows(rho)
    for name, family in FAMILIES.items():
        progress(f"random networks: {name}")
        tables = random_functions(family, draws=draws)
        rows.append((f"{name}, {draws} random ones, median", BITS, noise_of(tables, rho)))
    for name, family in FAMILIES.items():
        progress(f"trained networks: {name}")
        trained = trained_functions(family, sparse_parity(), seeds=seeds)
        for record in (len(trained.steps) // 5, -1):
            accuracy = trained.accuracy[:, record].mean()
            label = (
                f"{name}, {trained.steps[record]} steps on a parity of 3, "
                f"{accuracy:.0%} right on unseen inputs, median of {seeds}"
            )
            rows.append((label, BITS, noise_of(trained.tables[:, record], rho)))
    failed = [name for name, _, noise in rows if not noise.holds()]
    if failed:
        raise ArithmeticError(f"a bound is broken, which is proved impossible: {failed}")
    return _header(rho) + "".join(_row(*row) for row in rows)


def _exact_rows(rho: float) -> list[tuple[str, int, Noise]]:
    rows = [("all functions of 4 bits, median", 4, noise_of(four_bits(), rho))]
    return rows + [(name, 9, noise_of(table, rho)) for name, table in named(9).items()]


def sparse_parity() -> Int8[np.ndarray, " N"]:
    """The parity of the first three of BITS bits."""
    return np.asarray(boolean.parity(BITS, range(3)))


def _header(rho: float) -> str:
    return (
        f"| function | d | S(f) | S_max | Pr[f(x) != f(x')] at rho = {rho:g} | (1 - rho^S)/2 | "
        "tightness | (1 - rho^(S_max²))/2 | tightness |\n|---|---|---|---|---|---|---|---|---|\n"
    )


def _row(name: str, d: int, noise: Noise) -> str:
    kept = noise.varying
    values = (noise.average, noise.maximum, noise.probability, noise.by_average)
    if not kept.any():
        cells = ["0", "0", "0", "0", "-", "0", "-"]
    else:
        cells = [steady(float(np.median(v[kept])), 3) for v in values]
        for bound in (noise.by_average, noise.by_maximum):
            tight = noise.probability[kept] / bound[kept]
            cells.append(steady(float(np.median(tight)), 2))
        cells.insert(5, steady(float(np.median(noise.by_maximum[kept])), 3))
    return f"| {name} | {d} | " + " | ".join(cells) + " |\n"
