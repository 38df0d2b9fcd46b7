r"""Two tokens at large d: everything that depends on how many columns have which signs, exactly.

x in {±1}^d is read as a 2 x p array, p = d/2. A kernel of the token Gram matrices (every kernel of
`theory.recursion`) does not change when the columns of x and y are permuted alike, or when a column
changes sign in both. A pair (x, y) is then known by eight counts n[t, u, f]: how many columns have
x_1 x_2 = (-1)^t, y_1 y_2 = (-1)^u and x_1 y_1 = (-1)^f. There are C(p + 7, 7) such orbits of pairs,
a polynomial in d, in place of 4^d pairs: 15,380,937 at d = 64.

From the orbits follow, exactly,

- the spread of K within a value of <x, y> (part 1 of Proposition 3.1);
- kbar(z) = E_x[K(x, x z)], whose Walsh transform is mu_U = E[chi_U(x) K(x, y) chi_U(y)], and the
  deviation E[(K(x, x z) - kbar(z))²] that is 0 where Walsh functions are eigenfunctions (part 2);
- mu_U along chains and averaged by degree (part 3): mu_U depends on how many columns meet U in
  {1}, in {2} and in both, C(p + 3, 3) types;
- the full spectrum (`theory.column_blocks`).

With T tokens a column pair has 2^(2T-1) joint patterns and there are C(p + 2^(2T-1) - 1, p) orbits:
for T = 3 about 10^15 at d = 66, so this way ends at T = 2 (`cost`). For attention without MLP
`theory.cubic` goes to any d and T.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float64, Int64

from .architecture import Architecture
from .recursion import ck_ntk_of_grams

MAX_ORBITS = 2**25  # d = 72; about 3 GiB for both kernels
RATE = 5e5  # orbits in a second, on one core
_CHUNK = 2**16
_SIGN = np.array([1.0, -1.0])


def cost(d: int, tokens: int) -> int:
    """Number of orbits of pairs of points; ValueError, with what it would take, if too many."""
    if tokens < 2 or d < 2 or d % tokens:
        raise ValueError(f"d must be a multiple of tokens >= 2, got d = {d}, tokens = {tokens}")
    patterns = 2 ** (2 * tokens - 1)
    orbits = math.comb(d // tokens + patterns - 1, patterns - 1)
    size = (
        f"{float(orbits):.3g} orbits of pairs ({orbits * 80 / 2**30:.3g} GiB, about "
        f"{orbits / RATE:.3g} s of work)"
    )
    if tokens > 2:
        raise ValueError(
            f"d = {d} with {tokens} tokens has {size}: columns are counted for 2 tokens; `check` "
            "and `spectrum` go to about d = 18, one layer of attention without MLP to any d"
        )
    if orbits > MAX_ORBITS:
        raise ValueError(
            f"d = {d} with 2 tokens has {size}; the limit is {MAX_ORBITS} orbits: take d <= 72"
        )
    return orbits


@cache
def krawtchouk(s: int) -> Float64[np.ndarray, "s+1 s+1"]:
    """Walsh transform of a function of the weight n of s bits, at a set of j: [j, n], with 2^-s."""
    out = np.zeros((s + 1, s + 1))
    for j, n in itertools.product(range(s + 1), repeat=2):
        signed = sum((-1) ** i * math.comb(j, i) * math.comb(s - j, n - i) for i in range(n + 1))
        out[j, n] = signed / 2**s
    return out


def compositions(n: int) -> list[tuple[int, int, int, int]]:
    """All (c0, c1, c2, c3) >= 0 of sum n, in the order of `rank`."""
    return [
        (n - a, a - b, b - c, c) for a in range(n + 1) for b in range(a + 1) for c in range(b + 1)
    ]


def rank(c1: np.ndarray, c2: np.ndarray, c3: np.ndarray) -> np.ndarray:
    """Position of (n - c1 - c2 - c3, c1, c2, c3) in `compositions(n)`, the same for every n."""
    b = c2 + c3
    a = c1 + b
    return a * (a + 1) * (a + 2) // 6 + b * (b + 1) // 2 + c3


@dataclass(frozen=True)
class Orbits:
    """Values of kernels at every orbit of pairs.

    For the i-th total N[t, u] = n[t, u, 0] + n[t, u, 1] of `compositions(p)`, `values[k]` from
    `starts[i]` on holds the grid of n[t, u, 1] = 0..N[t, u], last index fastest.
    """

    p: int
    totals: Int64[np.ndarray, "totals 4"]
    starts: Int64[np.ndarray, " totals+1"]
    values: Float64[np.ndarray, "kinds orbits"]

    def grids(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(N, values of shape (kinds, N00 + 1, N01 + 1, N10 + 1, N11 + 1)) for each total."""
        for total, start, end in zip(self.totals, self.starts, self.starts[1:], strict=False):
            yield total, self.values[:, start:end].reshape(-1, *(total + 1))


