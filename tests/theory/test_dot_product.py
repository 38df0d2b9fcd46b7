"""Every degree of a dot-product kernel against exact arithmetic, recursion and brute force."""

import math

import mpmath
import numpy as np
import pytest

from jaxsens import boolean
from theory import exact
from theory.architecture import Architecture
from theory.dot_product import dot_product_spectrum, ehrenfest, mixing_terms
from theory.power_series import truncated_product
from theory.recursion import ck_ntk
from theory.series import Taylor, propagate, taylor

MLP2 = Architecture(attention="none", mlp="relu", depth=2, embedding=False)
MLP4 = Architecture(attention="none", mlp="relu", depth=4, embedding=False)
ATTENTION = Architecture(mlp="relu", embedding=False)
ARCHITECTURES = [
    MLP2,
    MLP4,
    ATTENTION,
    Architecture(depth=3),
    Architecture(depth=2, mlp="relu", bias=0.1, residual=True, layer_norm="pre"),
    Architecture(depth=2, mlp="relu", positions=0.5, layer_norm="post"),
    Architecture(attention="none", mlp="erf", depth=2, bias=0.3),
    Architecture(mlp="erf", residual=True, layer_norm="pre", bias=2.0),
    Architecture(attention="none", mlp="gelu", depth=2, embedding=False),
    Architecture(mlp="gelu", depth=2, bias=3.0),  # a variance far above 1
    Architecture(mlp="relu", depth=6, bias=0.1),  # constant to 1e-9 and less
]


def worst_error(spectrum, witness, bits):
    """Largest relative error; a structural zero must be exactly 0 and the witness under 2^-bits."""
    worst = 0.0
    with mpmath.workprec(bits):
        for mantissa, exponent, value in zip(
            spectrum.mantissa.tolist(), spectrum.exponent.tolist(), witness, strict=True
        ):
            if mantissa == 0:
                assert abs(value) < mpmath.ldexp(1, 8 - bits)
            else:
                ours = mpmath.ldexp(mpmath.mpf(mantissa), exponent)
                worst = max(worst, float(abs(ours / value - 1)))
    return worst


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_layers_are_those_of_the_recursion(architecture):
    d = 8
    x = np.asarray(boolean.cube(d), np.float64)
    c = x[[2**i - 1 for i in range(d + 1)]] @ x[0] / d
    ck, ntk = ck_ntk(architecture, x[:1], x[[2**i - 1 for i in range(d + 1)]])
    with mpmath.workdps(50):
        ours = np.array(
            [[float(v) for v in propagate(architecture, mpmath.mpf(float(v)))] for v in c]
        ).T
    # Rounding of the float64 recursion; its NTK snaps correlations within 1e-12 of 1, which the
    # network that is constant to 1e-13 has.
    np.testing.assert_allclose(ours[0], ck[0], rtol=1e-14, atol=1e-15 * ck.max())
    np.testing.assert_allclose(ours[1], ntk[0], rtol=5e-12, atol=1e-13 * ntk.max())


@pytest.mark.parametrize("d", [1, 2, 7, 48])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_every_degree_against_exact_arithmetic(architecture, d):
    bits = 3 * d + 400  # erf and GELU eigenvalues fall to (e R)^-d
    witness = exact.exact_eigenvalues(architecture, d, bits=bits)
    for spectrum, values in zip(dot_product_spectrum(architecture, d), witness, strict=True):
        # A few hundred roundings of 1e-16, all of one sign at worst.
        assert worst_error(spectrum, values, bits) < 1e-13
        total = sum(math.comb(d, k) * values[k] for k in range(d + 1))
        assert spectrum.variance.sum() == pytest.approx(float(total), rel=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [MLP2, MLP4, ATTENTION], ids=str)
def test_a_thousand_dimensions(architecture):
    d = 1024
    witness = exact.exact_eigenvalues(architecture, d)
    spectra = dot_product_spectrum(architecture, d)
    for spectrum, values in zip(spectra, witness, strict=True):
        assert worst_error(spectrum, values, d + exact.GUARD_BITS) < 1e-11
        # Odd degrees beyond those of K³ are absent behind one attention layer and one ReLU.
        zeros = [k for k in range(5, d, 2)] if architecture is ATTENTION else []
        np.testing.assert_array_equal(np.flatnonzero(spectrum.mantissa == 0), zeros)


