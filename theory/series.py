r"""Kernels at T = 1 as power series in c = <x, y>/d, with no subtraction anywhere.

At T = 1 every layer keeps K and Theta functions of c alone, K(x, x) = q is the same at every input,
and all coefficients of both stay >= 0: sums and products keep that, and so do the activations.
With D = A² - K², where A = q for ReLU, q + 1/2 for erf and q + 1 for GELU, and K' = dK/dc,

    V = D^(-1/2):     n D_0 V_n = sum_{i=1..n} (n - i/2) (K²)_i V_{n-i},  all terms >= 0
    ReLU              slope' = V K' / (2 pi)
    erf               slope  = 2 V / pi
    GELU              slope' = [V (1 + (1 + q) V²)² + 2 K² V^5] K' / (2 pi)
    all (Price)       K_out' = slope K'
    attention         K_out = K³,  Theta_out = 4 K³ + 3 K² Theta

where slope = E[phi'(u) phi'(v)]. Constants of integration are the closed forms at c = 0. Nothing
cancels, so a coefficient is right to a relative error that grows only with rounding; truncating
after J terms leaves the terms kept untouched.

Past J only two numbers are needed (see `theory.dot_product`): the sums of the even and of the odd
coefficients left out, (Psi(1) ± Psi(-1))/2 less the terms kept. ReLU coefficients fall only as a
power of j, so these sums matter, and the first terms and Psi(±1) are taken with 40 digits to make
that one subtraction harmless. Where the series provably ends, its remainder is exactly 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from jaxtyping import Float64

from .architecture import Architecture

HEAD = 64  # coefficients computed with DIGITS digits
DIGITS = 40
MAX_TERMS = 2**18
_CHUNK = 2**13  # longer dot products would start BLAS threads, at a loss
NEVER, ALWAYS = -math.inf, math.inf  # support of a part that is absent, that never ends


@dataclass(frozen=True)
class Taylor:
    """Psi(c) = sum_j coefficients_j (c / radius)^j up to degree J, and what lies beyond.

    `remainder` = (sum over even j > J, sum over odd j > J) of the coefficients at radius 1. The
    rescaling keeps coefficients that fall geometrically (erf, GELU) inside the range of a float.
    """

    coefficients: Float64[np.ndarray, " J+1"]
    radius: float
    remainder: tuple[float, float]


class _Series:
    """Truncated power series, with the last degree of its even and of its odd part.

    `origin` is the constant term with DIGITS digits: where it is close to K(x, x), as in deep
    networks, their difference decides everything.
    """

    def __init__(self, a: np.ndarray, even: float, odd: float, origin: Any):
        self.a, self.even, self.odd, self.origin = a, even, odd, origin
        a[0] = self.cast(origin)

    def cast(self, value: Any) -> Any:
        return value if self.a.dtype == object else float(value)

    def __add__(self, other: Any) -> _Series:
        if isinstance(other, _Series):
            ends = max(self.even, other.even), max(self.odd, other.odd)
            return _Series(self.a + other.a, *ends, self.origin + other.origin)
        even = max(self.even, 0) if other else self.even
        return _Series(self.a.copy(), even, self.odd, self.origin + other)

    def __mul__(self, other: Any) -> _Series:
        if isinstance(other, _Series):
            ends = (
                max(self.even + other.even, self.odd + other.odd),
                max(self.even + other.odd, self.odd + other.even),
            )
            product = truncated_product(self.a, other.a)
            return _Series(product, *ends, self.origin * other.origin)
        if not other:
            return _Series(0 * self.a, NEVER, NEVER, mpmath.mpf(0))
        return _Series(self.a * self.cast(other), self.even, self.odd, self.origin * other)

    __radd__, __rmul__ = __add__, __mul__


def truncated_product(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The first len(u) coefficients of a product; direct sums, since an FFT loses small terms."""
    n = len(u)
    out = 0 * u
    for start in range(0, n, _CHUNK):
        out[start:] += np.convolve(u[: n - start], v[start : start + _CHUNK])[: n - start]
    return out


def _dot(u: np.ndarray, v: np.ndarray) -> Any:
    return sum(np.dot(u[i : i + _CHUNK], v[i : i + _CHUNK]) for i in range(0, len(u), _CHUNK))