def evaluate(architecture: Architecture, d: int) -> Orbits:
    """CK and NTK at every orbit; ValueError where `cost` refuses."""
    p = architecture.check(d)
    cost(d, architecture.tokens)
    totals = np.array(compositions(p))
    starts = np.concatenate([[0], np.cumsum(np.prod(totals + 1, axis=1))])
    values = np.empty((2, starts[-1]))
    own_y = totals[:, 1] + totals[:, 3]
    for n in range(p + 1):
        group = np.flatnonzero(own_y == n)
        sizes = np.cumsum(np.prod(totals[group] + 1, axis=1))
        for part in np.split(group, np.searchsorted(sizes, np.arange(_CHUNK, sizes[-1], _CHUNK))):
            if not len(part):
                continue
            pieces = [_grams(total) for total in totals[part]]
            cross = np.concatenate([cross for cross, _ in pieces])[:, None]
            left = np.concatenate([np.broadcast_to(own, (len(c), 2, 2)) for c, own in pieces])
            right = np.array([[[1, 1 - 2 * n / p], [1 - 2 * n / p, 1]]])
            found = np.stack(ck_ntk_of_grams(architecture, cross, left, right))[:, :, 0]
            at = 0
            for i in part:
                length = starts[i + 1] - starts[i]
                values[:, starts[i] : starts[i + 1]] = found[:, at : at + length]
                at += length
    if not np.isfinite(values).all():
        raise ValueError(f"the kernel of {architecture} is not finite at d = {d}")
    return Orbits(p, totals, starts, values)


def flipped(total: np.ndarray) -> Int64[np.ndarray, "4 size"]:
    """n[t, u, 1] at every point of the grid of one total."""
    return np.indices(tuple(total + 1)).reshape(4, -1)


def _grams(total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cross Gram matrices of the grid of one total, and <x_a, x_b> / p."""
    p = total.sum()
    difference = (total[:, None] - 2 * flipped(total)).reshape(2, 2, -1) / p
    signs = np.stack([np.ones(2), _SIGN])  # of token 1 and of token 2 relative to token 1
    cross = np.einsum("at,bu,tun->nab", signs, signs, difference)
    own = 1 - 2 * (total[2] + total[3]) / p
    return cross, np.array([[1, own], [own, 1]])


def mean_kernel(orbits: Orbits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """kbar by the composition of z, E[(K - kbar)²] and E[K²], for each kernel.

    z = x y has columns (1, 1), (1, -1), (-1, 1), (-1, -1) in numbers c0..c3. Given z, each
    column of x is of either class with probability 1/2.
    """
    p = orbits.p
    kinds = len(orbits.values)
    n = math.comb(p + 3, 3)

    def passes(f: Callable[[np.ndarray, np.ndarray, np.ndarray], None]) -> None:
        for total, grid in orbits.grids():
            minus = flipped(total)
            plus = total[:, None] - minus
            # z_1 = f and z_2 = f t u: columns with t = u and f = 0 are (1, 1), and so on.
            z = [plus[0] + plus[3], plus[1] + plus[2], minus[1] + minus[2], minus[0] + minus[3]]
            first = [plus[0], plus[1], minus[1], minus[0]]
            ways = np.prod([choose[a, b] for a, b in zip(z, first, strict=True)], axis=0)
            f(rank(z[1], z[2], z[3]), ways / 2.0**p, grid.reshape(kinds, -1))

    choose = np.array([[float(math.comb(a, b)) for b in range(p + 1)] for a in range(p + 1)])
    mean = np.zeros((kinds, n))

    def accumulate(where: np.ndarray, weight: np.ndarray, values: np.ndarray) -> None:
        for k in range(kinds):
            mean[k] += np.bincount(where, weight * values[k], minlength=n)

    passes(accumulate)
    of_z = np.array([_multinomial(c) for c in compositions(p)]) / 4.0**p
    deviation, square = np.zeros(kinds), np.zeros(kinds)

    def compare(where: np.ndarray, weight: np.ndarray, values: np.ndarray) -> None:
        weight = weight * of_z[where]
        deviation[:] += (values - mean[:, where]) ** 2 @ weight
        square[:] += values**2 @ weight

    passes(compare)
    return mean, deviation, square


def _multinomial(c: tuple[int, ...]) -> float:
    left, out = sum(c), 1
    for k in c:
        out *= math.comb(left, k)
        left -= k
    return float(out)


def forms(mean: Float64[np.ndarray, " n"], p: int) -> Float64[np.ndarray, " n"]:
    """mu_U from kbar: both indexed by `rank`, U by the columns it meets in {}, {2}, {1}, {1, 2}."""
    middle = {}
    for s in range(p + 1):  # columns with z_1 = 1; transform over z_2
        j, k = np.meshgrid(np.arange(s + 1), np.arange(p - s + 1), indexing="ij")
        values = mean[rank(j, p - s - k, k)]
        middle[s] = krawtchouk(s) @ values @ krawtchouk(p - s).T
    out = np.empty_like(mean)
    for s in range(p + 1):  # columns that U meets in {2} or {1, 2}; transform over z_1
        j, k = np.meshgrid(np.arange(p - s + 1), np.arange(s + 1), indexing="ij")
        values = np.empty(j.shape)
        for a, b in itertools.product(range(p - s + 1), range(s + 1)):
            # a columns with z_1 = -1 outside U's row 2, b inside it
            values[a, b] = middle[p - a - b][s - b, b]
        out[rank(s - k, j, k)] = krawtchouk(p - s) @ values @ krawtchouk(s).T
    return out


def by_degree(mu: Float64[np.ndarray, " n"], p: int) -> Float64[np.ndarray, " d+1"]:
    """Sum of mu_U over |U| = k: the trace E[K(x, x)] by degree."""
    types = compositions(p)
    count = np.array([_multinomial(c) for c in types])
    degrees = np.array([c[1] + c[2] + 2 * c[3] for c in types])
    return np.bincount(degrees, count * mu, minlength=2 * p + 1)
