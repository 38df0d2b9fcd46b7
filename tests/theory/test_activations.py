"""Gaussian expectations of activations against quadrature and high precision."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf

from theory.activations import ACTIVATIONS

CASES = [(0.3, 1.0, 1.0), (-0.8, 1.5, 0.7), (1.2, 1.1, 2.0), (0.0, 2.0, 0.3), (1.0, 1.0, 1.0)]


def hermite(f, c, a, b, nodes=120):
    """E[f(u) f(v)] by a product Gauss-Hermite rule: exact to rounding for entire functions."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    u = np.sqrt(a) * x[:, None]
    v = c / np.sqrt(a) * x[:, None] + np.sqrt(max(b - c * c / a, 0.0)) * x[None, :]
    return np.sum(w[:, None] * w[None, :] * f(u) * f(v))


def gelu(u):
    return u * (1 + erf(u / np.sqrt(2))) / 2


def gelu_slope(u):
    return (1 + erf(u / np.sqrt(2))) / 2 + u * np.exp(-u * u / 2) / np.sqrt(2 * np.pi)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("name", "f", "slope"),
    [
        ("erf", erf, lambda u: 2 / np.sqrt(np.pi) * np.exp(-u * u)),
        ("gelu", gelu, gelu_slope),
    ],
)
def test_smooth_activations_match_quadrature(name, f, slope, case):
    # 1e-9: the rule converges geometrically, slowest at the largest variance (2).
    phi = ACTIVATIONS[name]
    c, a, b = map(np.float64, case)
    np.testing.assert_allclose(phi.value(c, a, b), hermite(f, c, a, b), atol=1e-9)
    np.testing.assert_allclose(phi.derivative(c, a, b), hermite(slope, c, a, b), atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_relu_matches_an_integral_over_the_angle(case):
    # u = rho sqrt(a) cos t, v = rho sqrt(b) cos(t - t0), rho² exponential with mean 2.
    c, a, b = map(np.float64, case)
    t0 = np.arccos(np.clip(c / np.sqrt(a * b), -1, 1))
    t = (np.arange(200_000) + 0.5) / 200_000 * 2 * np.pi
    u, v = np.cos(t), np.cos(t - t0)
    phi = ACTIVATIONS["relu"]
    value = 2 * np.sqrt(a * b) * np.mean(np.maximum(u, 0) * np.maximum(v, 0))
    np.testing.assert_allclose(phi.value(c, a, b), value, atol=1e-9)
    # A mean of a 0/1 function on a grid of 200000 is right to 1e-5.
    np.testing.assert_allclose(phi.derivative(c, a, b), np.mean((u > 0) & (v > 0)), atol=2e-5)


def exact(name, c, a, b):
    """The formulas as they stand in the docstring, with 60 digits."""
    with mpmath.workdps(60):
        c, a, b = mpmath.mpf(c), mpmath.mpf(a), mpmath.mpf(b)
        if name == "erf":
            square = (1 + 2 * a) * (1 + 2 * b)
            value = 2 / mpmath.pi * mpmath.asin(2 * c / mpmath.sqrt(square))
            return value, 4 / mpmath.pi / mpmath.sqrt(square - 4 * c * c)
        if name == "relu":
            r = c / mpmath.sqrt(a * b)
            rest = mpmath.pi - mpmath.acos(r)
            value = mpmath.sqrt(a * b) * (mpmath.sqrt(1 - r * r) + r * rest) / (2 * mpmath.pi)
            return value, rest / (2 * mpmath.pi)
        square = (1 + a) * (1 + b)
        q = mpmath.mpf(1) / 4 + mpmath.asin(c / mpmath.sqrt(square)) / (2 * mpmath.pi)
        d, s = square - c * c, 1 / (1 + a) + 1 / (1 + b)
        n = a * b - c * c + c * c * s
        root = 2 * mpmath.pi * mpmath.sqrt(d)
        return c * q + n / root, q + c * (2 * s - 1 + n / d) / root


@pytest.mark.parametrize("name", ["relu", "erf", "gelu"])
@given(r=st.integers(-16, 16), log_a=st.integers(-10, 14), log_b=st.integers(-10, 14))
def test_no_digits_are_lost_at_any_variance(name, r, log_a, log_b):
    # Powers of four and multiples of 1/16 keep every input exact in binary.
    a, b = 4.0**log_a, 4.0**log_b
    c = r / 16 * 2.0 ** (log_a + log_b)
    value, slope = exact(name, c, a, b)
    phi = ACTIVATIONS[name]
    args = np.float64(c), np.float64(a), np.float64(b)
    scale = max(abs(float(value)), 1e-2 * np.sqrt(a * b) if name != "erf" else 1e-2 * abs(c))
    assert abs(float(phi.value(*args)) - float(value)) <= 1e-14 * scale + 1e-300
    assert abs(float(phi.derivative(*args)) - float(slope)) <= 1e-14


@pytest.mark.parametrize("sign", [1, -1])
def test_relu_correlation_is_snapped(sign):
    # Rounding alone leaves c / sqrt(a b) beside 1 here; unsnapped, arccos would give 2e-8.
    a = np.float64(0.1) + np.float64(0.2)
    c = sign * np.nextafter(a, 0)
    expected = 0.5 if sign == 1 else 0.0
    assert ACTIVATIONS["relu"].derivative(c, a, a) == expected


@given(c=st.floats(-0.95, 0.95), a=st.floats(1, 9), b=st.floats(1, 9))
@pytest.mark.parametrize("name", ["relu", "erf", "gelu"])
def test_derivative_is_the_derivative_in_c(name, c, a, b):
    phi, step = ACTIVATIONS[name], 1e-5
    args = np.float64(a), np.float64(b)
    difference = phi.value(np.float64(c + step), *args) - phi.value(np.float64(c - step), *args)
    # Central difference: error step² times a third derivative of order one, plus rounding/step.
    np.testing.assert_allclose(
        phi.derivative(np.float64(c), *args), difference / 2 / step, atol=1e-7
    )