def _inverse_root(square: np.ndarray, d0: Any) -> np.ndarray:
    """(d0 + s_0 - s(c))^(-1/2), where d0 > 0 is the value at c = 0."""
    n, root = len(square), mpmath.sqrt if square.dtype == object else math.sqrt
    weighted = square * np.arange(n) / 2
    # Stored backwards, so that the sums below run over contiguous memory.
    v, jv = np.zeros_like(square), np.zeros_like(square)
    v[-1] = 1 / root(d0)
    for i in range(1, n):
        total = _dot(square[1 : i + 1], jv[n - i :]) + _dot(weighted[1 : i + 1], v[n - i :])
        v[n - 1 - i] = total / (i * d0)
        jv[n - 1 - i] = i * v[n - 1 - i]
    return v[::-1].copy()


def _derivative(a: np.ndarray) -> np.ndarray:
    return np.concatenate([a[1:] * np.arange(1, len(a)), 0 * a[:1]])


def _integral(a: np.ndarray) -> np.ndarray:
    return np.concatenate([0 * a[:1], a[:-1] / np.arange(1, len(a))])


def dual(name: str, k: Any, q: Any) -> tuple[Any, Any]:
    """E[phi(u) phi(v)] and E[phi'(u) phi'(v)] at covariance k and variance q, in mpmath."""
    m, two_pi = mpmath, 2 * mpmath.pi
    if name == "relu":
        r = max(min(k / q, m.mpf(1)), m.mpf(-1))
        slope = (m.pi / 2 + m.asin(r)) / two_pi
        return q * m.sqrt((1 - r) * (1 + r)) / two_pi + k * slope, slope
    if name == "erf":
        return 2 / m.pi * m.asin(2 * k / (1 + 2 * q)), 4 / m.pi / m.sqrt(
            (1 + 2 * q - 2 * k) * (1 + 2 * q + 2 * k)
        )
    big = (1 + q - k) * (1 + q + k)
    quadrant = m.mpf(1) / 4 + m.asin(k / (1 + q)) / two_pi
    numerator = q**2 - k**2 + 2 * k**2 / (1 + q)
    slope = quadrant + k * (4 / (1 + q) - 1 + numerator / big) / (two_pi * m.sqrt(big))
    return k * quadrant + numerator / (two_pi * m.sqrt(big)), slope


def _activation(name: str, k: Any, q: Any) -> tuple[Any, Any]:
    if not isinstance(k, _Series):
        return dual(name, k, q)
    origin = k.origin
    value0, slope0 = dual(name, origin, q)
    reach = q + {"relu": 0, "erf": mpmath.mpf(1) / 2, "gelu": 1}[name]
    square = truncated_product(k.a, k.a)
    v = _inverse_root(square, k.cast((reach - origin) * (reach + origin)))
    prime = _derivative(k.a)
    two_pi = k.cast(2 * mpmath.pi)
    if name == "erf":
        slope = 4 * v / two_pi
    else:
        second = v / two_pi
        if name == "gelu":
            v2 = truncated_product(v, v)
            bracket = v2 * k.cast(1 + q)
            bracket[0] += 1
            inside = truncated_product(bracket, bracket)
            inside = inside + 2 * truncated_product(square, truncated_product(v2, v2))
            second = truncated_product(second, inside)
        slope = _integral(truncated_product(second, prime))
        slope[0] = k.cast(slope0)
    value = _integral(truncated_product(slope, prime))
    if k.even == NEVER:  # an odd argument: phi(z) - z/2 is even for ReLU and GELU, erf is odd
        value_ends, slope_ends = (
            ((NEVER, ALWAYS), (ALWAYS, NEVER)) if name == "erf" else ((ALWAYS, k.odd), (0, ALWAYS))
        )
    else:
        value_ends = slope_ends = (ALWAYS, ALWAYS)
    return _Series(value, *value_ends, value0), _Series(slope, *slope_ends, slope0)


