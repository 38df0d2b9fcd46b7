r"""The full spectrum of any kernel on {±1}^d: its Walsh diagonal, its symmetry blocks, its vectors.

Eigenvalues are those of f -> E_y[K(x, y) f(y)], that is of the matrix K / 2^d. Let F be the group
of flips that leave K unchanged (`theory.symmetry`), of 2^r elements, and C the 2^(d-r) points that
represent its classes. K couples only functions with the same behaviour alpha under F, and on them
it is the matrix

    B_alpha[a, b] = sum_{s in F} alpha(s) K(x_a, s x_b),        a, b in C,

one Walsh-Hadamard transform over F for each pair. In terms of Walsh functions the block holds the
2^(d-r) sets U with that alpha: for flips of whole columns, the sets with given column parities.

- r = d: K(x, y) = k(x y), Walsh functions are the eigenfunctions and one transform of one row gives
  all eigenvalues (T = 1 is such a case).
- 1 < T < d: r = p, or T + p - 1 where token flips hold too; permutations make blocks of the same
  type (say, the same number of odd columns) equal, so one of each type is diagonalised.
- r = 0: no symmetry was found, and the one block is the dense matrix.

Cost: the blocks take 8 kinds types M² bytes and a diagonalisation 4 arrays of 8 M² bytes, about
9 M³ operations. Measured at d = 14: T = 2 (8 types of 128), or T = 7 without bias (blocks of 64),
under 4 CPU seconds and 0.4 GiB; T = 7 with a bias leaves 3 types of 4096 for each kernel.
Blocks beyond MAX_BLOCK are refused with the memory they would take.

Eigenvectors of equal eigenvalues are not unique, and neither are their weights by degree; sums over
an eigenspace are (`mean_degree`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Bool, Float64, Int64

from jaxsens.boolean import set_sizes, walsh_hadamard

from .architecture import Architecture
from .progress import Tell, silent
from .symmetry import (
    Kernel,
    Rows,
    Symmetry,
    exponents_of,
    find_symmetry,
    kernel_of,
    kernel_rows,
    permute,
    span,
)

MAX_BLOCK = 2**13
# Relative to the largest eigenvalue: what float64 rounding of K (1e-16 of its entries, an order
# more near the square-root singularity of ReLU's derivative) can make out of an exact zero.
ZERO = 1e-13
# Relative gap under which eigenvalues count as one eigenspace.
SAME = 1e-10


@dataclass(frozen=True)
class Spectrum:
    """Distinct eigenpairs of one kernel, largest first.

    `multiplicity`: copies of each in equal blocks; they sum to 2^d. `weights`: squared Fourier
    coefficients of the unit eigenvector summed by degree 0..d. `degree_averages`: mu_U averaged
    over |U| = k, where mu_U = E[chi_U(x) K(x, y) chi_U(y)] is the quadratic form. Eigenvalues and
    forms are in units of 2^`exponent`, 0 unless deep attention leaves the range of a float.
    """

    d: int
    eigenvalues: Float64[np.ndarray, " n"]
    multiplicity: Int64[np.ndarray, " n"]
    weights: Float64[np.ndarray, "n d+1"]
    forms: Float64[np.ndarray, " N"]
    exponent: int = 0

    @property
    def degree_averages(self) -> Float64[np.ndarray, " d+1"]:
        """mu_U averaged over |U| = k; for a Walsh-diagonal kernel of this symmetry, mu_k."""
        sizes = set_sizes(self.d)
        return np.bincount(sizes, self.forms) / np.bincount(sizes)

    @property
    def variance(self) -> Float64[np.ndarray, " d+1"]:
        """The trace E[K(x, x)] by degree: sum of mu_U over |U| = k."""
        return np.bincount(set_sizes(self.d), self.forms)

    @property
    def nonzero(self) -> Bool[np.ndarray, " n"]:
        """Eigenvalues that rounding cannot have made out of 0."""
        return self.eigenvalues > ZERO * self.eigenvalues[0]

    @property
    def mean_degree(self) -> Float64[np.ndarray, " n"]:
        """sum_k k weights_k, averaged over each eigenspace."""
        own = self.weights @ np.arange(self.d + 1)
        gaps = self.eigenvalues[:-1] - self.eigenvalues[1:] > SAME * self.eigenvalues[0]
        space = np.concatenate([[0], np.cumsum(gaps)])
        total = np.bincount(space, own * self.multiplicity)
        return (total / np.bincount(space, self.multiplicity))[space]


def architecture_spectrum(architecture: Architecture, d: int) -> tuple[Spectrum, Spectrum]:
    """Spectra of the CK and of the NTK of an architecture on {±1}^d."""
    return spectra_of_rows(architecture, architecture_rows(architecture, d))


def architecture_rows(architecture: Architecture, d: int, progress: Tell = silent) -> Rows:
    """The rows of both kernels that verdicts and spectra are made of; ValueError as there."""
    architecture.check(d)
    kernel = kernel_of(architecture)
    symmetry = find_symmetry(kernel, d, architecture.tokens)
    check_block(symmetry)
    return kernel_rows(kernel, symmetry, progress)


def spectra_of_rows(
    architecture: Architecture, rows: Rows, progress: Tell = silent
) -> tuple[Spectrum, Spectrum]:
    """`architecture_spectrum` from rows at hand."""
    spectra = _spectra(rows, progress)
    ck, ntk = (
        replace(spectrum, exponent=exponent)
        for spectrum, exponent in zip(spectra, exponents_of(architecture), strict=True)
    )
    return ck, ntk


def architecture_forms(architecture: Architecture, d: int) -> Float64[np.ndarray, "2 N"]:
    """mu_U = E[chi_U(x) K(x, y) chi_U(y)] of the CK and of the NTK; no eigenvectors."""
    return quadratic_forms(architecture_rows(architecture, d))


def cube_spectrum(kernel: Kernel, d: int, tokens: int) -> tuple[Spectrum, ...]:
    """Spectrum of each of the kernels that `kernel` returns, through the symmetries they share.

    Raises ValueError where the blocks left by the symmetries found are larger than MAX_BLOCK.
    """
    symmetry = find_symmetry(kernel, d, tokens)
    check_block(symmetry)
    return _spectra(kernel_rows(kernel, symmetry))


def _spectra(rows: Rows, progress: Tell = silent) -> tuple[Spectrum, ...]:
    blocks, types, counts = symmetry_blocks(rows, progress)
    forms = quadratic_forms(rows)
    kinds, size = blocks.shape[1:3]
    task = f"{len(types)} blocks of {size} rows of each kernel"

    def tell(kind: int) -> Callable[[int], None]:
        def told(done: int) -> None:
            share = (kind * len(types) + done) / (kinds * len(types))
            progress(f"block {done + 1} of kernel {kind + 1}", share, task)

        return told

    return tuple(
        _spectrum(rows.symmetry, blocks[:, kind], types, counts, forms[kind], tell(kind))
        for kind in range(kinds)
    )


def check_block(symmetry: Symmetry) -> None:
    """ValueError for blocks that do not fit, with the memory they would take."""
    size = 2 ** (symmetry.d - len(symmetry.flips))
    if size > MAX_BLOCK:
        found = ", ".join(symmetry.names) or "none"
        raise ValueError(
            f"d = {symmetry.d} leaves blocks of size {size} (symmetries found: {found}), which "
            f"would take {4 * 8 * size**2 / 2**30:.0f} GiB; the limit is {MAX_BLOCK}: lower d"
        )


def walsh_eigenvalues(row: Float64[np.ndarray, "... N"]) -> Float64[np.ndarray, "... N"]:
    """Eigenvalues of a kernel k(x y), from its row at x = (1, ..., 1): E_z[k(z) chi_U(z)] at U.

    It is for the caller to know that K(x, y) depends on x y alone; `cube_spectrum` checks it.
    """
    with jax.enable_x64(True):
        return np.asarray(walsh_hadamard(np.asarray(row, np.float64))) / np.shape(row)[-1]


def quadratic_forms(rows: Rows) -> Float64[np.ndarray, "kinds N"]:
    """mu_U = E_{x,y}[chi_U(x) K(x, y) chi_U(y)]: the transform of z -> E_x[K(x, x z)]."""
    return walsh_eigenvalues(rows.mean())


def symmetry_blocks(
    rows: Rows, progress: Tell = silent
) -> tuple[Float64[np.ndarray, "types kinds M M"], Int64[np.ndarray, " types"], np.ndarray]:
    """B_alpha / 2^d for one alpha of each type, these alphas, and how many share the type."""
    symmetry = rows.symmetry
    labels = _types(symmetry)
    alphas, counts = np.unique(labels, return_counts=True)
    representatives = symmetry.representatives
    points = representatives[:, None] ^ span(list(symmetry.flips))[None, :]
    blocks = np.empty((len(alphas), rows.stored.shape[1], *[len(representatives)] * 2))
    for a in range(len(representatives)):
        progress(f"row {a + 1}", a / len(representatives), f"{len(points)} rows of the blocks")
        values = rows.read(a, points)
        if symmetry.flips:
            # The transform divides by 2^r; the flips already found are counted, not averaged.
            values = walsh_eigenvalues(values)[..., alphas] / len(representatives)
        else:
            values = values / len(representatives)
        blocks[:, :, a] = np.moveaxis(values, -1, 0)
    return blocks, alphas, counts


def _types(symmetry: Symmetry) -> Int64[np.ndarray, " A"]:
    # Label every alpha by the smallest one that permutations take it to.
    r = len(symmetry.flips)
    alphas = np.arange(2**r)
    maps = []
    for g in symmetry.permutations:
        image = np.zeros_like(alphas)
        for i, moved in enumerate(permute(np.array(symmetry.flips, int), g)):
            # alpha(g f_i), where g f_i is the xor of the flips whose pivots it has set.
            members = sum(
                1 << (r - 1 - j) for j, pivot in enumerate(symmetry.pivots) if moved >> pivot & 1
            )
            image |= (np.bitwise_count(alphas & members).astype(np.int64) & 1) << (r - 1 - i)
        maps.append(image)
    labels, before = alphas, None
    while before is None or not np.array_equal(before, labels):
        before = labels
        for image in maps:
            smaller = np.minimum(labels, labels[image])
            labels = smaller.copy()
            np.minimum.at(labels, image, smaller)
        labels = labels[labels]
    return labels


def _sets(symmetry: Symmetry, alpha: int) -> Int64[np.ndarray, " M"]:
    """The index of the set U for each beta, where chi_U is alpha on flips and beta on C."""
    u = symmetry.representatives.copy()  # free bits of U are beta
    r = len(symmetry.flips)
    for i, (flip, pivot) in enumerate(zip(symmetry.flips, symmetry.pivots, strict=True)):
        rest = np.bitwise_count(symmetry.representatives & flip).astype(np.int64)
        u |= ((alpha >> (r - 1 - i)) + rest & 1) << pivot
    return u


def _spectrum(
    symmetry: Symmetry,
    blocks: Float64[np.ndarray, "types M M"],
    alphas: Int64[np.ndarray, " types"],
    counts: Int64[np.ndarray, " types"],
    forms: Float64[np.ndarray, " N"],
    tell: Callable[[int], None],
) -> Spectrum:
    d = symmetry.d
    values, weights = [], []
    for number, (alpha, block) in enumerate(zip(alphas, blocks, strict=True)):
        tell(number)
        eigenvalues, vectors = np.linalg.eigh(block)
        size = len(block)
        coefficients = walsh_eigenvalues(vectors.T) * np.sqrt(size) if size > 1 else vectors
        sizes = np.bitwise_count(_sets(symmetry, int(alpha)))
        by_degree = np.zeros((d + 1, size))
        np.add.at(by_degree, sizes, coefficients.T**2)
        values.append(eigenvalues)
        weights.append(by_degree.T)
    value = np.concatenate(values)
    order = np.argsort(-value, kind="stable")
    multiplicity = np.repeat(counts, [len(v) for v in values])
    return Spectrum(d, value[order], multiplicity[order], np.concatenate(weights)[order], forms)
