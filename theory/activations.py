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

All three can be computed from the correlation r and one number for each side, u = 1 / (1 + kappa a)
in (0, 1] (kappa = 2 for erf, 1 for GELU; ReLU needs none), so that no variance is too large or too
small. With t² = (1 - u_a)(1 - u_b) and w = 1 - t² r²,

    erf:   value = (4/pi) sqrt(a b u_a u_b) r asin(t r) / (t r),
           derivative = (4/pi) sqrt(u_a u_b / w)
    GELU:  s = u_a + u_b,  value = sqrt(a b) [r q + t (1 - r² + r² s) / (2 pi sqrt(w))],
           derivative = q + t r (s + u_a u_b / w) / (2 pi sqrt(w)),

where w = u_a + u_b - u_a u_b + t² (1-r)(1+r) loses no digits.

Why the correlation is snapped to ±1 within 1e-12: the ReLU derivative has a square-root
singularity there, arccos(1 - e) ~ sqrt(2 e), so rounding r by 1e-16 moves it by 1e-8, and x with
itself would not get the exact value 1/2. Rounding in r grows with depth but stays far under 1e-12,
and distinct correlations on the cube lie far further than 1e-12 from ±1. Without the snap an NTK is
right to about 1e-8 only, at coincident (or opposite) tokens; neural-tangents does not snap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SNAP = 1e-12
_TINY = 1e-300  # in place of 0 where 0 / 0 would be asked for: the limits are finite

# value and derivative, both divided by sqrt(factor_a factor_b), from r, u_a, u_b.
_Pair = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Activation:
    """E[phi phi] and E[phi' phi'], from (c, a, b) or in the normalised form described above.

    `pair(r, u_a, u_b)` gives E[phi(u) phi(v)] / sqrt(a b F) and E[phi'(u) phi'(v)] / sqrt(F), where
    F = u_a u_b if `saturates` (erf, whose value stays bounded as a grows) and 1 otherwise.
    """

    kappa: float
    saturates: bool
    pair: _Pair

    def log_u(self, log_variance: np.ndarray) -> np.ndarray:
        """log u of a variance given by its logarithm, which may be of any size."""
        if not self.kappa:
            return np.zeros_like(log_variance)
        return -np.logaddexp(0.0, math.log(self.kappa) + log_variance)

    def gain(self, u: np.ndarray) -> np.ndarray:
        """E[phi(z)²] / a, divided by u if `saturates`."""
        return self.pair(np.ones_like(u), u, u)[0]

    def value(self, c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """E[phi(u) phi(v)] at covariance c and variances a, b > 0 (broadcast)."""
        return np.sqrt(a * b) * self._plain(0, c, a, b)

    def derivative(self, c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """E[phi'(u) phi'(v)] at covariance c and variances a, b > 0 (broadcast)."""
        return self._plain(1, c, a, b)

    def _plain(self, which: int, c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        u, v = 1 / (1 + self.kappa * np.asarray(a)), 1 / (1 + self.kappa * np.asarray(b))
        out = self.pair(np.asarray(c / np.sqrt(a * b)), u, v)[which]
        return np.sqrt(u * v) * out if self.saturates else out


def snap(r: np.ndarray, within: float = SNAP) -> np.ndarray:
    """Correlations, with what is that close to ±1 (or beyond) put there."""
    return np.where(np.abs(r) > 1 - within, np.sign(r), r)


def _relu(r: np.ndarray, _: np.ndarray, __: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r = snap(r)
    angle = np.pi - np.arccos(r)
    return (np.sqrt((1 - r) * (1 + r)) + r * angle) / (2 * np.pi), angle / (2 * np.pi)


def _shared(
    r: np.ndarray, u: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """t r, w and its root."""
    r = snap(r)
    square = (1 - u) * (1 - v)
    w = np.maximum(u + v - u * v + square * ((1 - r) * (1 + r)), _TINY)
    return np.sqrt(square) * r, w, np.sqrt(w)


def _erf(r: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z, _, root = _shared(r, u, v)
    # arctan2 of the two legs: arcsin alone loses half the digits near ±1, at large variances.
    small = np.abs(z) < 1e-8
    ratio = np.where(small, 1.0, np.arctan2(z, root) / np.where(small, 1.0, z))
    return (4 / np.pi) * r * ratio, (4 / np.pi) / root


def _gelu(r: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z, w, root = _shared(r, u, v)
    q = 0.25 + np.arctan2(z, root) / (2 * np.pi)
    s = u + v
    t = np.sqrt((1 - u) * (1 - v))
    value = r * q + t * ((1 - r) * (1 + r) + r**2 * s) / (2 * np.pi * root)
    return value, q + z * (s + u * v / w) / (2 * np.pi * root)


ACTIVATIONS = {
    "relu": Activation(0.0, False, _relu),
    "erf": Activation(2.0, True, _erf),
    "gelu": Activation(1.0, False, _gelu),
}
