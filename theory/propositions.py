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

1 < T < d, flattened, one layer of attention on raw tokens and no LayerNorm, why it fails: being a
function of <x, y>, or Walsh-diagonal, makes K(x, x) the same for all x; but S(x, x) =
sum_ij (<x_i, x_j>/p)² is strictly largest where all tokens agree up to sign, so K(x, x) is not
constant. Every other verdict on T > 1 that `proof_of_3_1` does not give is a computation.

Proposition 3.2 and the bound by average sensitivity are in `theory.noise_bounds`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from jaxsens import boolean

from .architecture import Architecture
from .dot_product import MAX_DIMENSION, dot_product_spectrum
from .noise_bounds import (
    check_average_sensitivity_bound as check_average_sensitivity_bound,
)
from .noise_bounds import check_proposition_3_2 as check_proposition_3_2
from .spectrum import architecture_rows, quadratic_forms
from .symmetry import Rows

# Relative to the largest value of K (spread, off-diagonal share) or to mu_0's scale (order).
TOLERANCE = 1e-10
RESOLUTION = 1e-12
REASON = (
    "float64 values of K carry at most 1e-12 of the largest (rounding through the layers, and the "
    "square-root singularity of the ReLU derivative is snapped), averages over the cube less; "
    "what lies between 1e-12 and the tolerance is undecided, and so is what is unproved where all "
    "of K but its mean is below 1e-6"
)
TIE = 1e-9  # values this close, relative to the largest, count as equal
CONTENT = 1e-6  # of max |K|: where K varies by less, 1e-12 is no longer small against what varies


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
    content: float = 1.0
    chain_excess: float = 0.0
    degree_excess: float = 0.0
    proof: str | None = None

    def _status(self, deviation: float, violated: bool | None = None) -> str:
        if self.proof:
            return "yes"
        if deviation > TOLERANCE if violated is None else violated:
            return "no"
        decided = deviation <= RESOLUTION and self.content >= CONTENT
        return "yes" if decided else "undecided"

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """yes, no or undecided: K = Psi(<x, y>), Walsh-diagonal, order along chains, of averages.

        "no" is a violation above the tolerance; "yes" is proved (`proof`) or holds to 1e-12 where
        K varies enough to tell; anything else is undecided. `content` is max |K - mean K| / max
        |K|, 0 also where a bias or positions are too small to be seen.
        """
        return (
            self._status(self.spread),
            self._status(self.off_diagonal),
            self._status(self.chain_excess, self.chain is not None),
            self._status(self.degree_excess, self.degree is not None),
        )

    @property
    def function_of_dot_product(self) -> bool:
        """Part 1: K = Psi(<x, y>)."""
        return self.parts[0] == "yes"

    @property
    def walsh_diagonal(self) -> bool:
        """Part 2: every chi_U is an eigenfunction."""
        return self.parts[1] == "yes"

    @property
    def ordered(self) -> bool:
        """Part 3: mu_U >= mu_{U + {i, j}} along every chain."""
        return self.parts[2] == "yes"

    @property
    def status(self) -> str:
        """All three parts: yes, no or undecided."""
        three = self.parts[:3]
        return "no" if "no" in three else "undecided" if "undecided" in three else "yes"

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
    def status(self) -> str:
        """Every part for both kernels: holds, does not hold, undecided."""
        both = {self.ck.status, self.ntk.status}
        return "does not hold" if "no" in both else "undecided" if "undecided" in both else "holds"

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
    return verdict_of_rows(architecture, d, architecture_rows(architecture, d))


def verdict_of_rows(architecture: Architecture, d: int, rows: Rows) -> Verdict31:
    """`check_proposition_3_1` from rows at hand."""
    forms = quadratic_forms(rows)
    off = _off_diagonal(rows)
    proof = proof_of_3_1(architecture, d)
    unseen = any(
        0 < std < (1e3 * RESOLUTION) ** 0.5 for std in (architecture.bias, architecture.positions)
    )
    ck, ntk = (
        KernelVerdict(
            name,
            *_spread(rows, kind),
            float(off[kind]),
            None if proof else chain_violation(forms[kind], d),
            None if proof else degree_violation(forms[kind], d),
            tuple(float(v) for v in _averages(forms[kind], d)),
            0.0 if unseen else _content(rows, kind),
            _chain_excess(forms[kind], d)[0],
            _degree_excess(forms[kind], d),
            proof,
        )
        for kind, name in enumerate(("CK", "NTK"))
    )
    return Verdict31(architecture, d, ck, ntk)


