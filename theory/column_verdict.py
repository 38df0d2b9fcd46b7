"""Proposition 3.1 at two tokens and large d, from the orbits of `theory.columns`."""

from __future__ import annotations

import itertools
import math

import numpy as np
from jaxtyping import Float64

from .architecture import Architecture
from .columns import Orbits, by_degree, compositions, flipped, forms, mean_kernel, rank
from .order import average_violation, degree_excess
from .verdict import TOLERANCE, KernelVerdict, Verdict31, Violation, content, tiny


def column_verdict(architecture: Architecture, orbits: Orbits) -> Verdict31:
    """Proposition 3.1 for CK and NTK, as `check_proposition_3_1` decides it on small cubes."""
    p = orbits.p
    mean, deviation, square = mean_kernel(orbits)
    sets = np.array([math.comb(2 * p, k) for k in range(2 * p + 1)], float)
    verdicts = []
    unseen = tiny(architecture)
    for kind, name in enumerate(("CK", "NTK")):
        mu = forms(mean[kind], p)
        averages = by_degree(mu, p) / sets
        values = orbits.values[kind]
        chain_excess, chain = _chain(mu, p)
        verdicts.append(
            KernelVerdict(
                name,
                *_spread(orbits, kind),
                float(np.sqrt(deviation[kind] / square[kind])),
                chain,
                average_violation(averages),
                tuple(float(v) for v in averages),
                0.0 if unseen else content(values),
                chain_excess,
                degree_excess(averages),
            )
        )
    return Verdict31(architecture, 2 * p, verdicts[0], verdicts[1])


def undecided_from(kernel: KernelVerdict) -> tuple[int | None, int | None]:
    """The first even and the first odd k at which mu_k against mu_{k+2} is not decided.

    Both averages are then within the tolerance of 0: zeros of the kernel, or too small for float64
    values of K to hold. None where every step is decided.
    """
    mu = np.array(kernel.degree_averages)
    small = np.abs(mu) <= TOLERANCE * np.abs(mu).max()
    steps = np.flatnonzero(small[:-2] & small[2:])
    first = [steps[steps % 2 == parity] for parity in (0, 1)]
    even, odd = (int(k[0]) if len(k) else None for k in first)
    return even, odd


def _spread(orbits: Orbits, kind: int) -> tuple[float, tuple[tuple[int, int], tuple[int, int]]]:
    p = orbits.p
    low, high = np.full(2 * p + 1, np.inf), np.full(2 * p + 1, -np.inf)
    where: dict[tuple[int, bool], tuple[np.ndarray, np.ndarray]] = {}
    top = float(np.abs(orbits.values[kind]).max())
    for total, grid in orbits.grids():
        minus = flipped(total)
        product = total[0] + total[3] - 2 * (minus[0] + minus[3]) + p
        values = grid[kind].ravel()
        for sign, best in ((1, low), (-1, high)):
            order = np.argsort(sign * values, kind="stable")
            found, at = np.unique(product[order], return_index=True)
            for c, i in zip(found.tolist(), order[at].tolist(), strict=True):
                if sign * (best[c] - values[i]) > TOLERANCE * top or not np.isfinite(best[c]):
                    best[c] = values[i]
                    where[c, sign > 0] = (total, minus[:, i])
    seen = np.isfinite(low)
    c = int(np.argmax(np.where(seen, high - low, -1)))
    pairs = tuple(_points(*where[c, smallest]) for smallest in (True, False))
    return float(high[c] - low[c]) / top, (pairs[0], pairs[1])


def _points(total: np.ndarray, minus: np.ndarray) -> tuple[int, int]:
    """A pair of points of an orbit, as indices of the cube."""
    x, y = [], []
    for (t, u), n, m in zip(itertools.product(range(2), repeat=2), total, minus, strict=True):
        x += [(0, t)] * n
        y += [(f, f ^ u) for f in [0] * (n - m) + [1] * m]
    return _index(x), _index(y)


def _index(columns: list[tuple[int, int]]) -> int:
    bits = [c[0] for c in columns] + [c[1] for c in columns]
    return sum(b << (len(bits) - 1 - i) for i, b in enumerate(bits))


# Adding one element to a column, as a change of (c0, c1, c2, c3) = ({}, {2}, {1}, {1, 2}).
_ADD = [(-1, 1, 0, 0), (-1, 0, 1, 0), (0, -1, 0, 1), (0, 0, -1, 1)]
_STEPS = {tuple(np.add(a, b).tolist()) for a in _ADD for b in _ADD}


def _chain(mu: Float64[np.ndarray, " n"], p: int) -> tuple[float, Violation | None]:
    """The largest rise over max |mu|, and the violation where it exceeds the tolerance."""
    types = np.array(compositions(p))
    scale = float(np.abs(mu).max())
    worst, found = 0.0, None
    for step in sorted(_STEPS):
        above = types + step
        allowed = np.all(above >= 0, axis=1)
        below, above = types[allowed], above[allowed]
        if not len(below):
            continue
        excess = (mu[rank(*above[:, 1:].T)] - mu[rank(*below[:, 1:].T)]) / scale
        # Ties between sets are exact: the first in order is taken, whatever rounding says.
        i = int(np.flatnonzero(excess >= excess.max() - TOLERANCE)[0])
        if excess[i] > worst + (TOLERANCE if found else 0.0):
            found = below[i], above[i]
        worst = max(worst, float(excess.max()))
    if found is None or worst <= TOLERANCE:
        return worst, None
    values = [float(mu[rank(*t[1:])]) for t in found]
    values = [0.0 if abs(v) <= TOLERANCE * scale else v for v in values]
    sets = [_members(t, p) for t in found]
    return worst, Violation(sets[0], sets[1], *values, worst)


def _members(c: np.ndarray, p: int) -> tuple[int, ...]:
    kinds = np.repeat(np.arange(4), c[[3, 2, 1, 0]])  # {1, 2} first, then {1}, {2}, {}
    row1, row2 = np.flatnonzero(kinds <= 1), np.flatnonzero((kinds == 0) | (kinds == 2))
    return tuple(int(i) + 1 for i in row1) + tuple(int(i) + 1 + p for i in row2)
