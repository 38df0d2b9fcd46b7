"""What survives of "low degree first" where the order fails: an aggregate bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from .architecture import Architecture
from .spectrum import Spectrum, architecture_spectrum


@dataclass(frozen=True)
class Survivors:
    """The aggregate bias to low degree, where the order fails.

    `trace_weighted_degree` = sum_k k (trace at degree k) / trace; d/2 for no bias at all.
    `variance_correlation` = (even, odd): the correlation of the ranks of -log eigenvalue and of the
    eigenvector's mean degree, each eigenvector weighing as much as its eigenvalue, among those of
    mostly even and of mostly odd degree. `rank_correlation`: the same with each eigenvector
    counted once (Spearman's), which hangs on how many tiny eigenvalues are kept. Zero eigenvalues
    are left out; NaN where all ranks tie.
    """

    trace_weighted_degree: float
    variance_correlation: tuple[float, float]
    rank_correlation: tuple[float, float]


def survivors(spectrum: Spectrum, cut: float = 0.0) -> Survivors:
    """What is left of "low degree first" in any spectrum.

    The correlations leave out eigenvalues below ``cut`` times the largest.
    """
    even_share = spectrum.weights[:, 0::2].sum(axis=1)
    large = spectrum.nonzero & (spectrum.eigenvalues >= cut * spectrum.eigenvalues.max())
    weighted, plain = [], []
    for chosen in (even_share >= 0.5, even_share < 0.5):
        keep = chosen & large
        copies = spectrum.multiplicity[keep]
        ranks = [
            _ranks(np.repeat(values, copies))
            for values in (
                _spaces(-np.log(spectrum.eigenvalues[keep])),
                np.round(spectrum.mean_degree[keep], 9),
            )
        ]
        plain.append(_correlation(*ranks, np.ones(int(copies.sum()))))
        weighted.append(_correlation(*ranks, np.repeat(spectrum.eigenvalues[keep], copies)))
    variance = spectrum.variance
    degree = float(np.dot(np.arange(spectrum.d + 1), variance) / variance.sum())
    return Survivors(degree, (weighted[0], weighted[1]), (plain[0], plain[1]))


def _ranks(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Ranks from 1, their mean for ties (scipy.stats takes a second to import)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _spaces(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    # Equal up to rounding counts as a tie: values within 1e-9 of their neighbour share a rank.
    if not values.size:
        return values
    order = np.argsort(values)
    label = np.concatenate([[0], np.cumsum(np.diff(values[order]) > 1e-9)])
    out = np.empty(len(values))
    out[order] = label
    return out


def _correlation(
    a: Float64[np.ndarray, " n"], b: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, " n"]
) -> float:
    """Pearson's correlation with weights; NaN where either is constant."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    a, b = (values - np.average(values, weights=weights) for values in (a, b))
    moments = [np.average(product, weights=weights) for product in (a * b, a * a, b * b)]
    return float(moments[0] / np.sqrt(moments[1] * moments[2]))


def architecture_survivors(architecture: Architecture, d: int) -> tuple[Survivors, Survivors]:
    """`survivors` of the CK and of the NTK."""
    ck, ntk = architecture_spectrum(architecture, d)
    return survivors(ck), survivors(ntk)
