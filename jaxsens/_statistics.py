"""Means, standard errors and quantiles of clustered, possibly weighted examples."""

import statistics
import warnings

import numpy as np
from jaxtyping import Float, Int

ROUNDING = 1e-12
# Examples below which the coverage of intervals is not what it says (measured, see interval).
ENOUGH = 100
# Examples that flip at every token or at none, whose variance is taken in beside what was seen.
UNSEEN = 4
# Events that strata must hold for their spread to say something; poorer ones join a neighbour.
EVENTS_EACH = 3


def mean(values: np.ndarray, axis: int, weights: np.ndarray | None = None) -> np.ndarray:
    """(Weighted) mean over ``axis`` of the entries that are not NaN; NaN where there are none."""
    weights = np.where(np.isnan(values), 0.0, 1.0 if weights is None else weights)
    total = (np.where(weights > 0, values, 0.0) * weights).sum(axis)
    weight = weights.sum(axis)
    return np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)


def clustered_variance(
    values: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"] | None = None,
    strata: Int[np.ndarray, " n"] | None = None,
    first_phase: int | None = None,
) -> float:
    """Variance of the (weighted) mean of independent values; NaN for a single one.

    Without strata ``var(values) / n``, the variance unbiased. With strata, double sampling:
    ``sum_h [ n_h / (n_h - 1) sum_{i in h} w_i^2 (v_i - mean_h)^2 + W_h (mean_h - mean)^2 / n' ]``,
    n' the ``first_phase``, with the weights summing to 1 and to W_h in stratum h (Cochran, Sampling
    Techniques, ch. 12; the squares are weighted, since in joined strata the weights differ). Strata
    with next to no events are joined with the next one first, since their spread says nothing.
    """
    n = len(values)
    if n < 2:
        return float("nan")
    if weights is None or strata is None or first_phase is None:
        return float(((values - values.mean()) ** 2).sum() / (n - 1) / n)
    weights = weights / weights.sum()
    overall, variance = (weights * values).sum(), 0.0
    for inside in _joined(values, strata):
        share = weights[inside].sum()
        centre = (weights[inside] * values[inside]).sum() / share
        if len(inside) > 1:
            squares = ((weights[inside] * (values[inside] - centre)) ** 2).sum()
            variance += squares * len(inside) / (len(inside) - 1)
        variance += share * (centre - overall) ** 2 / first_phase
    return float(variance)


def _joined(values: np.ndarray, strata: np.ndarray) -> list[np.ndarray]:
    """Members of the strata, from the highest number down, joined until each has events."""
    groups: list[np.ndarray] = []
    open_group = np.empty(0, np.int64)
    for stratum in np.unique(strata)[::-1]:
        open_group = np.append(open_group, np.flatnonzero(strata == stratum))
        if equal_events(np.abs(values[open_group])) >= EVENTS_EACH:
            groups.append(open_group)
            open_group = open_group[:0]
    if len(open_group):
        groups[-1:] = [np.append(groups[-1], open_group)] if groups else [open_group]
    return groups


def equal_events(sizes: np.ndarray) -> float:
    """How many equal ones carry as much information: ``(sum)^2 / sum of squares``."""
    squares = (sizes**2).sum()
    return float(sizes.sum() ** 2 / squares) if squares > 0 else 0.0


def standard_error(
    rates: Float[np.ndarray, "N T"],
    shared: bool,
    weights: Float[np.ndarray, " N"] | None,
    strata: Int[np.ndarray, " N"] | None,
) -> float:
    """Of the mean of (N, T) rates or differences of rates; NaN for a single example.

    Examples are clusters, and where ``shared`` says so tokens too.
    """
    per_example = mean(rates, 1)
    measured = ~np.isnan(per_example)
    if measured.sum() < 2:
        return float("nan")
    if weights is None or strata is None:
        variance = clustered_variance(per_example[measured])
    else:
        variance = clustered_variance(
            per_example[measured], weights[measured], strata[measured], int((strata >= 0).sum())
        )
    tokens = int((~np.isnan(rates)).any(axis=0).sum())
    if shared and tokens > 1:
        cells = int((~np.isnan(rates)).sum())
        residual = np.nan_to_num(rates - mean(per_example, 0))
        by_token = (residual.sum(0) ** 2).sum() / cells**2 * tokens / (tokens - 1)
        by_cell = (residual**2).sum() / cells**2
        variance += max(by_token - by_cell, 0.0)
    # Equal rates differ by rounding alone; a real difference is far above it.
    return float(np.sqrt(variance)) if variance > ROUNDING**2 else 0.0


def effective_number(values: np.ndarray, weights: np.ndarray | None) -> float:
    """How many equally weighted examples there might as well be."""
    return float(len(values) if weights is None else equal_events(weights))


def quantile(level: float) -> float:
    """z of a two-sided normal interval. Raises ValueError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return statistics.NormalDist().inv_cdf((1 + level) / 2)


def students(z: float, events: float) -> float:
    """z widened to Student's t, to first order, for as many degrees of freedom as events."""
    return z * (1 + (z**2 + 1) / (4 * max(events, 2.0)))


def with_unseen(variance: float, most: float, n: float) -> float:
    """A mean's variance with that of UNSEEN examples beside n, where an example has at most most.

    A few examples tell little of how much examples may differ.
    """
    return variance + UNSEEN * max(most - n * variance, 0.0) / (n * (n + UNSEEN))


def warn_if_few(examples: int, stacklevel: int) -> None:
    """Say that so few examples cannot show how much examples differ."""
    if 1 < examples < ENOUGH:
        warnings.warn(
            f"an interval from {examples} examples may be too short: where 5 % of the examples "
            f"flip often and the others hardly, 95 % intervals covered 77 % with 30 and 95 % with "
            f"{ENOUGH}; measure more examples",
            stacklevel=stacklevel + 1,
        )
