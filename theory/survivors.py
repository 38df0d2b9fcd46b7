"""What survives of "low degree first" where the order fails: an aggregate bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.stats import rankdata

from .architecture import Architecture
from .spectrum import Spectrum, architecture_spectrum


@dataclass(frozen=True)
class Survivors:
    """The aggregate bias to low degree, where the order fails.

    `rank_correlation` = (even, odd): Spearman's correlation of -log eigenvalue with the
    eigenvector's mean degree, each eigenvector counted once per copy, among those of mostly even
    and of mostly odd degree, zero eigenvalues left out; NaN where all ranks tie.
    `trace_weighted_degree` = sum_k k (trace at degree k) / trace; d/2 for no bias at all.
    """

    rank_correlation: tuple[float, float]
    trace_weighted_degree: float


def survivors(spectrum: Spectrum) -> Survivors:
    """What is left of "low degree first" in any spectrum."""
    even_share = spectrum.weights[:, 0::2].sum(axis=1)
    correlations = []
    for chosen in (even_share >= 0.5, even_share < 0.5):
        keep = chosen & spectrum.nonzero
        copies = spectrum.multiplicity[keep]
        correlations.append(
            _spearman(
                np.repeat(_spaces(-np.log(spectrum.eigenvalues[keep])), copies),
                np.repeat(np.round(spectrum.mean_degree[keep], 9), copies),
            )
        )
    variance = spectrum.variance
    degree = float(np.dot(np.arange(spectrum.d + 1), variance) / variance.sum())
    return Survivors((correlations[0], correlations[1]), degree)


def _spaces(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    # Equal up to rounding counts as a tie: values within 1e-9 of their neighbour share a rank.
    if not values.size:
        return values
    order = np.argsort(values)
    label = np.concatenate([[0], np.cumsum(np.diff(values[order]) > 1e-9)])
    out = np.empty(len(values))
    out[order] = label
    return out


def _spearman(a: Float64[np.ndarray, " n"], b: Float64[np.ndarray, " n"]) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def architecture_survivors(architecture: Architecture, d: int) -> tuple[Survivors, Survivors]:
    """`survivors` of the CK and of the NTK."""
    ck, ntk = architecture_spectrum(architecture, d)
    return survivors(ck), survivors(ntk)
