"""Orbits and blocks of columns against the dense cube, and identities that hold at any d."""

import math

import numpy as np
import pytest

from theory import columns
from theory.architecture import Architecture
from theory.column_blocks import column_spectrum, orbit_spectra
from theory.column_verdict import column_verdict, undecided_from
from theory.columns import compositions, cost, evaluate, krawtchouk, rank
from theory.dot_product import dot_product_spectrum
from theory.propositions import check_proposition_3_1
from theory.recursion import ck_ntk
from theory.spectrum import architecture_spectrum
from theory.symmetry import points

CASES = [
    (Architecture(tokens=2, mlp="relu"), 8),
    (
        Architecture(
            tokens=2,
            mlp="gelu",
            bias=0.3,
            positions=0.5,
            readout="last",
            residual=True,
            layer_norm="pre",
        ),
        6,
    ),
    (Architecture(tokens=2, mlp="erf", bias=0.2, readout="mean", depth=2), 10),
]


@pytest.mark.parametrize(("architecture", "d"), CASES, ids=str)
def test_spectrum_against_the_dense_cube(architecture, d):
    for ours, dense in zip(
        column_spectrum(architecture, d), architecture_spectrum(architecture, d), strict=True
    ):
        top = dense.eigenvalues[0]
        copies = ours.multiplicity.astype(int)
        np.testing.assert_allclose(
            np.sort(np.repeat(ours.eigenvalues, copies)),
            np.sort(np.repeat(dense.eigenvalues, dense.multiplicity)),
            rtol=0,
            atol=1e-13 * top,
        )
        np.testing.assert_allclose(ours.variance, dense.variance, rtol=0, atol=1e-12 * top)
        np.testing.assert_allclose(ours.weights.sum(1), 1, rtol=1e-12)
        # Eigenvectors, through K and K² summed by degree: neither depends on their choice.
        for power in (1, 2):
            sums = [(s.eigenvalues**power * s.multiplicity) @ s.weights for s in (ours, dense)]
            np.testing.assert_allclose(*sums, rtol=0, atol=1e-12 * sums[1].max())


@pytest.mark.parametrize(("architecture", "d"), CASES, ids=str)
def test_verdict_against_the_dense_cube(architecture, d):
    ours = column_verdict(architecture, evaluate(architecture, d))
    dense = check_proposition_3_1(architecture, d)
    for a, b in ((ours.ck, dense.ck), (ours.ntk, dense.ntk)):
        assert a.spread == pytest.approx(b.spread, rel=1e-12)
        assert a.off_diagonal == pytest.approx(b.off_diagonal, rel=1e-9, abs=1e-12)
        np.testing.assert_allclose(a.degree_averages, b.degree_averages, atol=1e-13)
        for part in ("chain", "degree"):
            u, v = getattr(a, part), getattr(b, part)
            assert (u is None) == (v is None)
            if u is not None:
                # Several sets tie: any of them is a witness.
                assert u.excess == pytest.approx(v.excess, rel=1e-9)
                assert len(u.smaller) == len(v.smaller)


def test_what_rounding_leaves_undecided_is_named():
    # ReLU without bias: odd degrees beyond 3 are zeros, and even ones sink below the tolerance.
    kernel = column_verdict(CASES[0][0], evaluate(CASES[0][0], 12)).ck
    assert undecided_from(kernel) == (None, 5)
    kernel = column_verdict(CASES[0][0], evaluate(CASES[0][0], 28)).ck
    even, odd = undecided_from(kernel)
    averages = np.array(kernel.degree_averages)
    assert odd == 5
    assert averages[even - 2] > 1e-10 * averages[0] >= np.abs(averages[[even, even + 2]]).max()


