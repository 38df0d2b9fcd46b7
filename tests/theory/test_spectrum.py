"""Walsh, block and dense spectra against one another, and the symmetries they rest on."""

import math

import numpy as np
import pytest

from jaxsens import boolean
from theory.architecture import Architecture
from theory.dot_product import dot_product_spectrum
from theory.spectrum import (
    architecture_spectrum,
    cube_spectrum,
    quadratic_forms,
    walsh_eigenvalues,
)
from theory.symmetry import find_symmetry, kernel_of, kernel_rows, permute, points, span

# (architecture, d, rank of the group of flips): T = 1; blocks with and without token flips; T = d.
CASES = [
    (Architecture(mlp="relu"), 6, 6),
    (Architecture(mlp="relu", embedding=False, tokens=2), 8, 5),
    (Architecture(tokens=4, mlp="relu", readout="mean"), 8, 2),
    (Architecture(tokens=4, mlp="relu", readout="last", positions=0.5), 8, 5),
    (Architecture(tokens=2, mlp="erf", bias=0.2), 8, 4),
    (Architecture(tokens=3, depth=2, mlp="relu", layer_norm="pre", residual=True), 6, 2),
    (Architecture(tokens=8, mlp="relu", bias=0.3), 8, 1),
    (Architecture(tokens=7, mlp="gelu"), 7, 7),
]


def subset_products(d):
    """chi_U as columns, by the definition."""
    x = np.asarray(boolean.cube(d), np.float64)
    bits = np.arange(2**d)[:, None] >> np.arange(d - 1, -1, -1) & 1
    return np.stack([np.prod(np.where(u, x, 1), axis=1) for u in bits], axis=1)


def without_symmetry(d):
    """A kernel with no symmetry at all: a random positive semi-definite matrix."""
    half = np.random.default_rng(1).normal(size=(2**d, 2**d))
    matrix = half @ half.T

    def index(x):
        return ((1 - np.asarray(x)) / 2 @ 2 ** np.arange(d - 1, -1, -1)).astype(int)

    return matrix, lambda x, y: (matrix[np.ix_(index(x), index(y))],)


@pytest.mark.parametrize(("architecture", "d", "rank"), CASES, ids=str)
def test_blocks_against_the_dense_matrix(architecture, d, rank):
    kernel = kernel_of(architecture)
    assert len(find_symmetry(kernel, d, architecture.tokens).flips) == rank
    x = np.asarray(boolean.cube(d), np.float64)
    walsh = subset_products(d)
    sizes = boolean.set_sizes(d)
    for spectrum, matrix in zip(architecture_spectrum(architecture, d), kernel(x, x), strict=True):
        matrix = matrix / 2**d
        dense = np.linalg.eigvalsh(matrix)[::-1]
        ours = np.repeat(spectrum.eigenvalues, spectrum.multiplicity)
        # Both are backward stable: a few units of rounding of the largest eigenvalue.
        np.testing.assert_allclose(ours, dense, rtol=0, atol=1e-13 * dense[0])
        assert spectrum.multiplicity.sum() == 2**d
        assert ours.sum() == pytest.approx(np.trace(matrix), rel=1e-13)
        forms = np.sum(walsh * (matrix @ walsh), axis=0) / 2**d
        np.testing.assert_allclose(spectrum.forms, forms, rtol=0, atol=1e-13 * dense[0])
        np.testing.assert_allclose(spectrum.weights.sum(1), 1, rtol=1e-13)
        # Eigenvectors: K = sum lambda v v^T, seen through the weight of each degree.
        np.testing.assert_allclose(
            (spectrum.eigenvalues * spectrum.multiplicity) @ spectrum.weights,
            np.bincount(sizes, forms),
            atol=1e-13 * np.trace(matrix),
        )
        # And K² = sum lambda² v v^T, which the diagonal forms do not determine.
        squares = np.sum((matrix @ walsh) ** 2, axis=0) / 2**d
        np.testing.assert_allclose(
            (spectrum.eigenvalues**2 * spectrum.multiplicity) @ spectrum.weights,
            np.bincount(sizes, squares),
            atol=1e-13 * np.trace(matrix @ matrix),
        )


def test_a_kernel_without_symmetries_takes_the_dense_path():
    d = 5
    matrix, kernel = without_symmetry(d)
    symmetry = find_symmetry(kernel, d, 1)
    assert symmetry.flips == symmetry.permutations == symmetry.names == ()
    (spectrum,) = cube_spectrum(kernel, d, 1)
    np.testing.assert_allclose(spectrum.eigenvalues, np.linalg.eigvalsh(matrix / 2**d)[::-1])
    assert np.all(spectrum.multiplicity == 1)


