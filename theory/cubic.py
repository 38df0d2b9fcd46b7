r"""One layer of linear attention without MLP and LayerNorm: the spectrum at any d and T.

Both kernels are then polynomials of degree 3 in the token Gram matrix A = <x_i, y_j> / p + bias² +
positions² [i = j]: with R the readout and S = sum_ij A_ij²,

    CK = R(A) S + [residual] R(A) + bias²,    NTK = c R(A) S + [residual] 2 R(A) + bias²,

c = 8 with an embedding and 5 without. Written out over columns, a product of k entries of A is a
sum over columns c_1..c_k; grouping equal columns (the partitions of k factors) makes it a sum over
*distinct* columns of products of chi_W(x_c) chi_W'(y_c), W and W' sets of tokens. So

    E[chi_U(x) K(x, y) chi_V(y)]

depends on the multiset of pairs (W, W') != ({}, {}) by which U and V meet the columns, is 0 for
|U| > 3, and is known in closed form for every p = d/T. The column flips keep the set of odd
columns, m <= 3 of them. Even columns that U meets (in two tokens) number at most one, so the
permutations of the other columns leave two kinds of block: symmetric in its place, and orthogonal
to that. Blocks have at most max(T³, 2 T + ...) rows whatever d is, and all other eigenvalues are 0.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from .architecture import Architecture

MAX_TOKENS = 8
Config = tuple[tuple[int, int], ...]  # sorted pairs (W, W') of bit masks over tokens
_PARTITIONS = {
    0: [[]],
    1: [[[0]]],
    2: [[[0], [1]], [[0, 1]]],
    3: [
        [[0], [1], [2]],
        [[0, 1], [2]],
        [[0, 2], [1]],
        [[1, 2], [0]],
        [[0, 1, 2]],
    ],
}


@dataclass(frozen=True)
class CubicSpectrum:
    """The nonzero eigenvalues of one kernel, largest first; `multiplicity` counts these alone.

    `weights`: squared Fourier coefficients of the unit eigenvector by degree 0..3. `forms`: mu_U by
    the sorted non-empty sets of tokens in which U meets its columns (as bit masks). `variance`: the
    trace by degree 0..3.
    """

    d: int
    tokens: int
    eigenvalues: Float64[np.ndarray, " n"]
    multiplicity: Float64[np.ndarray, " n"]
    weights: Float64[np.ndarray, "n 4"]
    forms: dict[tuple[int, ...], float]

    @property
    def variance(self) -> Float64[np.ndarray, " 4"]:
        """The trace E[K(x, x)] by degree."""
        out = np.zeros(4)
        for kind, mu in self.forms.items():
            out[_degree(kind)] += mu * _sets(kind, self.d // self.tokens)
        return out

    @property
    def degree_averages(self) -> Float64[np.ndarray, " 4"]:
        """mu_U averaged over |U| = k, k = 0..3 (0 beyond)."""
        return self.variance / [math.comb(self.d, k) for k in range(4)]

    @property
    def off_diagonal(self) -> float:
        """Share of the Frobenius norm of K off the diagonal in the Walsh basis."""
        p = self.d // self.tokens
        diagonal = sum(mu**2 * _sets(kind, p) for kind, mu in self.forms.items())
        total = float(self.eigenvalues**2 @ self.multiplicity)
        return math.sqrt(max(0.0, 1 - diagonal / total))

    def chain_violation(self) -> tuple[tuple[int, ...], tuple[int, ...], float] | None:
        """Worst mu_{U + {i, j}} - mu_U > 0: both kinds of set, and the excess over max mu."""
        worst, found = 1e-12 * max(self.forms.values()), None
        for kind, mu in self.forms.items():
            for below in _without_two(kind):
                excess = mu - self.forms.get(below, 0.0)
                if excess > worst:
                    worst, found = excess, (below, kind)
        return None if found is None else (*found, worst / max(self.forms.values()))


def cubic_spectrum(architecture: Architecture, d: int) -> tuple[CubicSpectrum, CubicSpectrum]:
    """Spectra of the CK and of the NTK; time and memory do not depend on d.

    Raises ValueError for networks whose kernels are not cubic, and for more than 8 tokens.
    """
    a, p = architecture, architecture.check(d)
    if a.attention != "linear" or a.mlp != "none" or a.depth != 1 or a.layer_norm != "none":
        raise ValueError(
            "only one linear attention layer without MLP and LayerNorm has a kernel of degree 3 in "
            f"<x_i, y_j>, got {a}"
        )
    if a.tokens > MAX_TOKENS:
        raise ValueError(
            f"{a.tokens} tokens make blocks of {a.tokens**3} rows: tokens must be <= {MAX_TOKENS}"
        )
    residual = float(a.residual)
    cubic = (1.0, 8.0 if a.embedding else 5.0)
    ck, ntk = (
        _spectrum(a, d, _elements(a, p, linear, power))
        for linear, power in zip((residual, 2 * residual), cubic, strict=True)
    )
    return ck, ntk


def _elements(a: Architecture, p: int, linear: float, cubic: float) -> dict[Config, float]:
    """E[chi_U K chi_V] by the configuration of (U, V)."""
    t = a.tokens
    constant = (a.bias**2 if a.embedding else 0.0) + a.positions**2 * np.eye(t)
    constant = np.broadcast_to(constant, (t, t))
    readout = {
        "flatten": np.eye(t) / t,
        "mean": np.full((t, t), 1 / t**2),
        "last": np.diag([0.0] * (t - 1) + [1.0]),
    }[a.readout]
    entries = list(itertools.product(range(t), repeat=2))
    out: dict[Config, float] = defaultdict(float)
    out[()] += a.bias**2
    for first in entries:
        if not readout[first]:
            continue
        _expand(out, linear * readout[first], [first], constant, p)
        for entry in entries:
            _expand(out, cubic * readout[first], [first, entry, entry], constant, p)
    return {config: value for config, value in out.items() if value}


def _expand(
    out: dict[Config, float],
    scale: float,
    factors: list[tuple[int, int]],
    constant: np.ndarray,
    p: int,
) -> None:
    """Add scale x prod (sum_c x_ic y_jc / p + constant_ij)."""
    for chosen in itertools.product((False, True), repeat=len(factors)):
        value = scale
        for entry, is_sum in zip(factors, chosen, strict=True):
            value *= 1 / p if is_sum else constant[entry]
        if not value:
            continue
        sums = [entry for entry, is_sum in zip(factors, chosen, strict=True) if is_sum]
        for partition in _PARTITIONS[len(sums)]:
            blocks = []
            for block in partition:
                w = v = 0
                for factor in block:
                    i, j = sums[factor]
                    w, v = w ^ 1 << i, v ^ 1 << j
                blocks.append((w, v))
            config = tuple(sorted(b for b in blocks if b != (0, 0)))
            # Columns of trivial blocks are any of those not taken; equal blocks may swap columns.
            free = math.perm(max(p - len(config), 0), len(blocks) - len(config))
            swaps = math.prod(math.factorial(n) for n in Counter(config).values())
            out[config] += value * free * swaps if len(config) <= p else 0.0


def _spectrum(a: Architecture, d: int, elements: dict[Config, float]) -> CubicSpectrum:
    t, p = a.tokens, d // a.tokens
    odd = {k: [w for w in range(1, 2**t) if w.bit_count() == k] for k in (1, 2, 3)}
    values, multiplicity, weights = [], [], []
    for m in range(min(3, p) + 1):
        plain = list(itertools.product(odd[1], repeat=m))
        plain += [(w,) for w in odd[3]] if m == 1 else []
        pairs = list(itertools.product(itertools.product(odd[1], repeat=m), odd[2]))
        others = p - m
        if m > 1 or not others:
            pairs = []

        def element(u: list[int], v: list[int]) -> float:
            config = sorted(b for b in zip(u, v, strict=True) if b != (0, 0))
            return elements.get(tuple(config), 0.0)

        same = np.array([[element([*u, w], [*v, s]) for v, s in pairs] for u, w in pairs])
        apart = np.array([[element([*u, w, 0], [*v, 0, s]) for v, s in pairs] for u, w in pairs])
        top = np.array([[element(list(u), list(v)) for v in plain] for u in plain])
        blocks = [(top, math.comb(p, m), plain)]
        if pairs:
            side = np.array([[element([*u, 0], [*v, s]) for v, s in pairs] for u in plain])
            side *= math.sqrt(others)
            symmetric = np.block([[top, side], [side.T, same + (others - 1) * apart]])
            kinds = [(*u, w) for u, w in pairs]
            blocks = [(symmetric, math.comb(p, m), plain + kinds)]
            if others > 1:
                blocks.append((same - apart, math.comb(p, m) * (others - 1), kinds))
        for block, copies, kinds in blocks:
            eigenvalues, vectors = np.linalg.eigh(block)
            by = np.zeros((4, len(block)))
            np.add.at(by, [_degree(k) for k in kinds], vectors**2)
            values.append(eigenvalues)
            multiplicity.append(np.full(len(block), float(copies)))
            weights.append(by.T)
    value = np.concatenate(values)
    order = np.argsort(-value, kind="stable")
    order = order[value[order] > 1e-13 * value.max()]
    forms = {
        tuple(w for w, _ in config): mu
        for config, mu in elements.items()
        if all(w == v for w, v in config)
    }
    return CubicSpectrum(
        d, t, value[order], np.concatenate(multiplicity)[order], np.concatenate(weights)[order],
        forms,
    )  # fmt: skip


def _degree(kind: tuple[int, ...]) -> int:
    return sum(w.bit_count() for w in kind)


def _sets(kind: tuple[int, ...], p: int) -> int:
    """How many sets U meet their columns in these sets of tokens."""
    return math.perm(p, len(kind)) // math.prod(map(math.factorial, Counter(kind).values()))


def _without_two(kind: tuple[int, ...]) -> set[tuple[int, ...]]:
    members = [(c, i) for c, w in enumerate(kind) for i in range(w.bit_length()) if w >> i & 1]
    out = set()
    for gone in itertools.combinations(members, 2):
        left = list(kind)
        for c, i in gone:
            left[c] ^= 1 << i
        out.add(tuple(sorted(w for w in left if w)))
    return out
