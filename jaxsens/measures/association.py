"""Whether two quantities of many models go together: rank correlations, slopes, their intervals."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxsens._check import positive_int

FEWEST = 4  # clusters that an interval can be made of


class Interval(NamedTuple):
    """A statistic with the ends of its bootstrap interval; NaN where it cannot be computed."""

    value: float
    low: float
    high: float


def ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1, those of equal values averaged."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]


def correlation(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Pearson's correlation; NaN where either is constant."""
    if _constant(x) or _constant(y):
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def _constant(values: Float[np.ndarray, " n"]) -> bool:
    """Whether all values are one, but for rounding."""
    return bool(np.ptp(values) <= 1e-9 * np.abs(values).max())


def spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Spearman's rho: the correlation of the ranks."""
    return correlation(ranks(x), ranks(y))


def partial_spearman(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], given: Float[np.ndarray, " n"]
) -> float:
    """Spearman's rho of x and y with ``given`` held fixed.

    ::

        (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2))

    NaN where z orders x or y completely.
    """
    xy, xz, yz = spearman(x, y), spearman(x, given), spearman(y, given)
    left = (1 - xz**2) * (1 - yz**2)
    return float((xy - xz * yz) / np.sqrt(left)) if left > 1e-12 else float("nan")


def slope(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], groups: Sequence[Any] | None = None
) -> float:
    """Least-squares slope of y on x with an intercept for each group; NaN where x is constant."""
    names = np.array([0] * len(x) if groups is None else [str(group) for group in groups])
    over = along = 0.0
    for name in np.unique(names):
        a, b = (np.asarray(v, float)[names == name] for v in (x, y))
        if not _constant(a):
            over += (a - a.mean()) @ (a - a.mean())
            along += (a - a.mean()) @ (b - b.mean())
    return along / over if over > 0 else float("nan")


def bootstrap(
    statistic: Callable[..., float],
    *columns: Any,
    clusters: Sequence[Any] | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """A statistic of columns (n,) with its percentile bootstrap interval.

    Rows are drawn with replacement, whole clusters of them where ``clusters`` are given: seeds of
    one network are no independent observations of what networks are like. Draws for which the
    statistic is NaN (all of one value) are left out; the interval is NaN where these are more than
    half, and where there are fewer than four clusters.
    """
    draws = positive_int("draws", draws)
    arrays = [np.asarray(column) for column in columns]
    names: list[Any] = list(range(len(arrays[0])) if clusters is None else clusters)
    lengths = [*map(len, arrays), len(names)]
    if len(set(lengths)) > 1:
        raise ValueError(f"columns differ in length: {lengths}")
    members = [
        np.array([i for i, name in enumerate(names) if name == one]) for one in dict.fromkeys(names)
    ]
    value = statistic(*arrays)
    if len(members) < FEWEST:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    found = []
    for picked in rng.integers(0, len(members), (draws, len(members))):
        rows = np.concatenate([members[i] for i in picked])
        found.append(statistic(*(array[rows] for array in arrays)))
    kept = np.array(found)[~np.isnan(found)]
    if 2 * len(kept) < draws:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