def test_one_broken_symmetry_is_noticed():
    # The kernel of T = 2 with a term that only the first column flip changes.
    architecture = Architecture(tokens=2, mlp="relu", readout="mean")

    def kernel(x, y):
        return tuple(
            k + 0.01 * np.outer(x[:, 0], y[:, 1]) + 0.01 * np.outer(x[:, 1], y[:, 0])
            for k in kernel_of(architecture)(x, y)
        )

    whole = find_symmetry(kernel_of(architecture), 8, 2)
    broken = find_symmetry(kernel, 8, 2)
    assert (len(whole.flips), len(broken.flips)) == (4, 2)
    assert "column permutations" in whole.names
    assert "column permutations" not in broken.names
    x = np.asarray(boolean.cube(8), np.float64)
    for spectrum, matrix in zip(cube_spectrum(kernel, 8, 2), kernel(x, x), strict=True):
        dense = np.linalg.eigvalsh(matrix / 2**8)[::-1]
        np.testing.assert_allclose(
            np.repeat(spectrum.eigenvalues, spectrum.multiplicity), dense, atol=1e-13 * dense[0]
        )


def test_walsh_row_against_the_series():
    architecture, d = Architecture(mlp="relu", depth=2), 10
    x = np.asarray(boolean.cube(d), np.float64)
    spectra = dot_product_spectrum(architecture, d)
    blocks = architecture_spectrum(architecture, d)
    for row, series, block in zip(kernel_of(architecture)(x[:1], x), spectra, blocks, strict=True):
        by_set = series.eigenvalues[boolean.set_sizes(d)]
        top = by_set.max()
        # Values of K carry 1e-16; the transform of a row cannot do better than that of the top.
        np.testing.assert_allclose(walsh_eigenvalues(row[0]), by_set, rtol=0, atol=1e-14 * top)
        np.testing.assert_allclose(block.forms, by_set, rtol=0, atol=1e-14 * top)
        assert len(block.eigenvalues) == d + 1
        np.testing.assert_allclose(
            np.sort(block.multiplicity), np.sort([math.comb(d, k) for k in range(d + 1)])
        )


def test_rows_are_the_kernel():
    d = 6
    for architecture in (
        Architecture(tokens=3, mlp="relu", readout="mean"),
        Architecture(tokens=3, mlp="relu", readout="last"),
    ):
        kernel = kernel_of(architecture)
        symmetry = find_symmetry(kernel, d, architecture.tokens)
        rows = kernel_rows(kernel, symmetry)
        x = np.asarray(boolean.cube(d), np.float64)
        direct = np.stack(kernel(x[symmetry.representatives], x))
        ours = np.stack([rows.read(a, np.arange(2**d)) for a in range(len(rows.moves))], 1)
        np.testing.assert_allclose(ours, direct, rtol=1e-12)
        if architecture.readout == "mean":  # token permutations connect points
            assert len(rows.owners) < len(rows.moves)
        assert quadratic_forms(rows).shape == (2, 2**d)


def test_index_arithmetic():
    d = 5
    x = points(np.arange(2**d), d)
    np.testing.assert_array_equal(x, boolean.cube(d))
    g = (2, 0, 1, 4, 3)
    np.testing.assert_array_equal(points(permute(np.arange(2**d), g), d), x[:, g])
    np.testing.assert_array_equal(span([4, 2, 1]), np.arange(8))


@pytest.mark.slow
def test_fourteen_bits():
    spectrum, _ = architecture_spectrum(Architecture(tokens=2, mlp="relu", depth=2), 14)
    total = np.dot(spectrum.eigenvalues, spectrum.multiplicity)
    assert spectrum.multiplicity.sum() == 2**14
    assert total == pytest.approx(spectrum.variance.sum(), rel=1e-12)
    assert len(spectrum.eigenvalues) <= 8 * 2**7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: architecture_spectrum(Architecture(tokens=3), 8), "d = 8"),
        (lambda: cube_spectrum(kernel_of(Architecture()), 23, 1), r"1\.\.22, got 23"),
        (lambda: cube_spectrum(kernel_of(Architecture()), 4, 3), "divide d = 4, got 3"),
        (
            lambda: cube_spectrum(lambda x, y: (x @ np.triu(np.ones((4, 4))) @ y.T,), 4, 1),
            "differs",
        ),
        (lambda: cube_spectrum(lambda x, y: (np.nan * x @ y.T,), 4, 1), "not finite"),
        (
            lambda: cube_spectrum(
                lambda x, y: ((x @ np.arange(1.0, 16))[:, None] * (y @ np.arange(1, 16)),), 15, 1
            ),
            r"blocks of size 16384 .* 8 GiB",
        ),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
