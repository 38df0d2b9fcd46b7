"""Truncated power series with coefficients >= 0: products, inverse roots, dual activations.

Coefficients are float64, or integers with BITS fractional bits where digits must not be lost; the
constant term and the scale of the rest are mpmath numbers, so that no size overflows.
"""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np

from .reference import DIGITS, dual

BITS = 256  # fractional bits of coefficients kept as integers
_CHUNK = 2**13  # longer dot products would start BLAS threads, at a loss
NEVER, ALWAYS = -math.inf, math.inf  # support of a part that is absent, that never ends


class Series:
    """origin + scale * sum_{j>=1} a_j (c / radius)^j, and the last degree of either parity.

    `origin` and `scale` are mpmath numbers: they may be of any size, and where the origin is close
    to K(x, x), as in deep networks, their difference decides everything. a sums to 1 at c = 1.
    """

    def __init__(self, a: np.ndarray, even: float, odd: float, origin: Any, scale: Any):
        self.a, self.even, self.odd, self.origin, self.scale = a, even, odd, origin, scale

    def mixture(
        self, origin: Any, ends: tuple[float, float], *parts: tuple[Any, Any], top: Any = None
    ) -> Series:
        """origin + sum of weight * array, for weights >= 0; `top` is the value at c = 1, if known.

        Where the arrays are 1 at c = 1, so is the outcome, and powers of it stay within range.
        """
        scale = sum((weight for weight, _ in parts), mpmath.mpf(0))
        # Where the difference has no digits, its share is beyond any float and the sum will do.
        if top is not None and top - origin > top * mpmath.mpf(10) ** (DIGITS // 2 - mpmath.mp.dps):
            scale = top - origin
        a = 0 * self.a
        for weight, array in parts:
            if weight and scale:
                a = a + times(weight / scale, array)
        return Series(a, *ends, origin, scale)

    def __add__(self, other: Any) -> Series:
        if isinstance(other, Series):
            ends = max(self.even, other.even), max(self.odd, other.odd)
            parts = (self.scale, self.a), (other.scale, other.a)
            return self.mixture(self.origin + other.origin, ends, *parts)
        even = max(self.even, 0) if other else self.even
        return Series(self.a, even, self.odd, self.origin + other, self.scale)

    def __mul__(self, other: Any) -> Series:
        if isinstance(other, Series):
            ends = (
                max(_ends(self.even, other.even), _ends(self.odd, other.odd)),
                max(_ends(self.even, other.odd), _ends(self.odd, other.even)),
            )
            return self.mixture(
                self.origin * other.origin,
                ends,
                (self.origin * other.scale, other.a),
                (other.origin * self.scale, self.a),
                (self.scale * other.scale, truncated_product(self.a, other.a)),
            )
        if not other:
            return Series(0 * self.a, NEVER, NEVER, mpmath.mpf(0), mpmath.mpf(0))
        return Series(self.a, self.even, self.odd, self.origin * other, self.scale * other)

    __radd__, __rmul__ = __add__, __mul__


def _ends(a: float, b: float) -> float:
    # An absent part makes an absent product, also with a part that never ends.
    return NEVER if NEVER in (a, b) else a + b


def truncated_product(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The first len(u) coefficients of a product; direct sums, since an FFT loses small terms."""
    n = len(u)
    if u.dtype == object:
        return np.convolve(u, v)[:n] >> BITS
    out = 0 * u
    for start in range(0, n, _CHUNK):
        out[start:] += np.convolve(u[: n - start], v[start : start + _CHUNK])[: n - start]
    return out


def number(value: Any, like: np.ndarray) -> Any:
    """An mpmath number as an entry of such an array."""
    return int(mpmath.ldexp(value, BITS)) if like.dtype == object else float(value)


def times(value: Any, a: np.ndarray) -> np.ndarray:
    """An mpmath number times an array."""
    return number(value, a) * a >> BITS if a.dtype == object else float(value) * a


def _dot(u: np.ndarray, v: np.ndarray) -> Any:
    if u.dtype == object:
        return int(np.dot(u, v)) >> BITS
    return sum(np.dot(u[i : i + _CHUNK], v[i : i + _CHUNK]) for i in range(0, len(u), _CHUNK))


def _inverse_root(e: np.ndarray) -> np.ndarray:
    """(1 - e(c))^(-1/2), where e(0) = 0."""
    n = len(e)
    weighted = _over(e * np.arange(n), 2)
    # Stored backwards, so that the sums below run over contiguous memory.
    v, jv = np.zeros_like(e), np.zeros_like(e)
    v[-1] = number(1, e)
    for i in range(1, n):
        total = _dot(e[1 : i + 1], jv[n - i :]) + _dot(weighted[1 : i + 1], v[n - i :])
        v[n - 1 - i] = _over(total, i)
        jv[n - 1 - i] = total
    return v[::-1].copy()


def _over(a: Any, b: Any) -> Any:
    return a // b if isinstance(a, int) or a.dtype.kind == "O" else a / b


def _derivative(a: np.ndarray) -> np.ndarray:
    return np.concatenate([a[1:] * np.arange(1, len(a)), 0 * a[:1]])


def _integral(a: np.ndarray) -> np.ndarray:
    return np.concatenate([0 * a[:1], _over(a[:-1], np.arange(1, len(a)))])


def dual_series(name: str, k: Any, q: Any) -> tuple[Any, Any]:
    """E[phi(u) phi(v)] and E[phi'(u) phi'(v)] at variance q and covariance k, number or series."""
    if not isinstance(k, Series):
        return dual(name, k, q)
    origin, scale = k.origin, k.scale
    value0, slope0 = dual(name, origin, q)
    value1, slope1 = dual(name, q, q)
    reach = q + {"relu": 0, "erf": mpmath.mpf(1) / 2, "gelu": 1}[name]
    d0 = (reach - origin) * (reach + origin)
    square = truncated_product(k.a, k.a)
    # D = D_0 (1 - e) and V = D_0^(-1/2) v.
    v = _inverse_root(times(2 * origin * scale / d0, k.a) + times(scale**2 / d0, square))
    size = 1 / mpmath.sqrt(d0)
    prime = _derivative(k.a)
    if name == "erf":
        rest = v.copy()
        rest[0] = 0 * rest[0]
        slope_scale = 2 / mpmath.pi * size
    else:
        second, slope_scale = v, scale * size / (2 * mpmath.pi)
        if name == "gelu":
            m = reach / d0
            v2 = truncated_product(v, v)
            bracket = times(m / (1 + m), v2)
            bracket[0] += number(1 / (1 + m), v2)
            # K² / (1 + q)²
            k2 = times(2 * origin * scale / reach**2, k.a) + times((scale / reach) ** 2, square)
            k2[0] += number((origin / reach) ** 2, k2)
            inside = truncated_product(bracket, bracket)
            fourth = truncated_product(k2, truncated_product(v2, v2))
            inside = inside + times(2 * (m / (1 + m)) ** 2, fourth)
            second, slope_scale = truncated_product(v, inside), slope_scale * (1 + m) ** 2
        rest = _integral(truncated_product(second, prime))
    if k.even == NEVER:  # an odd argument: phi(z) - z/2 is even for ReLU and GELU, erf is odd
        value_ends, slope_ends = (
            ((NEVER, ALWAYS), (ALWAYS, NEVER)) if name == "erf" else ((ALWAYS, k.odd), (0, ALWAYS))
        )
    else:
        value_ends = slope_ends = (ALWAYS, ALWAYS)
    slope = k.mixture(slope0, slope_ends, (slope_scale, rest), top=slope1)
    value = k.mixture(
        value0,
        value_ends,
        (scale * slope0, k.a),
        (scale * slope_scale, _integral(truncated_product(rest, prime))),
        top=value1,
    )
    return value, slope
