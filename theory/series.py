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
from .reference import DIGITS, digits, dual

HEAD = 64  # coefficients computed as integers with BITS fractional bits
BITS = 256
MAX_TERMS = 2**18
MOST_DIGITS = 4000
_CHUNK = 2**13  # longer dot products would start BLAS threads, at a loss
NEVER, ALWAYS = -math.inf, math.inf  # support of a part that is absent, that never ends


@dataclass(frozen=True)
class Taylor:
    """Psi(c) = constant 2^constant_exponent + 2^exponent sum_j coefficients_j (c / radius)^j.

    The sum goes to degree J; `remainder` = (sum over even j > J, sum over odd j > J) of the
    coefficients at radius 1. The rescaling by the radius keeps coefficients that fall geometrically
    (erf, GELU) inside the range of a float, the exponents keep networks of any depth there.
    """

    coefficients: Float64[np.ndarray, " J+1"]
    radius: float
    remainder: tuple[float, float]
    exponent: int = 0
    constant: float = 0.0
    constant_exponent: int = 0


class _Series:
    """origin + scale * sum_{j>=1} a_j (c / radius)^j, and the last degree of either parity.

    `origin` and `scale` are mpmath numbers: they may be of any size, and where the origin is close
    to K(x, x), as in deep networks, their difference decides everything. a sums to 1 at c = 1.
    """

    def __init__(self, a: np.ndarray, even: float, odd: float, origin: Any, scale: Any):
        self.a, self.even, self.odd, self.origin, self.scale = a, even, odd, origin, scale

    def mixture(
        self, origin: Any, ends: tuple[float, float], *parts: tuple[Any, Any], top: Any = None
    ) -> _Series:
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
        return _Series(a, *ends, origin, scale)

    def __add__(self, other: Any) -> _Series:
        if isinstance(other, _Series):
            ends = max(self.even, other.even), max(self.odd, other.odd)
            parts = (self.scale, self.a), (other.scale, other.a)
            return self.mixture(self.origin + other.origin, ends, *parts)
        even = max(self.even, 0) if other else self.even
        return _Series(self.a, even, self.odd, self.origin + other, self.scale)

    def __mul__(self, other: Any) -> _Series:
        if isinstance(other, _Series):
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
            return _Series(0 * self.a, NEVER, NEVER, mpmath.mpf(0), mpmath.mpf(0))
        return _Series(self.a, self.even, self.odd, self.origin * other, self.scale * other)

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


def _activation(name: str, k: Any, q: Any) -> tuple[Any, Any]:
    if not isinstance(k, _Series):
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
    a = np.array([0] * n, object) if exact else np.zeros(n)
    a[1] = number(1, a)
    return _Series(times(radius, a), NEVER, 1, mpmath.mpf(0), mpmath.mpf(1))


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
    n = max(terms + 1, 2 * HEAD)
    with mpmath.workdps(_precision(architecture)):
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


def _precision(architecture: Architecture) -> int:
    """Decimal digits in which K(x, y) differs from K(x, x) to DIGITS digits.

    A bias leaves little of what tells inputs apart, and less in every layer. ValueError where that
    takes more than MOST_DIGITS.
    """
    precision = digits(architecture)
    while precision <= MOST_DIGITS:
        with mpmath.workdps(precision):
            one, zero = (propagate(architecture, mpmath.mpf(c))[0] for c in (1, 0))
            if one - zero > one * mpmath.mpf(10) ** (DIGITS - precision):
                return precision
        precision *= 2
    raise ValueError(
        f"the kernels of {architecture} are constant to 10^-{MOST_DIGITS - DIGITS}: lower the "
        "depth, the bias or the positions"
    )


def _finish(head: _Series, body: _Series, radius: float, plus: Any, minus: Any) -> Taylor | None:
    a = body.a.copy()
    a[:HEAD] = [math.ldexp(value, -BITS) for value in head.a]
    n = len(a)
    # At radius 1 again; far beyond the float range these vanish, and so does the remainder.
    unit = a * np.exp(-np.arange(n) * math.log(radius))
    remainder = []
    for sign, end in ((1, body.even), (-1, body.odd)):
        first = 2 if sign == 1 else 1
        if not head.scale or end < n or n / 2 * math.log(radius) > math.log(1e15):
            remainder.append(0.0)
            continue
        exact = ((plus + sign * minus) / 2 - (head.origin if sign == 1 else 0)) / head.scale
        for j in range(first, HEAD, 2):
            exact -= mpmath.ldexp(head.a[j], -BITS) / mpmath.mpf(radius) ** j
        middle = unit[HEAD + first % 2 :: 2]
        rest = float(exact) - math.fsum(middle)
        last = math.fsum(middle[len(middle) // 2 :])
        if np.finfo(float).eps * math.fsum(middle) > 1e-11 * max(last + rest, 0.0):
            return None
        remainder.append(max(rest, 0.0) if rest > -1e-12 else rest)  # rounding of a sum near 1
    (scale, exponent), (constant, constant_exponent) = (
        mpmath.frexp(value) for value in (head.scale, head.origin)
    )
    return Taylor(
        a * float(scale),
        radius,
        (remainder[0] * float(scale), remainder[1] * float(scale)),
        int(exponent),
        float(constant),
        int(constant_exponent),
    )
