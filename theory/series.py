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
from .power_series import BITS, NEVER, Series, dual_series, number, times
from .reference import DIGITS, digits, dual

HEAD = 64  # coefficients computed as integers with BITS fractional bits
MAX_TERMS = 2**18
MOST_DIGITS = 4000


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
        value, slope = dual_series(architecture.mlp, k, q)
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


def _variable(n: int, radius: Any, exact: bool) -> Series:
    a = np.array([0] * n, object) if exact else np.zeros(n)
    a[1] = number(1, a)
    return Series(times(radius, a), NEVER, 1, mpmath.mpf(0), mpmath.mpf(1))


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


def _finish(head: Series, body: Series, radius: float, plus: Any, minus: Any) -> Taylor | None:
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
