r"""How often a Boolean function changes under noise: Proposition 3.2, and the average sensitivity.

For a rho-correlated pair, Pr[f(x) != f(x')] = (1 - Q_rho)/2 with Q_rho = sum_k rho^k W_k.

- Proposition 3.2: Q_rho >= rho^(deg f) >= rho^(S_max²), so Pr <= (1 - rho^(S_max²))/2.
- The W_k >= 0 sum to 1 and their mean degree is S(f) = sum_k k W_k, the average sensitivity, and
  k -> rho^k is convex: by Jensen Q_rho >= rho^S(f), so Pr <= (1 - rho^S(f))/2. Since S <= deg, this
  is never the weaker of the two, and it is in the measure that experiments report.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from jaxsens import boolean


@dataclass(frozen=True)
class NoiseVerdict:
    """A bound on Pr[f(x) != f(x')] for one Boolean function and one correlation, by exhaustion.

    `tightness` = Pr[f(x) != f(x')] / bound: 1 when the bound is attained, and by convention for
    bound = 0, where both are 0.
    """

    rho: float
    probability: float
    bound: float

    @property
    def holds(self) -> bool:
        """0 <= probability <= bound, to 1e-14 (rounding of a sum of d + 1 terms)."""
        return -1e-14 <= self.probability <= self.bound + 1e-14

    @property
    def tightness(self) -> float:
        """probability / bound."""
        return self.probability / self.bound if self.bound > 0 else 1.0


@dataclass(frozen=True)
class Verdict32(NoiseVerdict):
    """Proposition 3.2, whose bound is by the maximum sensitivity."""

    maximum_sensitivity: int
    degree: int


@dataclass(frozen=True)
class AverageSensitivityVerdict(NoiseVerdict):
    """The bound by the average sensitivity."""

    average_sensitivity: float


def maximum_sensitivity_bound(
    sensitivity: Int64[np.ndarray, "*shape"], rho: float
) -> Float64[np.ndarray, "*shape"]:
    """(1 - rho^(S_max²)) / 2, Proposition 3.2."""
    return (1 - rho ** np.square(np.asarray(sensitivity, np.float64))) / 2


def average_sensitivity_bound(
    sensitivity: Float64[np.ndarray, "*shape"], rho: float
) -> Float64[np.ndarray, "*shape"]:
    """(1 - rho^S) / 2, by Jensen."""
    return (1 - rho ** np.asarray(sensitivity, np.float64)) / 2


def check_proposition_3_2(f: Int64[np.ndarray, " N"], rho: float) -> Verdict32:
    """Check Pr[f(x) != f(x')] = (1 - Q_rho) / 2 against (1 - rho^(S_max²)) / 2, exactly.

    `f` is a table of ±1 in the order of `jaxsens.boolean`; rho in [0, 1], since for rho < 0 the
    right-hand side is no bound (majority of three at rho = -1 has Pr = 1 against 0).
    Raises ValueError for other values.
    """
    probability = _probability(f, rho)
    sensitivity = int(boolean.maximum_sensitivity(f))
    return Verdict32(
        float(rho),
        probability,
        float(maximum_sensitivity_bound(sensitivity, float(rho))),
        sensitivity,
        int(boolean.degree(f)),
    )


def check_average_sensitivity_bound(
    f: Int64[np.ndarray, " N"], rho: float
) -> AverageSensitivityVerdict:
    """Check Pr[f(x) != f(x')] = (1 - Q_rho) / 2 against (1 - rho^S(f)) / 2, exactly.

    `f` is a table of ±1 in the order of `jaxsens.boolean`, S(f) its average sensitivity (a number
    of bits, 0..d), rho in [0, 1]. Raises ValueError for other values.
    """
    probability = _probability(f, rho)
    sensitivity = float(boolean.average_sensitivity(f))
    return AverageSensitivityVerdict(
        float(rho),
        probability,
        float(average_sensitivity_bound(sensitivity, float(rho))),
        sensitivity,
    )


def _probability(f: Int64[np.ndarray, " N"], rho: float) -> float:
    """Pr[f(x) != f(x')] for a rho-correlated pair; ValueError for what is no function or rho."""
    if not 0 <= rho <= 1:
        raise ValueError(f"Proposition 3.2 is about correlations rho in [0, 1], got {rho}")
    if np.ndim(f) != 1:
        raise ValueError(f"one table of 2^d values is needed, got shape {np.shape(f)}")
    return max(0.0, (1 - float(boolean.noise_stability(f, rho))) / 2)
