r"""Gaussian expectations of activations: what one nonlinear layer does to a kernel.

For (u, v) Gaussian with mean 0, variances a, b and covariance c, `value` is E[phi(u) phi(v)] and
`derivative` is E[phi'(u) phi'(v)], which is d value / dc (Price's theorem). With r = c / sqrt(a b):

- ReLU (Cho & Saul 2009):  value = sqrt(a b) [sqrt(1-r²) + r (pi - arccos r)] / (2 pi),
  derivative = (pi - arccos r) / (2 pi).
- erf (Williams 1997):     value = (2/pi) arcsin(2c / sqrt((1+2a)(1+2b))),
  derivative = (4/pi) / sqrt((1+2a)(1+2b) - 4c²).
- GELU, phi(u) = u Pr[g <= u], exact and not its tanh approximation. With
  D = (1+a)(1+b) - c², s = 1/(1+a) + 1/(1+b), q = 1/4 + arcsin(c / sqrt((1+a)(1+b))) / (2 pi):
  value = c q + (a b - c² + c² s) / (2 pi sqrt(D)),
  derivative = q + c [2 s - 1 + (a b - c² + c² s) / D] / (2 pi sqrt(D)).
  Short proof: write phi(u) = E_g[u 1{u > g}]; Gaussian integration by parts on the left u of
  E[u v 1{u > g} 1{v > g'}] gives c q, with q the orthant probability of (u - g, v - g'), plus two
  terms with one indicator differentiated, which are the fraction. The derivative is d/dc.

Where variances are large, as after an attention layer on many tokens, these differences of large
numbers are evaluated through e = a b - c² = a b (1-r)(1+r), which loses no digits.

Why the correlation is snapped to ±1 within 1e-12: the ReLU derivative has a square-root
singularity there, arccos(1 - e) ~ sqrt(2 e), so rounding r by 1e-16 moves it by 1e-8, and x with
itself would not get the exact value 1/2. Rounding in r grows with depth but stays far under 1e-12,
and distinct correlations on the cube lie far further than 1e-12 from ±1. Without the snap an NTK is
right to about 1e-8 only, at coincident (or opposite) tokens; neural-tangents does not snap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SNAP = 1e-12

_Expectation = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Activation(NamedTuple):
    """E[phi phi] and E[phi' phi'] as functions of covariance c and variances a, b (broadcast)."""

    value: _Expectation
    derivative: _Expectation


def _correlation(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    r = c / np.sqrt(a * b)
    return np.where(np.abs(r) > 1 - SNAP, np.sign(r), r)


def _determinant(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a b - c², without cancellation near correlation ±1."""
    r = _correlation(c, a, b)
    return a * b * (1 - r) * (1 + r)


def _relu_value(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    r = _correlation(c, a, b)
    bracket = np.sqrt((1 - r) * (1 + r)) + r * (np.pi - np.arccos(r))
    return np.sqrt(a * b) * bracket / (2 * np.pi)


def _relu_derivative(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (np.pi - np.arccos(_correlation(c, a, b))) / (2 * np.pi)


def _erf_value(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # arctan2 of the two legs: arcsin alone loses half the digits near ±1, at large variances.
    root = np.sqrt(1 + 2 * a + 2 * b + 4 * _determinant(c, a, b))
    return (2 / np.pi) * np.arctan2(2 * c, root)


def _erf_derivative(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (4 / np.pi) / np.sqrt(1 + 2 * a + 2 * b + 4 * _determinant(c, a, b))


def _gelu_value(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    e = _determinant(c, a, b)
    root = np.sqrt(1 + a + b + e)
    q = 0.25 + np.arctan2(c, root) / (2 * np.pi)
    return c * q + (e + c**2 * (1 / (1 + a) + 1 / (1 + b))) / (2 * np.pi * root)


def _gelu_derivative(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    e = _determinant(c, a, b)
    d = 1 + a + b + e
    root = np.sqrt(d)
    q = 0.25 + np.arctan2(c, root) / (2 * np.pi)
    s = 1 / (1 + a) + 1 / (1 + b)
    # (a b - c² + c² s) - D, with c² = a b - e put in so that a + b cancels on paper.
    excess = -(1 + e * s + b / (1 + a) + a / (1 + b))
    return q + c * (2 * s + excess / d) / (2 * np.pi * root)


ACTIVATIONS = {
    "relu": Activation(_relu_value, _relu_derivative),
    "erf": Activation(_erf_value, _erf_derivative),
    "gelu": Activation(_gelu_value, _gelu_derivative),
}
