r"""Propositions 3.1 and 3.2 put to the test, exactly on the whole cube.

Proposition 3.1 (paper, section 3) says of the CK and the NTK of a linear-attention transformer on
{±1}^d: K(x, y) = Psi(<x, y>/d); the Walsh functions chi_U are eigenfunctions; their eigenvalues
fall along the even and along the odd degrees. `check_proposition_3_1` decides each part from the
whole kernel. Where K is not Walsh-diagonal, "eigenvalue of chi_U" is read as the quadratic form
mu_U = E[chi_U(x) K(x, y) chi_U(y)], and the order is asked along every chain U, U + {i, j}, and of
the averages over |U| = k.

T = 1, why it holds: Psi has Taylor coefficients a_j >= 0 (`theory.series`) and, with
E[c^j chi_U] = d^-j j! [t^j] sinh^k t cosh^(d-k) t for |U| = k,
mu_k - mu_{k+2} = sum_j a_j d^-j j! [t^j] sinh^k t cosh^(d-2-k) t >= 0, as cosh² - sinh² = 1.

1 < T < d, flattened, why it fails: being a function of <x, y>, or Walsh-diagonal, makes K(x, x) the
same for all x; but S(x, x) = sum_ij (<x_i, x_j>/p)² is strictly largest where all tokens agree up
to sign, so K(x, x) is not constant.

Proposition 3.2: 0 <= Pr[f(x) != f(x')] <= (1 - rho^(S_max²)) / 2 for a rho-correlated pair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

from jaxsens import boolean

from .architecture import Architecture
from .spectrum import check_block, quadratic_forms
from .symmetry import Rows, find_symmetry, kernel_of, kernel_rows

# Relative to the largest value of K (spread, off-diagonal share) or to mu_0's scale (order).
TOLERANCE = 1e-10
REASON = (
    "float64 values of K carry at most 1e-12 of the largest (rounding through the layers, and the "
    "square-root singularity of the ReLU derivative is snapped), averages over the cube less; "
    "proved failures exceed 1e-6 in every case tabulated"
)


@dataclass(frozen=True)
class Violation:
    """mu of the larger set exceeds mu of the smaller one: by how much, relative to max mu.

    Values of mu within the tolerance of 0 are given as 0.
    """

    smaller: tuple[int, ...]
    larger: tuple[int, ...]
    mu_smaller: float
    mu_larger: float
    excess: float

    def __str__(self) -> str:
        u, v = (("{" + ", ".join(map(str, s)) + "}") for s in (self.smaller, self.larger))
        return f"mu_{u} = {self.mu_smaller:.6g} < mu_{v} = {self.mu_larger:.6g}"


@dataclass(frozen=True)
class KernelVerdict:
    """The three parts of Proposition 3.1 for one kernel.

    `spread`: largest difference of K(x, y) within a value of <x, y>, relative to max |K|, at
    `spread_pairs` = ((x, y), (x', y')) as indices of the cube. `off_diagonal`: share of the
    Frobenius norm of K off the diagonal in the Walsh basis. `chain`, `degree`: the worst violation
    of the order along chains U, U + {i, j} and of the averages by degree (sets are then the
    degrees, as 1-tuples); None where there is none. Coordinates count from 1, as in the paper.
    """

    kernel: str
    spread: float
    spread_pairs: tuple[tuple[int, int], tuple[int, int]]
    off_diagonal: float
    chain: Violation | None
    degree: Violation | None
    degree_averages: tuple[float, ...]

    @property
    def function_of_dot_product(self) -> bool:
        """Part 1: K = Psi(<x, y>)."""
        return self.spread <= TOLERANCE

    @property
    def walsh_diagonal(self) -> bool:
        """Part 2: every chi_U is an eigenfunction."""
        return self.off_diagonal <= TOLERANCE

    @property
    def ordered(self) -> bool:
        """Part 3: mu_U >= mu_{U + {i, j}} along every chain."""
        return self.chain is None

    @property
    def holds(self) -> bool:
        """All three parts."""
        return self.function_of_dot_product and self.walsh_diagonal and self.ordered


@dataclass(frozen=True)
class Verdict31:
    """Proposition 3.1 for one architecture on {±1}^d, with the tolerance and its reason."""

    architecture: Architecture
    d: int
    ck: KernelVerdict
    ntk: KernelVerdict
    tolerance: float = TOLERANCE
    reason: str = REASON

    @property
    def holds(self) -> bool:
        """Every part for both kernels."""
        return self.ck.holds and self.ntk.holds


def check_proposition_3_1(
    architecture: Architecture, d: int, tokens: int | None = None
) -> Verdict31:
    """Decide Proposition 3.1 on {±1}^d from the kernel at every pair of points.

    `tokens` may be given to override `architecture.tokens`. Pairs that the symmetries found on the
    kernel connect are evaluated once. Raises ValueError as `theory.spectrum.cube_spectrum` does.
    """
    if tokens is not None:
        architecture = replace(architecture, tokens=tokens)
    architecture.check(d)
    kernel = kernel_of(architecture)
    symmetry = find_symmetry(kernel, d, architecture.tokens)
    check_block(symmetry)
    rows = kernel_rows(kernel, symmetry)
    forms = quadratic_forms(rows)
    off = _off_diagonal(rows)
    ck, ntk = (
        KernelVerdict(
            name,
            *_spread(rows, kind),
            float(off[kind]),
            chain_violation(forms[kind], d),
            degree_violation(forms[kind], d),
            tuple(float(v) for v in _averages(forms[kind], d)),
        )
        for kind, name in enumerate(("CK", "NTK"))
    )
    return Verdict31(architecture, d, ck, ntk)


def _averages(forms: Float64[np.ndarray, " N"], d: int) -> Float64[np.ndarray, " d+1"]:
    sizes = boolean.set_sizes(d)
    return np.bincount(sizes, forms) / np.bincount(sizes)


def _spread(rows: Rows, kind: int) -> tuple[float, tuple[tuple[int, int], tuple[int, int]]]:
    """Largest max - min of K over pairs at one Hamming distance, and where.

    Symmetries keep distances, so the stored rows see every pair.
    """
    d = rows.symmetry.d
    index = np.arange(2**d)
    sizes = boolean.set_sizes(d)
    values = np.stack(
        [row[kind][index ^ x] for row, x in zip(rows.stored, rows.owners, strict=True)]
    )
    best, where = -1.0, ((0, 0), (0, 0))
    for k in range(d + 1):
        members = index[sizes == k]
        part = values[:, members]
        ends = [np.unravel_index(f(part), part.shape) for f in (np.argmin, np.argmax)]
        gap = float(part[ends[1]] - part[ends[0]])
        if gap > best:
            pairs = [(int(rows.owners[a]), int(rows.owners[a] ^ members[z])) for a, z in ends]
            best, where = gap, (pairs[0], pairs[1])
    return best / float(np.abs(values).max()), where


def _off_diagonal(rows: Rows) -> Float64[np.ndarray, " kinds"]:
    # K is Walsh-diagonal when K(x, x z) does not depend on x; the deviation from the mean over x,
    # not a difference of norms, so that nothing cancels.
    mean = sum(rows.centred()) / len(rows.moves)
    squares = deviations = np.zeros(rows.stored.shape[1])
    for row in rows.centred():
        squares = squares + np.sum(row**2, axis=-1)
        deviations = deviations + np.sum((row - mean) ** 2, axis=-1)
    return np.sqrt(deviations / squares)


def _members(index: int, d: int) -> tuple[int, ...]:
    return tuple(i + 1 for i in range(d) if index >> (d - 1 - i) & 1)


def chain_violation(forms: Float64[np.ndarray, " N"], d: int) -> Violation | None:
    """Worst mu_{U + {i, j}} - mu_U > 0 over all U and i, j outside U; None within tolerance."""
    sets = np.arange(2**d)
    scale = float(np.abs(forms).max())
    worst, where = TOLERANCE * scale, None
    for i in range(d):
        for j in range(i + 1, d):
            pair = 1 << i | 1 << j
            below = sets[(sets & pair) == 0]
            excess = forms[below | pair] - forms[below]
            at = int(np.argmax(excess))
            if excess[at] > worst:
                worst, where = float(excess[at]), (int(below[at]), int(below[at] | pair))
    if where is None:
        return None
    u, v = where
    return _violation(_members(u, d), _members(v, d), forms[u], forms[v], scale)


def degree_violation(forms: Float64[np.ndarray, " N"], d: int) -> Violation | None:
    """Worst increase from degree k to k + 2 of the averages over |U| = k; None within tolerance."""
    means = _averages(forms, d)
    scale = float(np.abs(means).max())
    excess = means[2:] - means[:-2]
    if d < 2 or excess.max() <= TOLERANCE * scale:
        return None
    k = int(np.argmax(excess))
    return _violation((k,), (k + 2,), means[k], means[k + 2], scale)


def _violation(
    smaller: tuple[int, ...], larger: tuple[int, ...], mu: float, nu: float, scale: float
) -> Violation:
    mu, nu = (0.0 if abs(v) <= TOLERANCE * scale else float(v) for v in (mu, nu))
    return Violation(smaller, larger, mu, nu, (nu - mu) / scale)


@dataclass(frozen=True)
class Verdict32:
    """Proposition 3.2 for one Boolean function and one correlation, by exhaustion.

    `tightness` = Pr[f(x) != f(x')] / bound: 1 when the bound is attained, and by convention for
    bound = 0, where both are 0.
    """

    rho: float
    probability: float
    bound: float
    maximum_sensitivity: int
    degree: int

    @property
    def holds(self) -> bool:
        """0 <= probability <= bound, to 1e-14 (rounding of a sum of d + 1 terms)."""
        return -1e-14 <= self.probability <= self.bound + 1e-14

    @property
    def tightness(self) -> float:
        """probability / bound."""
        return self.probability / self.bound if self.bound > 0 else 1.0


def check_proposition_3_2(f: Int64[np.ndarray, " N"], rho: float) -> Verdict32:
    """Check Pr[f(x) != f(x')] = (1 - Q_rho) / 2 against (1 - rho^(S_max²)) / 2, exactly.

    `f` is a table of ±1 in the order of `jaxsens.boolean`; rho in [0, 1], since for rho < 0 the
    right-hand side is no bound (majority of three at rho = -1 has Pr = 1 against 0).
    Raises ValueError for other values.
    """
    if not 0 <= rho <= 1:
        raise ValueError(f"Proposition 3.2 is about correlations rho in [0, 1], got {rho}")
    if np.ndim(f) != 1:
        raise ValueError(f"one table of 2^d values is needed, got shape {np.shape(f)}")
    stability = float(boolean.noise_stability(f, rho))
    sensitivity = int(boolean.maximum_sensitivity(f))
    return Verdict32(
        float(rho),
        max(0.0, (1 - stability) / 2),
        (1 - float(rho) ** sensitivity**2) / 2,
        sensitivity,
        int(boolean.degree(f)),
    )
