r"""The full spectrum at two tokens and large d: one block for each pair of Young diagrams.

A column of x carries the functions 1 and x_1 x_2 (even under its flip) or x_1 and x_2 (odd): two of
each. K keeps the set of odd columns. With m of them, it acts on the product of m and of p - m
copies of C² and commutes with permutations within either kind, so by Schur-Weyl duality it is one
block for each pair of two-row diagrams (m - a, a) and (p - m - b, b). The block acts on a singlets,
b singlets and the symmetric states of the other M = m - 2a and N = p - m - 2b columns: its size is
(M + 1)(N + 1) <= (p/2 + 1)², and its eigenvalues have multiplicity

    C(p, m) [C(m, a) - C(m, a-1)] [C(p-m, b) - C(p-m, b-1)].

Building the blocks is one linear map of the orbit values of `theory.columns`, whose number
C(p + 7, 7) is that of all block entries:

1. Over f, x_1 y_1 = (-1)^f, a column pair (t, u) is even or odd: a Krawtchouk transform on each of
   the four counts gives K[o, e], o the counts of odd columns (t, u) and e those of even ones.
2. A singlet pair of columns replaces K[o] by K[o + (00) + (11)] - K[o + (01) + (10)].
3. Between symmetric states with r and s columns of class 1, the entries are summed over the counts
   with those margins, with weight M! / prod o! / sqrt(C(M, r) C(M, s)).

A normalised Krawtchouk matrix turns the classes of columns into Walsh functions, where a basis
state has a degree: m + 2 (b + number of even columns in state x_1 x_2).

Eigenvalues are right to about 1e-15 of the largest: beyond degree 8 or so at d = 64 they are lost
in the rounding of K itself (`ColumnSpectrum.nonzero`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float64
from scipy.sparse import csr_matrix

from .architecture import Architecture
from .columns import Orbits, by_degree, compositions, evaluate, forms, krawtchouk, mean_kernel, rank
from .spectrum import ZERO


@dataclass(frozen=True)
class ColumnSpectrum:
    """All eigenpairs of one kernel by block, largest first.

    `multiplicity` sums to 2^d (as floats); `weights`: squared Fourier coefficients of the unit
    eigenvector by degree 0..d; `variance`: the trace E[K(x, x)] by degree.
    """

    d: int
    eigenvalues: Float64[np.ndarray, " n"]
    multiplicity: Float64[np.ndarray, " n"]
    weights: Float64[np.ndarray, "n d+1"]
    variance: Float64[np.ndarray, " d+1"]

    @property
    def nonzero(self) -> Bool[np.ndarray, " n"]:
        """Eigenvalues that rounding cannot have made out of 0."""
        return self.eigenvalues > ZERO * self.eigenvalues[0]

    @property
    def mean_degree(self) -> Float64[np.ndarray, " n"]:
        """sum_k k weights_k of each eigenvector."""
        return self.weights @ np.arange(self.d + 1)

    @property
    def trace_weighted_degree(self) -> float:
        """sum_k k (trace at degree k) / trace; d/2 for no bias to low degree."""
        return float(self.variance @ np.arange(self.d + 1) / self.variance.sum())


def column_spectrum(architecture: Architecture, d: int) -> tuple[ColumnSpectrum, ColumnSpectrum]:
    """Spectra of the CK and the NTK of a two-token network on {±1}^d, d <= 72.

    Raises ValueError for other numbers of tokens and beyond d = 72, with the cost.
    """
    ck, ntk = orbit_spectra(evaluate(architecture, d))
    return ck, ntk


def orbit_spectra(orbits: Orbits) -> list[ColumnSpectrum]:
    """Diagonalise every block, of every kernel."""
    p = orbits.p
    variances = [by_degree(forms(mean, p), p) for mean in mean_kernel(orbits)[0]]
    parts = _by_parity(orbits)
    out = []
    for part, variance in zip(parts, variances, strict=True):
        values, multiplicity, weights = [], [], []
        for m in range(p + 1):
            for block, copies, degrees in _blocks(part[m], m, p):
                eigenvalues, vectors = np.linalg.eigh(block)
                by = np.zeros((2 * p + 1, len(block)))
                np.add.at(by, degrees, vectors**2)
                values.append(eigenvalues)
                multiplicity.append(np.full(len(block), float(copies)))
                weights.append(by.T)
        value = np.concatenate(values)
        order = np.argsort(-value, kind="stable")
        out.append(
            ColumnSpectrum(
                2 * p,
                value[order],
                np.concatenate(multiplicity)[order],
                np.concatenate(weights)[order],
                variance,
            )
        )
    return out


def _by_parity(orbits: Orbits) -> list[list[np.ndarray]]:
    """For each kernel and each m: K[o, e] / 2^p, shape (C(m + 3, 3), C(p - m + 3, 3))."""
    p, kinds = orbits.p, len(orbits.values)
    size = [math.comb(m + 3, 3) for m in range(p + 1)]
    starts = np.concatenate([[0], np.cumsum([size[m] * size[p - m] for m in range(p + 1)])])
    width = np.array(size[::-1])
    flat = np.empty((kinds, starts[-1]))
    for total, grid in orbits.grids():
        for axis, n in enumerate(total):
            grid = np.moveaxis(np.tensordot(grid, krawtchouk(int(n)), (axis + 1, 1)), -1, axis + 1)
        odd = np.indices(tuple(total + 1)).reshape(4, -1)
        even, m = total[:, None] - odd, odd.sum(axis=0)
        flat[:, starts[m] + rank(*odd[1:]) * width[m] + rank(*even[1:])] = grid.reshape(kinds, -1)
    flat /= 2.0**p
    return [
        [row[starts[m] : starts[m + 1]].reshape(size[m], size[p - m]) for m in range(p + 1)]
        for row in flat
    ]


def _blocks(k: Float64[np.ndarray, "o e"], m: int, p: int):
    for a in range(m // 2 + 1):
        inner = k
        for b in range((p - m) // 2 + 1):
            odd, even = m - 2 * a, p - m - 2 * b
            left, right = _margins(odd), _margins(even)
            entries = (right @ (left @ inner).T).T.reshape(odd + 1, odd + 1, even + 1, even + 1)
            block = entries.transpose(0, 2, 1, 3)
            for axis, n in ((0, odd), (1, even), (2, odd), (3, even)):
                block = np.moveaxis(np.tensordot(block, _walsh(n), (axis, 1)), -1, axis)
            size = (odd + 1) * (even + 1)
            copies = math.comb(p, m) * _paths(m, a) * _paths(p - m, b)
            degrees = m + 2 * (b + np.tile(np.arange(even + 1), odd + 1))
            block = block.reshape(size, size)
            yield (block + block.T) / 2, copies, degrees
            if even >= 2:
                plus, minus = _singlet(even - 2)
                inner = inner[:, plus] - inner[:, minus]
        if m - 2 * a >= 2:
            plus, minus = _singlet(m - 2 * a - 2)
            k = k[plus] - k[minus]


def _paths(n: int, a: int) -> int:
    """Dimension of the irreducible representation (n - a, a) of the symmetric group."""
    return math.comb(n, a) - (math.comb(n, a - 1) if a else 0)


@cache
def _margins(n: int) -> csr_matrix:
    """From counts (c0, c1, c2, c3) to (r, s) = (c2 + c3, c1 + c3), flattened."""
    c = np.array(compositions(n))
    r, s = c[:, 2] + c[:, 3], c[:, 1] + c[:, 3]
    # Products of binomials of one row: (n choose r) ways, then how each part splits.
    weight = np.array(
        [
            math.comb(n, i)
            * math.comb(n - i, c1)
            * math.comb(i, c3)
            / math.sqrt(math.comb(n, i) * math.comb(n, j))
            for (_, c1, _, c3), i, j in zip(c.tolist(), r.tolist(), s.tolist(), strict=True)
        ]
    )
    return csr_matrix((weight, (r * (n + 1) + s, np.arange(len(c)))), ((n + 1) ** 2, len(c)))


@cache
def _walsh(n: int) -> Float64[np.ndarray, "n+1 n+1"]:
    """Orthogonal: symmetric states of n columns by class, to symmetric Walsh states."""
    norm = np.sqrt([float(math.comb(n, r)) for r in range(n + 1)])
    return krawtchouk(n) * 2.0 ** (n / 2) * norm[:, None] / norm[None, :]


@cache
def _singlet(n: int) -> tuple[np.ndarray, np.ndarray]:
    _, c1, c2, c3 = np.array(compositions(n)).reshape(-1, 4).T
    return rank(c1, c2, c3 + 1), rank(c1 + 1, c2 + 1, c3)
