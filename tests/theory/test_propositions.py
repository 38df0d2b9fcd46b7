"""Verdicts on Propositions 3.1 and 3.2: hand-checkable cases, brute force, exhaustive search."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from jaxsens import boolean
from theory.architecture import Architecture
from theory.order import chain_violation, degree_violation
from theory.propositions import (
    check_average_sensitivity_bound,
    check_proposition_3_1,
    check_proposition_3_2,
)
from theory.recursion import ck_ntk
from theory.spectrum import architecture_spectrum
from theory.survivors import _correlation, _ranks, architecture_survivors, survivors

RAW = {"embedding": False}


def brute_force(matrix, d):
    """Spread, off-diagonal share and quadratic forms from the dense matrix, by the definitions."""
    x = np.asarray(boolean.cube(d), np.float64)
    bits = np.arange(2**d)[:, None] >> np.arange(d - 1, -1, -1) & 1
    walsh = np.stack([np.prod(np.where(u, x, 1), axis=1) for u in bits], axis=1)
    dots = x @ x.T
    spread = max(np.ptp(matrix[dots == c]) for c in np.unique(dots)) / np.abs(matrix).max()
    transformed = walsh.T @ matrix @ walsh / 4**d
    off = transformed - np.diag(np.diag(transformed))
    share = np.linalg.norm(off) / np.linalg.norm(transformed)
    return spread, share, np.diag(transformed)


@pytest.mark.parametrize(
    ("architecture", "d"),
    [
        (Architecture(mlp="relu", depth=2), 6),
        (Architecture(tokens=2, mlp="relu", readout="mean"), 6),
        (Architecture(tokens=3, mlp="relu", positions=0.5), 6),
        (Architecture(tokens=3, mlp="gelu", bias=0.4, readout="last"), 6),
    ],
    ids=str,
)
def test_verdict_against_brute_force(architecture, d):
    x = np.asarray(boolean.cube(d), np.float64)
    verdict = check_proposition_3_1(architecture, d)
    for part, matrix in zip((verdict.ck, verdict.ntk), ck_ntk(architecture, x, x), strict=True):
        spread, share, forms = brute_force(matrix, d)
        assert part.spread == pytest.approx(spread, abs=1e-13)
        assert part.off_diagonal == pytest.approx(share, abs=1e-13)
        (i, j), (k, m) = part.spread_pairs
        assert x[i] @ x[j] == x[k] @ x[m]
        found = (matrix[k, m] - matrix[i, j]) / np.abs(matrix).max()
        assert found == pytest.approx(spread, abs=1e-13)
        worst = max(
            (forms[u | 1 << a | 1 << b] - forms[u], -u)
            for u in range(2**d)
            for a, b in itertools.combinations(range(d), 2)
            if not u & (1 << a | 1 << b)
        )[0]
        if part.chain is None:
            assert worst < 1e-10 * forms.max()
        else:
            difference = part.chain.mu_larger - part.chain.mu_smaller
            assert difference == pytest.approx(worst, abs=1e-10 * forms.max())
            assert set(part.chain.smaller) < set(part.chain.larger)


def test_one_token_any_stack_holds():
    verdict = check_proposition_3_1(
        Architecture(depth=2, mlp="relu", bias=0.3, residual=True, layer_norm="pre"), 8
    )
    assert verdict.holds
    assert verdict.ck.degree is verdict.ntk.chain is None


def test_attention_on_two_tokens_by_hand():
    # K(1111, 1111) = 4, K(111-1, 111-1) = 2 though <x, x> = 4 in both.
    architecture = Architecture(tokens=2, **RAW)
    x = np.array([[1, 1, 1, 1], [1, 1, 1, -1.0]])
    np.testing.assert_allclose(np.diag(ck_ntk(architecture, x, x)[0]), [4, 2])
    verdict = check_proposition_3_1(architecture, 4)
    assert verdict.ck.spread == pytest.approx(0.5)
    assert not verdict.ck.function_of_dot_product
    assert not verdict.ck.walsh_diagonal
    assert verdict.ck.ordered
    # {2} and {1, 3, 4} mix: [[5/8, 1/8], [1/8, 1/8]] has eigenvalues (3 ± sqrt 5)/8.
    spectrum, _ = architecture_spectrum(architecture, 4)
    top, low = (3 + math.sqrt(5)) / 8, (3 - math.sqrt(5)) / 8
    nonzero = np.repeat(spectrum.eigenvalues, spectrum.multiplicity)[:8]
    np.testing.assert_allclose(nonzero, [top] * 4 + [low] * 4, rtol=1e-13)
    # Off-diagonal share: four pairs of 1/8 against 4 (25 + 1)/64 on the diagonal.
    share = math.sqrt(2 * 4 / 64 / (2 * 4 / 64 + 4 * 26 / 64))
    assert verdict.ck.off_diagonal == pytest.approx(share, rel=1e-13)


def test_a_relu_after_attention_breaks_the_order_by_hand():
    verdict = check_proposition_3_1(Architecture(tokens=2, mlp="relu", **RAW), 4)
    top = (1 / 2 + (1 - 2 * math.sqrt(2)) / (2 * math.pi)) / 4
    assert top == pytest.approx(0.05225, abs=1e-5)
    assert verdict.ck.chain.smaller in ((1, 3), (2, 4))
    assert verdict.ck.chain.larger == (1, 2, 3, 4)
    assert verdict.ck.chain.mu_smaller == 0
    assert verdict.ck.chain.mu_larger == pytest.approx(top, rel=1e-13)
    expected = [0.5615, 0.1563, 0.0227, 0.0313, 0.0522]
    np.testing.assert_allclose(verdict.ck.degree_averages, expected, atol=5e-5)
    assert verdict.ck.degree.smaller == (2,)
    assert "mu_{2} = 0.0227113 < mu_{4} = 0.0522492" in str(verdict.ck.degree)


def test_three_attention_layers_put_degree_five_above_three():
    verdict = check_proposition_3_1(Architecture(tokens=3, depth=3, **RAW), 6)
    averages = np.array(verdict.ck.degree_averages)
    np.testing.assert_allclose(averages[[3, 5]] / averages[1], [0.587, 0.960], atol=5e-4)
    assert (verdict.ck.degree.smaller, verdict.ck.degree.larger) == ((3,), (5,))


def test_last_token_breaks_the_chain_by_hand():
    verdict = check_proposition_3_1(Architecture(tokens=2, readout="last", **RAW), 4)
    assert verdict.ck.chain.mu_smaller == 0
    assert verdict.ck.chain.mu_larger == pytest.approx(1 / 4)
    assert verdict.ck.degree is None


def test_every_bit_a_token():
    flattened = Architecture(tokens=6, mlp="relu", **RAW)
    assert check_proposition_3_1(flattened, 6).holds
    last = check_proposition_3_1(
        Architecture(tokens=6, mlp="erf", positions=0.7, readout="last"), 6
    )
    assert last.ck.walsh_diagonal
    assert not last.ck.function_of_dot_product
    biased = check_proposition_3_1(Architecture(tokens=6, mlp="relu", bias=0.5), 6)
    assert not biased.ck.walsh_diagonal


def test_tokens_argument_overrides():
    verdict = check_proposition_3_1(Architecture(mlp="relu"), 4, 2)
    assert verdict.architecture.tokens == 2
    assert not verdict.holds


def test_violations_of_a_made_up_spectrum():
    d = 4
    forms = 0.5 ** boolean.set_sizes(d)
    assert chain_violation(forms, d) is None
    assert degree_violation(forms, d) is None
    forms[0b1011] = 0.75  # {1, 3, 4}
    worst = chain_violation(forms, d)
    assert worst.larger == (1, 3, 4)
    assert worst.excess == pytest.approx(0.25)
    assert degree_violation(forms, d) is None  # the average over triples is still below 1/2


def test_survivors():
    ck, ntk = architecture_survivors(Architecture(mlp="relu"), 8)
    assert ck.rank_correlation == ntk.rank_correlation == (pytest.approx(1), pytest.approx(1))
    spectrum, _ = architecture_spectrum(Architecture(tokens=2, mlp="relu", readout="mean"), 8)
    survived = survivors(spectrum)
    assert 0 < survived.rank_correlation[0] < 1
    x = np.asarray(boolean.cube(8), np.float64)
    _, _, forms = brute_force(
        ck_ntk(Architecture(tokens=2, mlp="relu", readout="mean"), x, x)[0], 8
    )
    degree = np.dot(boolean.set_sizes(8), forms) / forms.sum()
    assert survived.trace_weighted_degree == pytest.approx(degree, rel=1e-12)
    # Weights that are counts repeat an eigenvector; a cut leaves the small ones out.
    rng = np.random.default_rng(0)
    a, b, counts = rng.normal(size=20), rng.normal(size=20), rng.integers(1, 5, 20)
    np.testing.assert_array_equal(_ranks(counts.astype(float)), rankdata(counts))
    repeated = np.corrcoef(np.repeat(a, counts), np.repeat(b, counts))[0, 1]
    assert _correlation(a, b, counts.astype(float)) == pytest.approx(repeated)
    flat, _ = architecture_spectrum(Architecture(tokens=4, mlp="relu", bias=0.1), 8)
    whole, cut = survivors(flat), survivors(flat, cut=1e-2)
    assert cut.rank_correlation != whole.rank_correlation
    assert cut.trace_weighted_degree == whole.trace_weighted_degree
    assert np.isnan(survivors(flat, cut=1.0).rank_correlation).all()


tables = st.lists(st.sampled_from([-1, 1]), min_size=16, max_size=16).map(np.array)


@given(tables, st.floats(0, 1))
def test_proposition_3_2_against_enumeration(f, rho):
    verdict = check_proposition_3_2(f, rho)
    x = np.asarray(boolean.cube(4), np.float64)
    distance = (4 - x @ x.T) / 2
    joint = ((1 + rho) / 2) ** (4 - distance) * ((1 - rho) / 2) ** distance / 16
    assert verdict.probability == pytest.approx(joint[f[:, None] != f[None, :]].sum(), abs=1e-14)
    assert verdict.holds
    assert 0 <= verdict.tightness <= 1 + 1e-9 or verdict.bound < 1e-6


def test_proposition_3_2_on_every_function_of_three_bits():
    for values in itertools.product([1, -1], repeat=8):
        for rho in (0.0, 0.3, 0.9, 1.0):
            assert check_proposition_3_2(np.array(values), rho).holds


def test_proposition_3_2_is_attained():
    # A dictator has S_max = degree = 1: equality. Parity on d bits has exponent d against d².
    for rho in (0.1, 0.8):
        assert check_proposition_3_2(boolean.dictator(5), rho).tightness == pytest.approx(1)
        parity = check_proposition_3_2(boolean.parity(4), rho)
        assert parity.tightness == pytest.approx((1 - rho**4) / (1 - rho**16))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_proposition_3_1(Architecture(), 7, 2), "d = 7"),
        (lambda: check_proposition_3_1(Architecture(tokens=5, bias=1.0, mlp="relu"), 20), "GiB"),
        (lambda: check_proposition_3_2(np.array([1, 0]), 0.5), r"\+1 and -1, got 0"),
        (lambda: check_proposition_3_2(np.ones(4), -0.5), r"\[0, 1\], got -0.5"),
        (lambda: check_proposition_3_2(np.ones(4), math.nan), r"\[0, 1\], got nan"),
        (lambda: check_proposition_3_2(np.ones((2, 4)), 0.5), r"shape \(2, 4\)"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@given(tables, st.floats(0, 1))
def test_the_average_sensitivity_bounds_more_sharply(f, rho):
    sharp, loose = check_average_sensitivity_bound(f, rho), check_proposition_3_2(f, rho)
    flips = [f != f.reshape([2] * 4).take([1, 0], axis=i).reshape(-1) for i in range(4)]
    assert sharp.average_sensitivity == pytest.approx(np.mean(flips) * 4)
    assert sharp.probability == loose.probability
    assert sharp.holds
    assert sharp.bound <= loose.bound + 1e-15


def test_attention_then_layer_norm_by_hand():
    # d = 6, T = 2: <x, y> = 2 in both pairs, K = 1/27 and 1/3.
    architecture = Architecture(tokens=2, layer_norm="post", **RAW)
    x = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, -1.0]])
    y = np.array([[1, 1, -1, 1, 1, -1], [1, 1, -1, 1, 1, 1.0]])
    assert np.sum(x * y, axis=1).tolist() == [2, 2]
    np.testing.assert_allclose(np.diag(ck_ntk(architecture, x, y)[0]), [1 / 27, 1 / 3], rtol=1e-14)