def propagate(architecture: Architecture, c: Any) -> tuple[Any, Any]:
    """(CK, NTK) of a T = 1 network at c = <x, y>/d: an mpmath number or a truncated series.

    The same layers as `theory.recursion`. Raises ValueError for more than one token.
    """
    if architecture.tokens != 1:
        raise ValueError(
            f"a function of <x, y> alone is guaranteed at tokens = 1, got {architecture.tokens}; "
            "use theory.spectrum for the spectrum of any other architecture"
        )
    bias = mpmath.mpf(architecture.bias) ** 2
    positions = mpmath.mpf(architecture.positions) ** 2
    State = tuple[Any, Any, Any]  # K, Theta, and K(x, x)

    def dense(state: State) -> State:
        k, theta, q = state
        return k + bias, theta + (k + bias), q + bias

    def attention(state: State) -> State:
        k, theta, q = state
        square = k * k
        cube = square * k
        return cube, 4 * cube + 3 * (square * theta), q**3

    def activation(state: State) -> State:
        k, theta, q = state
        value, slope = _activation(architecture.mlp, k, q)
        return value, theta * slope, dual(architecture.mlp, q, q)[0]

    def normalise(state: State) -> State:
        return state[0] * (1 / state[2]), state[1] * (1 / state[2]), mpmath.mpf(1)

    def sublayer(state: State, inside: list[Callable[[State], State]]) -> State:
        out = state
        for layer in [*([normalise] if architecture.layer_norm == "pre" else []), *inside]:
            out = layer(out)
        if architecture.residual:
            out = tuple(a + b for a, b in zip(state, out, strict=True))
        return normalise(out) if architecture.layer_norm == "post" else out

    state: State = (c, 0 * c, mpmath.mpf(1))
    if architecture.embedding:
        state = dense(state)
    state = (state[0] + positions, state[1] + positions, state[2] + positions)
    for _ in range(architecture.depth):
        if architecture.attention == "linear":
            state = sublayer(state, [attention])
        if architecture.mlp != "none":
            closing = [] if architecture.plain_mlp else [dense]
            state = sublayer(state, [dense, activation, *closing])
    if architecture.layer_norm == "pre":
        state = normalise(state)
    k, theta, _ = dense(state)
    return k, theta


def _variable(n: int, radius: Any, exact: bool) -> _Series:
    a = np.array([mpmath.mpf(0)] * n, object) if exact else np.zeros(n)
    a[1] = mpmath.mpf(radius) if exact else float(radius)
    return _Series(a, NEVER, 1, mpmath.mpf(0))


def _radius(architecture: Architecture) -> float:
    """Where the series first diverges, c >= 1: a branch point D = 0 of some layer (found by
    bisection on the positive axis, where all coefficients are >= 0), or 1 for a polynomial."""
    if architecture.mlp in ("none", "relu"):
        return 1.0

    def regular(c: float) -> bool:
        try:
            k, theta = propagate(architecture, mpmath.mpf(c))
        except ZeroDivisionError:  # on the branch point itself
            return False
        return isinstance(k, mpmath.mpf) and isinstance(theta, mpmath.mpf)

    low, high = 1.0, 2.0
    while regular(high):
        low, high = high, 2 * high
    while high - low > 1e-13 * low:
        middle = (low + high) / 2
        low, high = (middle, high) if regular(middle) else (low, middle)
    return low


def taylor(architecture: Architecture, terms: int) -> tuple[Taylor, Taylor]:
    """Taylor series of the CK and of the NTK, at least up to c^`terms`.

    Cost: up to five products of `terms`²/2 multiplications per nonlinear layer (GELU: ten). More
    terms are taken when a slowly converging remainder asks for them, so that the relative error of
    each remainder against the last half of the terms stays below 1e-11.

    Raises ValueError for more than one token and for series too long to be worth it.
    """
    propagate(architecture, mpmath.mpf(0))  # refuses before any work
    n = max(terms + 1, 2 * HEAD)
    with mpmath.workdps(DIGITS):
        radius = _radius(architecture)
        ends = [propagate(architecture, mpmath.mpf(c)) for c in (1, -1)]
        heads = propagate(architecture, _variable(HEAD, radius, exact=True))
        while n <= MAX_TERMS:
            bodies = propagate(architecture, _variable(n, radius, exact=False))
            out = [
                _finish(head, body, radius, ends[0][i], ends[1][i])
                for i, (head, body) in enumerate(zip(heads, bodies, strict=True))
            ]
            if all(out):
                return out[0], out[1]
            n *= 2
    raise ValueError(f"the series of {architecture} needs more than {MAX_TERMS} terms")


def _finish(head: _Series, body: _Series, radius: float, plus: Any, minus: Any) -> Taylor | None:
    a = body.a.copy()
    a[:HEAD] = [float(value) for value in head.a]
    n = len(a)
    # At radius 1 again; far beyond the float range these vanish, and so does the remainder.
    unit = a * np.exp(-np.arange(n) * math.log(radius))
    remainder = []
    for sign, end in ((1, body.even), (-1, body.odd)):
        first = 0 if sign == 1 else 1
        if end < n or n / 2 * math.log(radius) > math.log(1e15):
            remainder.append(0.0)
            continue
        exact = (plus + sign * minus) / 2
        for j in range(first, HEAD, 2):
            exact -= head.a[j] / mpmath.mpf(radius) ** j
        middle = unit[HEAD + first :: 2]
        rest = float(exact) - math.fsum(middle)
        last = math.fsum(middle[len(middle) // 2 :])
        if np.finfo(float).eps * math.fsum(middle) > 1e-11 * (last + rest):
            return None
        remainder.append(rest)
    return Taylor(a, radius, (remainder[0], remainder[1]))
