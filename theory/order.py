"""Whether mu falls: along every chain U, U + {i, j}, and averaged by degree; the worst rise."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from jaxsens import boolean

from .verdict import TIE, TOLERANCE, Violation


def averages(forms: Float64[np.ndarray, " N"], d: int) -> Float64[np.ndarray, " d+1"]:
    """mu_U averaged over |U| = k, for k = 0..d."""
    sizes = boolean.set_sizes(d)
    return np.bincount(sizes, forms) / np.bincount(sizes)


def _members(index: int, d: int) -> tuple[int, ...]:
    return tuple(i + 1 for i in range(d) if index >> (d - 1 - i) & 1)


def chain_violation(forms: Float64[np.ndarray, " N"], d: int) -> Violation | None:
    """Worst mu_{U + {i, j}} - mu_U > 0 over all U and i, j outside U; None within tolerance.

    Of several that are equal up to rounding, the first: the smallest U, then the smallest i, j.
    """
    excess, where = chain_excess(forms, d)
    if excess <= TOLERANCE or where is None:
        return None
    u, v = where
    scale = float(np.abs(forms).max())
    return _violation(_members(u, d), _members(v, d), forms[u], forms[v], scale)


def chain_excess(forms: Float64[np.ndarray, " N"], d: int) -> tuple[float, tuple[int, int] | None]:
    """The largest rise along a chain, relative to max |mu|, and the first place where it is."""
    sets = np.arange(2**d)
    sizes = boolean.set_sizes(d)
    scale = float(np.abs(forms).max())
    worst, best, where = 0.0, (0, (), ()), None
    for i in range(d):
        for j in range(i + 1, d):
            pair = 1 << i | 1 << j
            below = sets[(sets & pair) == 0]
            excess = (forms[below | pair] - forms[below]) / scale
            top = float(excess.max())
            if top < worst - TIE:
                continue
            ties = below[excess >= top - TIE]
            # Coordinate 1 is the highest bit: of sets of one size the first is the largest index.
            smallest = sizes[ties] == sizes[ties].min()
            u = int(ties[smallest].max())
            at = u, u | pair
            if top > worst + TIE or where is None or _rank(at, d) < best:
                best, where = _rank(at, d), at
            worst = max(worst, top)
    return worst, where


def _rank(pair: tuple[int, int], d: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    u, v = (_members(s, d) for s in pair)
    return len(u), u, v


def degree_violation(forms: Float64[np.ndarray, " N"], d: int) -> Violation | None:
    """Worst increase from degree k to k + 2 of the averages over |U| = k; None within tolerance."""
    return average_violation(averages(forms, d))


def average_violation(means: Float64[np.ndarray, " d+1"]) -> Violation | None:
    """`degree_violation` from the averages themselves; of equal increases the first."""
    if degree_excess(means) <= TOLERANCE:
        return None
    scale = float(np.abs(means).max())
    excess = (means[2:] - means[:-2]) / scale
    k = int(np.argmax(excess >= excess.max() - TIE))
    return _violation((k,), (k + 2,), means[k], means[k + 2], scale)


def degree_excess(means: Float64[np.ndarray, " d+1"]) -> float:
    """The largest rise of these averages from k to k + 2, relative to their largest; 0 for none."""
    if len(means) < 3:
        return 0.0
    return float(max(0.0, (means[2:] - means[:-2]).max() / np.abs(means).max()))


def _violation(
    smaller: tuple[int, ...], larger: tuple[int, ...], mu: float, nu: float, scale: float
) -> Violation:
    mu, nu = (0.0 if abs(v) <= TOLERANCE * scale else float(v) for v in (mu, nu))
    return Violation(smaller, larger, mu, nu, (nu - mu) / scale)
