r"""Proposition 3.1 for softmax attention: each part from estimates with error bars.

Kernels come from `theory.softmax` in independent randomisations on the whole cube, averaged over
the column flips and permutations that leave the exact kernel as it is. A statistic is computed in
each, and has a standard error over them. What is a maximum (the largest spread, the worst chain) is
located in one half of the randomisations and measured in the other, both ways round, so that noise
is not taken for it. A part is then

- "no":  the violation is above 0 by more than SIGMAS standard errors;
- "yes": it is 0 to rounding in every randomisation (T = 1), or, for an order, every single step
  falls by more than SIGMAS standard errors;
- "undecided" otherwise. Sampling alone cannot prove an equality.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from jaxsens.boolean import set_sizes

from .architecture import Architecture
from .digits import steady
from .softmax import softmax_ck_ntk
from .spectrum import architecture_forms, walsh_eigenvalues
from .symmetry import permute, points
from .verdict import TOLERANCE

SIGMAS = 4.0
MAX_D = 9
RANDOMISATIONS = 8


@dataclass(frozen=True)
class Estimate:
    """A mean over randomisations and its standard error."""

    value: float
    stderr: float

    @property
    def zero(self) -> str:
        """Whether it is 0: "yes", "no" or "undecided", for a quantity that cannot be negative."""
        if abs(self.value) + SIGMAS * self.stderr <= TOLERANCE:
            return "yes"
        return "no" if self.value > SIGMAS * self.stderr else "undecided"

    def __str__(self) -> str:
        noise = self.stderr if self.stderr > TOLERANCE * abs(self.value) else 0.0
        return f"{steady(self.value, 3)} ± {steady(noise, 1)}"


def _estimate(samples: np.ndarray) -> Estimate:
    return Estimate(float(samples.mean()), float(samples.std(ddof=1) / len(samples) ** 0.5))


@dataclass(frozen=True)
class Order:
    """Whether mu falls, and its worst step: the sets (or degrees), the rise over the largest mu."""

    holds: str
    smaller: tuple[int, ...]
    larger: tuple[int, ...]
    excess: Estimate

    def __str__(self) -> str:
        u, v = ("{" + ", ".join(map(str, s)) + "}" for s in (self.smaller, self.larger))
        if self.holds == "yes":
            return "yes"
        return f"{self.holds}, mu_{v} - mu_{u} = {self.excess} of the largest"


@dataclass(frozen=True)
class SoftmaxVerdict:
    """One kernel of one network. `degree_averages`: mu_U by |U|, mean and standard error."""

    kernel: str
    spread: Estimate  # of K within a value of <x, y>, relative to max |K|
    off_diagonal: Estimate  # share of the Frobenius norm off the Walsh diagonal
    chain: Order
    degree: Order
    trace_weighted_degree: Estimate
    linear_degree: float  # the same with linear attention, exactly
    degree_averages: Float64[np.ndarray, "2 d+1"]
    linear_averages: Float64[np.ndarray, " d+1"]
    mean: Float64[np.ndarray, "N N"]

    @property
    def bias(self) -> str:
        """The bias to low degree against linear attention's: stronger, weaker or undecided."""
        gap = self.trace_weighted_degree.value - self.linear_degree
        if abs(gap) <= max(SIGMAS * self.trace_weighted_degree.stderr, TOLERANCE):
            equal = self.trace_weighted_degree.stderr <= TOLERANCE
            return "the same" if equal else "undecided"
        return "stronger" if gap < 0 else "weaker"