def proof_of_3_1(architecture: Architecture, d: int) -> str | None:
    """Why the proposition is known to hold, or None: T = 1, and T = d with a flattened readout.

    T = d: K_ab = x_a y_b A + delta_ab (B + x_a y_a C) with A, B, C power series in <x, y>,
    coefficients >= 0. Odd activations without bias keep that form, and S of it is such a series; a
    last activation, applied token by token and averaged, needs not be odd.
    """
    p = architecture.check(d)
    if architecture.tokens == 1:
        return "T = 1: Psi has Taylor coefficients >= 0 in <x, y>"
    if p > 1 or architecture.readout != "flatten":
        return None
    attends = architecture.attention == "linear"
    last = architecture.depth == 1
    unbiased = architecture.bias == 0 or (last and not architecture.embedding)
    odd = architecture.mlp in ("none", "erf") or last
    if not attends or (unbiased and odd):
        return "T = d, flattened, odd and without bias before attention: the form of K is kept"
    return None


def check_one_token(architecture: Architecture, d: int) -> Verdict31:
    """The verdict at T = 1, any d: the parts by proof, the averages mu_k where d <= 4096."""
    architecture.check(d)
    proof = proof_of_3_1(architecture, d)
    if architecture.tokens != 1 or proof is None:
        raise ValueError(f"tokens must be 1, got {architecture.tokens}")
    spectra = dot_product_spectrum(architecture, d) if d <= MAX_DIMENSION else (None, None)
    ck, ntk = (
        KernelVerdict(
            name,
            0.0,
            ((0, 0), (0, 0)),
            0.0,
            None,
            None,
            () if spectrum is None else tuple(float(v) for v in spectrum.eigenvalues),
            proof=proof,
        )
        for name, spectrum in zip(("CK", "NTK"), spectra, strict=True)
    )
    return Verdict31(architecture, d, ck, ntk)


def _content(rows: Rows, kind: int) -> float:
    values = rows.stored[:, kind]
    top = float(np.abs(values).max())
    return float(np.abs(values - values.mean()).max()) / top if top else 0.0


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
    """Worst mu_{U + {i, j}} - mu_U > 0 over all U and i, j outside U; None within tolerance.

    Of several that are equal up to rounding, the first: the smallest U, then the smallest i, j.
    """
    excess, where = _chain_excess(forms, d)
    if excess <= TOLERANCE or where is None:
        return None
    u, v = where
    scale = float(np.abs(forms).max())
    return _violation(_members(u, d), _members(v, d), forms[u], forms[v], scale)


def _chain_excess(forms: Float64[np.ndarray, " N"], d: int) -> tuple[float, tuple[int, int] | None]:
    """The largest rise along a chain, relative to max |mu|, and the first place where it is."""
    sets = np.arange(2**d)
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
            ties = [(int(u), int(u | pair)) for u in below[excess >= top - TIE]]
            at = min(ties, key=lambda t: _rank(t, d))
            if top > worst + TIE or where is None or _rank(at, d) < best:
                best, where = _rank(at, d), at
            worst = max(worst, top)
    return worst, where


def _rank(pair: tuple[int, int], d: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    u, v = (_members(s, d) for s in pair)
    return len(u), u, v


def degree_violation(forms: Float64[np.ndarray, " N"], d: int) -> Violation | None:
    """Worst increase from degree k to k + 2 of the averages over |U| = k; None within tolerance."""
    means = _averages(forms, d)
    scale = float(np.abs(means).max())
    if _degree_excess(forms, d) <= TOLERANCE:
        return None
    excess = (means[2:] - means[:-2]) / scale
    k = int(np.argmax(excess >= excess.max() - TIE))
    return _violation((k,), (k + 2,), means[k], means[k + 2], scale)


def _degree_excess(forms: Float64[np.ndarray, " N"], d: int) -> float:
    means = _averages(forms, d)
    return float(max(0.0, (means[2:] - means[:-2]).max() / np.abs(means).max())) if d > 1 else 0.0


def _violation(
    smaller: tuple[int, ...], larger: tuple[int, ...], mu: float, nu: float, scale: float
) -> Violation:
    mu, nu = (0.0 if abs(v) <= TOLERANCE * scale else float(v) for v in (mu, nu))
    return Violation(smaller, larger, mu, nu, (nu - mu) / scale)
