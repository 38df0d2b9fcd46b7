r"""Learning curves from a spectrum: the test error of kernel regression by degree of the target.

n points x drawn from the cube with replacement, targets f(x) + noise, kernel ridge regression
f_n = K(., X) (K(X, X) + ridge I)^(-1) y. With eigenvalues lambda_i of multiplicity m_i (of
f -> E_y[K(x, y) f(y)]), the omniscient risk estimate (Bordelon et al. 2020, Canatar et al. 2021,
Simon et al. 2021) is

    n = sum_i m_i lambda_i / (lambda_i + kappa) + ridge / kappa            defines kappa > 0,
    L_i = lambda_i / (lambda_i + kappa),       E_0 = n / (n - sum_i m_i L_i²),
    E[(f_n(x) - f(x))²] = E_0 (sum_i (1 - L_i)² f_i² + noise²) - noise²,

f_i² the square of the part of f in eigenspace i. It is an approximation (Gaussian universality of
the eigenfunctions), exact only as n and the multiplicities grow; `kernel_regression` is the
experiment beside it. A target of degree k is learned once kappa falls below its eigenvalue: at
T = 1 about C(d, k) points, whatever the depth.

Targets here are random functions of one degree, f = sum_{|U|=k} g_U chi_U with independent g_U of
variance 1 / C(d, k). At T = 1 the result is that of every single parity of degree k. At T > 1
eigenvectors mix degrees, and f has m_i w_ik / C(d, k) in eigenspace i, w_ik being the weight of its
eigenvectors at degree k.

What a spectrum leaves out (eigenvalues lost in rounding, at T = 2 and d = 64) has eigenvalues far
below kappa: L = 0 there, and its part of the trace acts as a ridge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.special import gammaln

from jaxsens.boolean import set_sizes

from .column_blocks import ColumnSpectrum
from .dot_product import DegreeSpectrum
from .spectrum import Spectrum, walsh_eigenvalues


@dataclass(frozen=True)
class Modes:
    """Eigenspaces: log eigenvalues (-inf for 0), log multiplicities, and what they hold.

    `shares[i, k]`: the part of a random target of degree k in eigenspace i; a column sums to 1, or
    less by what was left out. `tail`: trace left out.
    """

    d: int
    log_eigenvalues: Float64[np.ndarray, " n"]
    log_multiplicity: Float64[np.ndarray, " n"]
    shares: Float64[np.ndarray, "n degrees"]
    tail: float = 0.0

    @property
    def trace(self) -> float:
        """E[K(x, x)]."""
        return float(np.exp(self.log_eigenvalues + self.log_multiplicity).sum()) + self.tail


def modes_of(spectrum: DegreeSpectrum | Spectrum | ColumnSpectrum, degrees: int) -> Modes:
    """The modes of any of the package's spectra, for targets of degree 0..`degrees`.

    ValueError for degrees outside 0..d.
    """
    d = spectrum.d
    if not 0 <= degrees <= d:
        raise ValueError(f"degrees of the target must lie in 0..{d}, got {degrees}")
    log_sets = _log_binomial(d)
    if isinstance(spectrum, DegreeSpectrum):
        return Modes(d, spectrum.log_eigenvalues, log_sets, np.eye(d + 1, degrees + 1))
    keep = spectrum.nonzero
    values, copies = spectrum.eigenvalues[keep], spectrum.multiplicity[keep].astype(float)
    shares = copies[:, None] * spectrum.weights[keep, : degrees + 1]
    shares = shares / np.exp(log_sets[: degrees + 1])
    tail = max(0.0, float(spectrum.variance.sum() - values @ copies))
    # Rounding of the sum itself is no tail.
    tail = tail if tail > 1e-9 * spectrum.variance.sum() else 0.0
    return Modes(d, np.log(values), np.log(copies), shares, tail)


def _log_binomial(d: int) -> Float64[np.ndarray, " d+1"]:
    k = np.arange(d + 1)
    return gammaln(d + 1) - gammaln(k + 1) - gammaln(d - k + 1)


@dataclass(frozen=True)
class Risk:
    """Test errors at one sample size; `by_degree[k]` relative to the variance of the target (1)."""

    n: float
    kappa: float
    learnability: Float64[np.ndarray, " n"]  # L_i
    overfitting: float  # E_0
    by_degree: Float64[np.ndarray, " degrees"]


def predicted_risk(modes: Modes, n: float, *, ridge: float = 0.0, noise: float = 0.0) -> Risk:
    """Mean squared test error from n samples, for a random target of each degree.

    `ridge` >= 0 is added to K(X, X); `noise` is the standard deviation of the labels' noise. With
    ridge 0 and more samples than there are nonzero eigenvalues, kappa = 0 and these are learned
    exactly. ValueError for n <= 0, negative ridge or noise, and for n equal to the rank at ridge 0,
    where the estimate diverges.
    """
    if not (n > 0 and math.isfinite(n)):
        raise ValueError(f"the number of samples must be positive and finite, got {n}")
    if not (0 <= ridge < math.inf and 0 <= noise < math.inf):
        raise ValueError(f"ridge and noise must be finite and >= 0, got {ridge} and {noise}")
    log_kappa = _log_kappa(modes, n, ridge)
    zero = np.isneginf(modes.log_eigenvalues)  # not learned at kappa = 0 either
    gap = np.where(zero, -np.inf, np.where(zero, 0.0, modes.log_eigenvalues) - log_kappa)
    log_l, log_rest = -np.logaddexp(0, -gap), -np.logaddexp(0, gap)
    freedom = float(np.exp(modes.log_multiplicity + 2 * log_l).sum())
    if not n - freedom > 1e-12 * n:
        raise ValueError(
            f"{n:g} samples equal the rank of the kernel: at ridge 0 the test error diverges there"
        )
    overfitting = n / (n - freedom)
    rest = np.exp(2 * log_rest)
    # What was left out of the modes is not learned.
    bias = rest @ modes.shares + (1 - modes.shares.sum(axis=0))
    errors = overfitting * (bias + noise**2) - noise**2
    return Risk(n, math.exp(log_kappa), np.exp(log_l), overfitting, errors)


def _log_kappa(modes: Modes, n: float, ridge: float) -> float:
    nonzero = modes.log_eigenvalues > -np.inf
    logs, copies = modes.log_eigenvalues[nonzero], modes.log_multiplicity[nonzero]
    fixed = ridge + modes.tail

    def excess(log_kappa: float) -> float:
        # Multiplicities reach 2^4096: sums of exponentials of sums, and a cap where they overflow.
        terms = copies - np.logaddexp(0, log_kappa - logs)
        total = math.exp(min(float(np.logaddexp.reduce(terms)), 700.0))
        return total + fixed * math.exp(min(-log_kappa, 700.0)) - n

    if not fixed and float(np.logaddexp.reduce(copies)) <= math.log(n):
        return -math.inf
    # sum m L <= trace / kappa: the root lies below (trace + ridge) / n.
    high = math.log((modes.trace + ridge) / n) + 1e-9
    low = high - 1.0
    while excess(low) < 0:
        low -= 2 * (high - low)
    while high - low > 1e-13 * max(1.0, abs(low)):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def samples_to_learn(
    modes: Modes, *, error: float = 0.5, ridge: float = 0.0
) -> Float64[np.ndarray, " degrees"]:
    """Sample sizes at which the predicted error of each degree falls to `error` for good.

    Infinity for a degree that is not learned by n = 1e24, say one the kernel cannot express.
    """
    # The error may rise above 1 before it falls, since E_0 does: look for the last crossing.
    grid = np.exp(np.linspace(0, math.log(1e24), 240))

    def errors(n: float) -> np.ndarray:
        try:
            return predicted_risk(modes, n, ridge=ridge).by_degree
        except ValueError:  # exactly the rank
            return np.full(modes.shares.shape[1], np.inf)

    above = np.stack([errors(float(n)) for n in grid]) > error
    out = np.empty(above.shape[1])
    for k, column in enumerate(above.T):
        if not column.any() or column[-1]:
            out[k] = math.inf if column[-1] else grid[0]
            continue
        i = int(np.flatnonzero(column)[-1])
        low, high = grid[i], grid[i + 1]
        for _ in range(30):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if errors(middle)[k] > error else (low, middle)
        out[k] = math.sqrt(low * high)
    return out


def kernel_regression(
    kernel: Float64[np.ndarray, "N N"],
    n: int,
    degrees: int,
    *,
    ridge: float = 0.0,
    trials: int = 10,
    seed: int = 0,
) -> Float64[np.ndarray, "trials degrees"]:
    """The experiment: errors over the whole cube after kernel ridge regression on n random points.

    `kernel` on the cube in the order of `jaxsens.boolean.cube`. A fresh sample and fresh random
    targets of degrees 0..`degrees` in each trial; the error is relative to the target's mean
    square. A point drawn twice makes K(X, X) singular: the solution of least norm is taken.
    """
    size = len(kernel)
    d = size.bit_length() - 1
    if kernel.shape != (size, size) or size != 2**d or not 0 <= degrees <= d:
        raise ValueError(
            f"a kernel on the whole cube and degrees in 0..d are needed, got {kernel.shape}, "
            f"degrees = {degrees}"
        )
    sizes, rng = set_sizes(d), np.random.default_rng(seed)
    out = np.empty((trials, degrees + 1))
    for trial in range(trials):
        coefficients = np.where(sizes == np.arange(degrees + 1)[:, None], rng.normal(size=size), 0)
        targets = np.asarray(walsh_eigenvalues(coefficients)).T * size  # sum_U g_U chi_U
        chosen = rng.integers(size, size=n)
        gram = kernel[np.ix_(chosen, chosen)] + ridge * np.eye(n)
        values, vectors = np.linalg.eigh(gram)
        inverse = np.where(values > 1e-12 * values[-1], 1 / np.maximum(values, 1e-300), 0)
        dual = vectors @ (inverse[:, None] * (vectors.T @ targets[chosen]))
        gap = kernel[:, chosen] @ dual - targets
        out[trial] = np.sum(gap**2, axis=0) / np.sum(targets**2, axis=0)
    return out
