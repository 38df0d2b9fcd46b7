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

from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from jaxsens import boolean

from .architecture import Architecture
from .dot_product import MAX_DIMENSION, dot_product_spectrum
from .noise_bounds import (
    check_average_sensitivity_bound as check_average_sensitivity_bound,
)
from .noise_bounds import check_proposition_3_2 as check_proposition_3_2
from .order import averages, chain_excess, chain_violation, degree_excess, degree_violation
from .spectrum import architecture_rows, quadratic_forms
from .symmetry import Rows
from .verdict import KernelVerdict, Verdict31, content, tiny


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
    unseen = tiny(architecture)
    ck, ntk = (
        KernelVerdict(
            name,
            *_spread(rows, kind),
            float(off[kind]),
            None if proof else chain_violation(forms[kind], d),
            None if proof else degree_violation(forms[kind], d),
            tuple(float(v) for v in averages(forms[kind], d)),
            0.0 if unseen else content(rows.stored[:, kind]),
            chain_excess(forms[kind], d)[0],
            degree_excess(averages(forms[kind], d)),
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


def _spread(rows: Rows, kind: int) -> tuple[float, tuple[tuple[int, int], tuple[int, int]]]:
    """Largest max - min of K over pairs at one Hamming distance, and where.

    Symmetries keep distances, so the stored rows see every pair.
    """
    d = rows.symmetry.d
    index = np.arange(2**d)
    sizes = boolean.set_sizes(d)
    values = np.stack([row[kind] for row in rows.centred()])
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
    mean = rows.mean()
    squares = deviations = np.zeros(len(mean))
    for row, count in zip(rows.centred(), rows.counts, strict=True):
        squares = squares + count * np.sum(row**2, axis=-1)
        deviations = deviations + count * np.sum((row - mean) ** 2, axis=-1)
    return np.sqrt(deviations / squares)
