r"""Spectra of dot-product kernels by other roads: one exact, two that float64 ruins.

For a kernel Psi(<x, y>/d) with values psi_i at Hamming distance i (c_i = 1 - 2i/d),

    2^d C(d, k) mu_k = sum_i C(d, i) psi_i [z^k] (1 - z)^i (1 + z)^(d-i)        (Krawtchouk)
    2^d mu_k = [(1 - E)^k (1 + E)^(d-k) psi]_0,  E psi_i = psi_{i+1}            (differences)

Both cancel: mu_k can be 2^-d of the terms. In exact integers with d + 128 fractional bits they are
the witness of `theory.dot_product`; in float64 they are right for a few degrees only.
"""

from __future__ import annotations

import math

import mpmath
import numpy as np
from jaxtyping import Float64

from .architecture import Architecture
from .series import propagate

GUARD_BITS = 128


def kernel_values(architecture: Architecture, d: int, bits: int) -> tuple[list, list]:
    """CK and NTK at c_i = 1 - 2i/d for i = 0..d, as mpmath numbers of that many bits."""
    with mpmath.workprec(bits):
        points = [mpmath.mpf(d - 2 * i) / d for i in range(d + 1)]
        values = [propagate(architecture, c) for c in points]
    return [ck for ck, _ in values], [ntk for _, ntk in values]


def exact_spectrum(values: list, d: int, bits: int) -> list[mpmath.mpf]:
    """mu_0..mu_d from kernel values, in integers of `bits` fractional bits (Krawtchouk form).

    The error of each mu_k is below 2^-bits: relative to mu_k >= 2^-d / poly(d) about 2^-GUARD_BITS
    for bits = d + GUARD_BITS, and a structural zero comes out below 2^-bits.
    """
    with mpmath.workprec(bits + 64):
        fixed = [int(mpmath.nint(mpmath.ldexp(value, bits))) for value in values]
    # Horner's rule in both factors: P <- P (1 + z) + g_i (1 - z)^i.
    result = np.array([fixed[0]], object)
    power = np.array([1], object)
    binomial = 1
    for i in range(1, d + 1):
        binomial = binomial * (d - i + 1) // i
        power = np.append(power, 0) - np.append(0, power)
        result = np.append(result, 0) + np.append(0, result) + binomial * fixed[i] * power
    with mpmath.workprec(bits):
        return [
            mpmath.ldexp(mpmath.mpf(int(result[k])) / math.comb(d, k), -bits - d)
            for k in range(d + 1)
        ]


def exact_eigenvalues(
    architecture: Architecture, d: int, *, bits: int | None = None
) -> tuple[list, list]:
    """Exact mu_k of the CK and of the NTK of a T = 1 network; seconds at d = 1024.

    `bits` defaults to d + GUARD_BITS, enough for ReLU, where mu_k >= 2^-d / poly(d). Taylor
    coefficients that fall like R^-j (erf, GELU) push mu_d down to (e R)^-d: give 3 d + GUARD_BITS.
    """
    bits = d + GUARD_BITS if bits is None else bits
    ck, ntk = kernel_values(architecture, d, bits + 64)
    return exact_spectrum(ck, d, bits), exact_spectrum(ntk, d, bits)


def krawtchouk_float(values: Float64[np.ndarray, " d+1"]) -> Float64[np.ndarray, " d+1"]:
    """mu_k by the Krawtchouk sum in float64: all digits cancel at high degree."""
    d = len(values) - 1
    i = np.arange(d + 1)
    # K_k(i) / C(d, k), by the three-term recurrence in k, against binomial weights.
    weight = np.exp(
        [math.lgamma(d + 1) - math.lgamma(j + 1) - math.lgamma(d - j + 1) for j in range(d + 1)]
        - d * np.log(2)
    )
    c = 1 - 2 * i / d
    previous, current = np.ones(d + 1), c
    out = [np.sum(weight * values), np.sum(weight * values * c)]
    for k in range(1, d):
        previous, current = current, (d * c * current - k * previous) / (d - k)
        out.append(np.sum(weight * values * current))
    return np.array(out[: d + 1])


def differences_float(values: Float64[np.ndarray, " d+1"]) -> Float64[np.ndarray, " d+1"]:
    """mu_k by halved finite differences in float64: the same cancellation, without overflow."""
    d = len(values) - 1
    out = np.empty(d + 1)
    rest = np.array(values, np.float64)  # ((1 - E)/2)^k psi
    for k in range(d + 1):
        row = rest
        for _ in range(d - k):
            row = (row[:-1] + row[1:]) / 2
        out[k] = row[0]
        rest = (rest[:-1] - rest[1:]) / 2
    return out