def test_eigenvalues_of_the_whole_matrix():
    d = 6
    x = np.asarray(boolean.cube(d))
    for spectrum, kernel in zip(dot_product_spectrum(MLP2, d), ck_ntk(MLP2, x, x), strict=True):
        expected = np.sort(np.repeat(spectrum.eigenvalues, [math.comb(d, k) for k in range(d + 1)]))
        np.testing.assert_allclose(
            np.linalg.eigvalsh(kernel / 2**d), expected, atol=1e-14 * expected[-1]
        )


def test_ehrenfest_transform_of_a_power_is_its_moment():
    # mu_k of c^j by enumeration: E[c^j chi_U].
    d, j = 5, 7
    a = np.zeros(mixing_terms(d) + 1)
    a[j] = 1.0
    spectrum = ehrenfest(Taylor(a, 1.0, (0.0, 0.0)), d)
    x = np.asarray(boolean.cube(d), np.float64)
    expected = [np.mean(x.mean(1) ** j * x[:, :k].prod(1)) for k in range(d + 1)]
    np.testing.assert_allclose(spectrum.eigenvalues, expected, rtol=1e-14, atol=1e-17)
    assert not spectrum.mantissa[::2].any()


def test_remainder_stands_for_the_terms_left_out():
    # c^j for an even j far beyond the mixing time equals its stationary value 2^(1-d).
    d = 6
    short = np.zeros(mixing_terms(d) + 1)
    long = np.zeros(4 * mixing_terms(d) + 1)
    long[4 * mixing_terms(d)] = 1.0
    tail = ehrenfest(Taylor(short, 1.0, (1.0, 0.0)), d)
    full = ehrenfest(Taylor(long, 1.0, (0.0, 0.0)), d)
    np.testing.assert_allclose(tail.eigenvalues, full.eigenvalues, rtol=2e-13)
    np.testing.assert_array_equal(tail.eigenvalues, [2.0 ** (1 - d), 0] * (d // 2) + [2 ** (1 - d)])


def test_four_thousand_dimensions_stay_in_range():
    # A linear network is Psi(c) = c + c³ up to constants: mu by hand, where 2^-d has underflowed.
    d = 4096
    a = np.zeros(mixing_terms(d) + 1)
    a[1], a[3] = 1.0, 1.0
    spectrum = ehrenfest(Taylor(a, 1.0, (0.5, 0.0)), d)
    first = 1 / d + (3 * d - 2) / d**3
    np.testing.assert_allclose(
        spectrum.mantissa[[1, 3]] * 2.0 ** spectrum.exponent[[1, 3]], [first, 6 / d**3]
    )
    np.testing.assert_allclose(spectrum.log_eigenvalues[0::2], -d * math.log(2), rtol=1e-15)
    assert spectrum.eigenvalues[d] == 0 < spectrum.mantissa[d]
    assert np.all(spectrum.mantissa[5::2] == 0)


@pytest.mark.parametrize("n", [5, 2**13 + 3])
def test_truncated_product(n):
    u, v = np.random.default_rng(n).random((2, n))
    np.testing.assert_allclose(truncated_product(u, v), np.convolve(u, v)[:n], rtol=1e-12)


def test_naive_methods_are_right_only_where_nothing_cancels():
    d = 64
    values = np.array([float(v) for v in exact.kernel_values(MLP2, d, 200)[1]])
    truth = dot_product_spectrum(MLP2, d)[1].eigenvalues
    for naive in (exact.krawtchouk_float, exact.differences_float):
        error = np.abs(naive(values) / truth - 1)
        assert error[:6].max() < 1e-6
        assert error.max() > 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dot_product_spectrum(Architecture(tokens=2), 4), "tokens = 1, got 2"),
        (lambda: taylor(Architecture(tokens=2), 10), "tokens = 1, got 2"),
        (lambda: dot_product_spectrum(MLP2, 0), r"1\.\.4096, got 0"),
        (lambda: dot_product_spectrum(MLP2, 5000), r"1\.\.4096, got 5000"),
        (lambda: ehrenfest(Taylor(np.ones(9), 1.0, (0.0, 0.0)), 9), "needs 145 terms .* got 8"),
        (lambda: ehrenfest(Taylor(-np.ones(99), 1.0, (0.0, 0.0)), 2), ">= 0"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