def softmax_cube(
    architecture: Architecture,
    d: int,
    *,
    draws: int,
    randomisations: int = RANDOMISATIONS,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Float64[np.ndarray, "R 2 N N"]:
    """CK and NTK on the whole cube, randomisation by randomisation."""
    architecture.check(d)
    if d > MAX_D:
        raise ValueError(f"softmax kernels are computed for all 4^d pairs: d must be <= {MAX_D}")
    if randomisations < 4:
        raise ValueError(f"halves of at least 2 randomisations are needed, got {randomisations}")
    x = points(np.arange(2**d), d)
    out = np.empty((randomisations, 2, len(x), len(x)))
    for r in range(randomisations):
        for kind, k in enumerate(
            softmax_ck_ntk(architecture, x, draws=draws, seed=seed * randomisations + r)
        ):
            out[r, kind] = symmetrised(k, d, architecture.tokens)
        progress(f"randomisation {r + 1} of {randomisations} done")
    return out


def symmetrised(k: Float64[np.ndarray, "N N"], d: int, tokens: int) -> Float64[np.ndarray, "N N"]:
    """The mean of K(g x, g y) over column flips and column permutations g: psd stays psd."""
    p, index = d // tokens, np.arange(2**d)
    columns = np.arange(d).reshape(tokens, p)
    for i in range(p):
        flipped = index ^ sum(1 << (d - 1 - int(j)) for j in columns[:, i])
        k = (k + k[np.ix_(flipped, flipped)]) / 2
    # All orders of up to five columns, the cyclic ones of more.
    orders = (
        itertools.permutations(range(p)) if p <= 5 else [np.roll(range(p), s) for s in range(p)]
    )
    moved = [permute(index, tuple(columns[:, list(g)].ravel().tolist())) for g in orders]
    return sum(k[np.ix_(g, g)] for g in moved) / len(moved)


def softmax_verdicts(
    architecture: Architecture, d: int, cubes: Float64[np.ndarray, "R 2 N N"]
) -> tuple[SoftmaxVerdict, SoftmaxVerdict]:
    """The parts of Proposition 3.1 for the CK and the NTK in `softmax_cube`."""
    linear = architecture_forms(architecture, d)
    ck, ntk = (
        _verdict(name, d, cubes[:, kind], linear[kind]) for kind, name in enumerate(("CK", "NTK"))
    )
    return ck, ntk


def _verdict(
    name: str, d: int, k: Float64[np.ndarray, "R N N"], linear: Float64[np.ndarray, " N"]
) -> SoftmaxVerdict:
    index, sizes = np.arange(2**d), set_sizes(d)
    # K(x, x z), randomisation by randomisation.
    centred = np.stack([m[index[:, None], index[:, None] ^ index] for m in k])
    forms = walsh_eigenvalues(centred.mean(axis=1))
    means = np.stack([np.bincount(sizes, f) / np.bincount(sizes) for f in forms])
    degree = [float(np.dot(sizes, f) / f.sum()) for f in forms]
    pairs = [1 << i | 1 << j for i, j in itertools.combinations(range(d), 2)]
    smaller = [index[index & pair == 0] for pair in pairs]
    larger = [u | pair for u, pair in zip(smaller, pairs, strict=True)]
    steps = np.stack([np.concatenate(smaller), np.concatenate(larger)])
    members = [tuple(i + 1 for i in range(d) if u >> (d - 1 - i) & 1) for u in range(2**d)]
    return SoftmaxVerdict(
        name,
        _spread(centred, sizes),
        _off_diagonal(centred),
        _order(forms, steps, members),
        _order(
            means,
            np.stack([np.arange(d - 1), np.arange(2, d + 1)]),
            [(j,) for j in range(d + 1)],
        ),
        _estimate(np.array(degree)),
        float(np.dot(sizes, linear) / linear.sum()),
        np.stack([means.mean(0), means.std(0, ddof=1) / len(means) ** 0.5]),
        np.bincount(sizes, linear) / np.bincount(sizes),
        k.mean(0),
    )


def _halves(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    even, odd = np.arange(0, n, 2), np.arange(1, n, 2)
    return [(even, odd), (odd, even)]


def _spread(centred: Float64[np.ndarray, "R N N"], sizes: np.ndarray) -> Estimate:
    measured = np.empty(len(centred))
    top = np.abs(centred).mean(0).max()
    for found, tested in _halves(len(centred)):
        mean = centred[found].mean(0)
        best, where = -1.0, None
        for size in range(int(sizes.max()) + 1):
            part = np.where(sizes == size, mean, np.nan)
            ends = np.nanargmin(part), np.nanargmax(part)
            gap = mean.flat[ends[1]] - mean.flat[ends[0]]
            if gap > best:
                best, where = gap, ends
        low, high = where
        flat = centred[tested].reshape(len(tested), -1)
        measured[tested] = (flat[:, high] - flat[:, low]) / top
    return _estimate(measured)


def _off_diagonal(centred: Float64[np.ndarray, "R N N"]) -> Estimate:
    deviation = centred - centred.mean(axis=1, keepdims=True)

    def share(keep: np.ndarray) -> float:
        # Products of different randomisations: noise has mean 0 in them, unlike in squares.
        norms = []
        for a in (deviation[keep], centred[keep]):
            norms.append(float(np.sum(a.sum(0) ** 2) - np.sum(a**2)))
        return math.copysign(math.sqrt(abs(norms[0] / norms[1])), norms[0])

    n = len(centred)
    without = np.array([share(np.delete(np.arange(n), r)) for r in range(n)])
    return Estimate(
        share(np.arange(n)), float(np.sqrt((n - 1) * np.mean((without - without.mean()) ** 2)))
    )


def _first_largest(values: Float64[np.ndarray, " n"]) -> int:
    """Ties are exact by symmetry; rounding, which differs between machines, must not break them."""
    return int(np.flatnonzero(values >= values.max() - TOLERANCE)[0])


def _order(
    values: Float64[np.ndarray, "R n"], steps: np.ndarray, names: list[tuple[int, ...]]
) -> Order:
    top = np.abs(values.mean(0)).max()
    rises = (values[:, steps[1]] - values[:, steps[0]]) / top
    measured = np.empty(len(values))
    for found, tested in _halves(len(values)):
        measured[tested] = rises[tested, _first_largest(rises[found].mean(0))]
    worst = _first_largest(rises.mean(0))
    excess = _estimate(measured)
    stderr = rises.std(0, ddof=1) / len(rises) ** 0.5
    if excess.value > max(SIGMAS * excess.stderr, TOLERANCE):
        holds = "no"
    elif np.all(rises.mean(0) + SIGMAS * stderr <= TOLERANCE):
        holds = "yes"
    else:
        holds = "undecided"
    u, v = steps[:, worst]
    return Order(holds, names[u], names[v], excess)
