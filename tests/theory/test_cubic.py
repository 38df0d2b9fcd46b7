"""Attention without MLP, any d and T: against the dense cube, the columns, and by hand."""

import math

import numpy as np
import pytest

from theory.architecture import Architecture
from theory.column_blocks import column_spectrum
from theory.cubic import cubic_spectrum
from theory.propositions import check_proposition_3_1
from theory.spectrum import architecture_spectrum


@pytest.mark.parametrize(
    ("architecture", "d"),
    [
        (Architecture(tokens=1, embedding=False), 5),
        (Architecture(tokens=2, embedding=False), 2),
        (Architecture(tokens=2, bias=0.3, positions=0.6, residual=True, readout="mean"), 8),
        (Architecture(tokens=3, positions=0.7, readout="last"), 9),
        (Architecture(tokens=3, bias=0.4), 9),
        (Architecture(tokens=4, bias=0.2, residual=True), 8),
        (Architecture(tokens=6, positions=1.0), 6),
    ],
    ids=str,
)
def test_against_the_dense_cube(architecture, d):
    verdict = check_proposition_3_1(architecture, d)
    for ours, dense, kernel in zip(
        cubic_spectrum(architecture, d),
        architecture_spectrum(architecture, d),
        (verdict.ck, verdict.ntk),
        strict=True,
    ):
        top = dense.eigenvalues[0]
        found = np.repeat(ours.eigenvalues, ours.multiplicity.astype(int))
        expected = np.sort(np.repeat(dense.eigenvalues, dense.multiplicity))[::-1]
        np.testing.assert_allclose(found, expected[: len(found)], rtol=0, atol=1e-13 * top)
        assert np.all(np.abs(expected[len(found) :]) < 1e-13 * top)
        np.testing.assert_allclose(
            ours.variance[: d + 1], dense.variance[:4], rtol=0, atol=1e-12 * top
        )
        for power in (1, 2):
            sums = [(s.eigenvalues**power * s.multiplicity) @ s.weights for s in (ours, dense)]
            np.testing.assert_allclose(
                sums[0][: d + 1], sums[1][:4], rtol=0, atol=1e-12 * sums[1].max()
            )
        assert ours.off_diagonal == pytest.approx(kernel.off_diagonal, abs=1e-7)
        chain = ours.chain_violation()
        assert (chain is None) == (kernel.chain is None)
        if chain is not None:
            assert chain[2] == pytest.approx(kernel.chain.excess, rel=1e-9)


def test_against_the_columns_at_24_bits():
    architecture = Architecture(tokens=2, bias=0.2, positions=0.5)
    for ours, blocks in zip(
        cubic_spectrum(architecture, 24), column_spectrum(architecture, 24), strict=True
    ):
        keep = blocks.eigenvalues > 1e-12 * blocks.eigenvalues[0]
        for power in (1, 2):
            assert ours.eigenvalues**power @ ours.multiplicity == pytest.approx(
                blocks.eigenvalues[keep] ** power @ blocks.multiplicity[keep], rel=1e-9
            )
        np.testing.assert_allclose(
            ours.variance, blocks.variance[:4], atol=1e-10 * blocks.variance.sum()
        )


@pytest.mark.parametrize("tokens", [2, 3, 5])
def test_first_degree_by_hand(tokens):
    """Raw tokens, U = {one bit of token 1}: mu_U = E[x_1c y_1c A_11 sum_ij A_ij²] / T.

    A_11 alone carries x_1c y_1c. A_ij² for (i, j) != (1, 1) is independent in the mean, 1/p; and
    E[x_1c y_1c A_11³] = (3 p - 2) / p³ counts the ways to leave column c once.
    """
    p = 50
    spectrum, _ = cubic_spectrum(Architecture(tokens=tokens, embedding=False), tokens * p)
    mu = (tokens**2 - 1) / p**2 + (3 * p - 2) / p**3
    assert spectrum.forms[(1,)] == pytest.approx(mu / tokens, rel=1e-12)


def test_the_trace_at_ten_thousand_bits():
    """E[K(x, x)] for raw tokens: E[S(x, x)] = T + T (T - 1) / p."""
    tokens, d = 4, 10_000
    ck, ntk = cubic_spectrum(Architecture(tokens=tokens, embedding=False), d)
    expected = tokens + tokens * (tokens - 1) / (d // tokens)
    for spectrum, factor in ((ck, 1), (ntk, 5)):
        assert spectrum.eigenvalues @ spectrum.multiplicity == pytest.approx(
            factor * expected, rel=1e-12
        )
        assert spectrum.variance.sum() == pytest.approx(factor * expected, rel=1e-12)
        assert math.isfinite(spectrum.off_diagonal)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (Architecture(tokens=2, mlp="relu"), "only one linear attention layer"),
        (Architecture(tokens=2, depth=2), "only one linear attention layer"),
        (Architecture(tokens=2, layer_norm="post"), "only one linear attention layer"),
        (Architecture(tokens=9), "tokens must be <= 8"),
    ],
    ids=str,
)
def test_refusals(architecture, message):
    with pytest.raises(ValueError, match=message):
        cubic_spectrum(architecture, 18)