def test_the_witnesses_are_witnesses():
    """The pair of pairs and the chain, looked up on the cube itself."""
    architecture, d = Architecture(tokens=2, mlp="relu"), 12
    verdict = column_verdict(architecture, evaluate(architecture, d))
    x = points(np.arange(2**d), d)
    for kind, kernel in enumerate((verdict.ck, verdict.ntk)):
        pairs = np.array(kernel.spread_pairs)
        a, b = points(pairs[:, 0], d), points(pairs[:, 1], d)
        assert np.dot(a[0], b[0]) == np.dot(a[1], b[1])
        values = np.diag(ck_ntk(architecture, a, b)[kind])
        largest = ck_ntk(architecture, x[:1], x[:1])[kind][0, 0]  # all tokens agree
        assert values[1] - values[0] == pytest.approx(kernel.spread * largest, rel=1e-12)
        chain = kernel.chain
        assert set(chain.smaller) < set(chain.larger)
        assert len(chain.larger) == len(chain.smaller) + 2
        forms = architecture_spectrum(architecture, d)[kind].forms
        for members, value in ((chain.smaller, chain.mu_smaller), (chain.larger, chain.mu_larger)):
            index = sum(1 << (d - i) for i in members)
            assert forms[index] == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_traces_at_32_bits():
    """Sums over eigenvalues are sums over orbits that no transform has touched."""
    architecture, p = Architecture(tokens=2, mlp="relu", bias=0.1, positions=0.3), 16
    orbits = evaluate(architecture, 2 * p)
    assert orbits.values.shape[1] == math.comb(p + 7, 7)
    _, _, square = columns.mean_kernel(orbits)
    for spectrum, expected in zip(orbit_spectra(orbits), square, strict=True):
        assert spectrum.multiplicity.sum() == 2.0 ** (2 * p)
        assert spectrum.eigenvalues.min() > -1e-13 * spectrum.eigenvalues[0]
        assert spectrum.eigenvalues**2 @ spectrum.multiplicity == pytest.approx(expected, rel=1e-9)
        assert spectrum.eigenvalues @ spectrum.multiplicity == pytest.approx(
            spectrum.variance.sum(), rel=1e-9
        )
        # The same average over degrees, from eigenvectors and from quadratic forms.
        mean = (spectrum.eigenvalues * spectrum.multiplicity) @ spectrum.mean_degree
        assert mean / spectrum.variance.sum() == pytest.approx(
            spectrum.trace_weighted_degree, rel=1e-9
        )


def test_an_mlp_of_two_tokens_has_no_attention_to_mix_them():
    """Flattened without attention, K = mean_a Psi(<x_a, y_a> / p): functions of one token each."""
    architecture = Architecture(tokens=2, attention="none", mlp="erf")
    one_token = dot_product_spectrum(Architecture(attention="none", mlp="erf"), 15)
    for spectrum, token in zip(column_spectrum(architecture, 30), one_token, strict=True):
        # mu_0 of erf is 0, so each token keeps its own eigenfunctions, of odd degree.
        expected = np.zeros(31)
        expected[:16] = token.variance
        np.testing.assert_allclose(spectrum.variance, expected, rtol=0, atol=1e-13)
        expected = np.sort(token.eigenvalues)[::-1] / 2
        found = spectrum.eigenvalues[: 2 * 15]
        assert found[0] == pytest.approx(expected[0], rel=1e-12)


def test_index_arithmetic():
    for n in range(5):
        c = np.array(compositions(n))
        np.testing.assert_array_equal(rank(*c[:, 1:].T), np.arange(len(c)))
        assert len(c) == math.comb(n + 3, 3)
        np.testing.assert_allclose(krawtchouk(n) @ krawtchouk(n) * 2**n, np.eye(n + 1))


@pytest.mark.slow
def test_sixty_four_bits():
    architecture = Architecture(tokens=2, mlp="relu")
    for spectrum in column_spectrum(architecture, 64):
        assert spectrum.multiplicity.sum() == 2.0**64
        trace = spectrum.eigenvalues @ spectrum.multiplicity
        assert trace == pytest.approx(spectrum.variance.sum(), rel=1e-10)


@pytest.mark.parametrize(
    ("d", "tokens", "message"),
    [
        (66, 3, r"66 with 3 tokens has 4\.63e\+14 orbits"),
        (80, 2, "6.29e.07 orbits.* take d <= 72"),
        (9, 2, "multiple of tokens"),
        (8, 1, "multiple of tokens"),
    ],
)
def test_refusals_name_the_cost(d, tokens, message):
    with pytest.raises(ValueError, match=message) as caught:
        cost(d, tokens)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bias", [1e-7, 1e8])
def test_what_values_of_k_cannot_show_is_undecided(bias):
    architecture = Architecture(tokens=2, bias=bias)
    ours = column_verdict(architecture, evaluate(architecture, 6))
    dense = check_proposition_3_1(architecture, 6)
    assert (ours.ck.parts, ours.ntk.parts) == (dense.ck.parts, dense.ntk.parts)
    assert ours.status == dense.status
    assert ours.ck.parts[2:] == ("undecided", "undecided")
    larger = column_verdict(architecture, evaluate(architecture, 16))
    assert larger.ntk.parts[2:] == ("undecided", "undecided")
