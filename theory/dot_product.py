r"""Every eigenvalue of a kernel Psi(<x, y>/d) on {±1}^d, at any d, to full relative accuracy.

The eigenfunctions are the Walsh functions and the eigenvalue of chi_U depends on k = |U| alone:
mu_k = E_x[chi_U(x) Psi(c(x))] with c = sum_i x_i / d. With Psi(c) = sum_j a_j c^j,

    mu_k = sum_j a_j M_{j,k},     M_{j,k} = E[c^j chi_U].

c^j is a mean over j coordinates i_1..i_j drawn independently, and E[x_{i_1} ... x_{i_j} chi_U] is 1
when exactly the coordinates in U were drawn an odd number of times: M_{j,k} is the probability that
the set of coordinates drawn an odd number of times is U. The last draw either left U without one of
its k members, or with one too many (Ehrenfest's urn):

    M_{j+1,k} = (k/d) M_{j,k-1} + ((d-k)/d) M_{j,k+1},     M_{0,k} = [k = 0].

With a_j >= 0 there is no subtraction. Each M_{j,k} is held as R 2^(e_k) with an integer e_k for
each k, since at d = 4096 they span thousands of binary orders of magnitude.

Truncation. By the spectral form of the urn, |2^(d-1) M_{j,k} - 1| <= exp(d e^(-2j/d)) - 1 when
j = k mod 2 (M_{j,k} = 0 otherwise). After J = (d/2) log(d / 1e-13) steps this is 1e-13, so all that
is left is 2^(1-d) times the sum of the coefficients of that parity beyond J, with relative error
below 1e-13 in every eigenvalue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from .architecture import Architecture
from .reference import PLAIN
from .series import Taylor, taylor

MIXED = 1e-13
MAX_DIMENSION = 4096
_BLOCK = 32  # steps between rescalings; a step changes a value by at most about d = 2^12


@dataclass(frozen=True)
class DegreeSpectrum:
    """Eigenvalues mu_k = mantissa_k 2^(exponent_k + shift), k = 0..d; mu_k belongs to C(d, k) sets.

    A structural zero has mantissa exactly 0. `shift` is 0 where the trace lies within 2^±500; deep
    attention leaves that range. `eigenvalues` and `variance` are in units of 2^shift;
    `eigenvalues` underflows where mu_k < 1e-308 (about 2^-d at k near d > 1000), `log_eigenvalues`
    and `variance` do not.
    """

    d: int
    mantissa: Float64[np.ndarray, " d+1"]
    exponent: Int64[np.ndarray, " d+1"]
    shift: int = 0

    @property
    def eigenvalues(self) -> Float64[np.ndarray, " d+1"]:
        """mu_k as plain floats, in units of 2^shift."""
        return np.ldexp(self.mantissa, np.maximum(self.exponent, -2000).astype(np.int32))

    @property
    def log_eigenvalues(self) -> Float64[np.ndarray, " d+1"]:
        """Natural logarithms; -inf for a structural zero."""
        with np.errstate(divide="ignore"):
            logs = np.log(self.mantissa) + self.exponent * math.log(2)
        return logs + float(self.shift) * math.log(2)

    @property
    def variance(self) -> Float64[np.ndarray, " d+1"]:
        """C(d, k) mu_k: what degree k contributes to the trace Psi(1) = E[f(x)^2], in 2^shift."""
        out = np.zeros(self.d + 1)
        count = 1
        for k in range(self.d + 1):
            shift = max(count.bit_length() - 64, 0)
            exponent = int(np.maximum(self.exponent[k] + shift, -2000))
            out[k] = math.ldexp(float(count >> shift) * self.mantissa[k], exponent)
            count = count * (self.d - k) // (k + 1)
        return out


def mixing_terms(d: int) -> int:
    """Steps after which every M_{j,k} is within 1e-13 of stationary, relatively."""
    return math.ceil(d / 2 * math.log(d / MIXED))


def dot_product_spectrum(
    architecture: Architecture, d: int
) -> tuple[DegreeSpectrum, DegreeSpectrum]:
    """Spectra of the CK and the NTK of a T = 1 network on {±1}^d, d <= 4096.

    Raises ValueError for more than one token, where the kernel is no function of <x, y> in general.
    """
    if isinstance(d, bool) or not isinstance(d, int) or not 1 <= d <= MAX_DIMENSION:
        raise ValueError(f"d must be an integer in 1..{MAX_DIMENSION}, got {d!r}")
    ck, ntk = taylor(architecture, mixing_terms(d))
    return ehrenfest(ck, d), ehrenfest(ntk, d)


def ehrenfest(series: Taylor, d: int) -> DegreeSpectrum:
    """sum_j a_j M_{j,k} for all k: d J multiplications and additions of numbers >= 0.

    `series` must reach at least `mixing_terms(d)`; ValueError otherwise, or for a coefficient < 0.
    """
    a = series.coefficients
    if len(a) <= mixing_terms(d):
        raise ValueError(f"d = {d} needs {mixing_terms(d)} terms of the series, got {len(a) - 1}")
    if not (np.all(a >= 0) and min(series.remainder) >= 0):
        raise ValueError("a kernel of x and y has Taylor coefficients >= 0 in <x, y>/d")
    urn = _Urn(d, series.radius)
    total, scale = np.zeros(d + 1), np.zeros(d + 1, np.int64)
    for start in range(0, len(a), _BLOCK):
        sums = urn.advance(a[start : start + _BLOCK])
        total, scale = _add(total, scale, sums, urn.exponent)
        urn.rescale()
    beyond = np.array(series.remainder)[np.arange(d + 1) % 2]
    total, scale = _add(total, scale, beyond, np.full(d + 1, 1 - d))
    # The constant belongs to degree 0 alone.
    sizes = [
        e for m, e in ((1.0, series.exponent), (series.constant, series.constant_exponent)) if m
    ]
    shift = 0 if abs(max(sizes)) <= PLAIN else max(sizes)
    constant, place = np.zeros(d + 1), np.zeros(d + 1, np.int64)
    constant[0], place[0] = series.constant, max(series.constant_exponent - shift, -(2**40))
    total, scale = _add(total, scale + max(series.exponent - shift, -(2**40)), constant, place)
    return DegreeSpectrum(d, total, scale, shift)


def _add(
    a: np.ndarray, i: np.ndarray, b: np.ndarray, j: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # a 2^i + b 2^j as a mantissa in [1/2, 1) and an exponent; a zero has no say in the exponent.
    top = np.where(b == 0, i, np.where(a == 0, j, np.maximum(i, j)))
    shifts = [np.maximum(e - top, -1100).astype(np.int32) for e in (i, j)]
    mantissa, shift = np.frexp(
        np.ldexp(a, np.where(a == 0, 0, shifts[0])) + np.ldexp(b, np.where(b == 0, 0, shifts[1]))
    )
    return mantissa, top + shift


class _Urn:
    """M_{j,k} radius^(-j), for the k of the parity of j, as R_k 2^(exponent_k)."""

    def __init__(self, d: int, radius: float):
        self.d, self.radius = d, radius
        self.exponent = np.zeros(d + 1, np.int64)
        # One zero on each side of the odd degrees and one after the even ones stands for M = 0
        # outside 0..d.
        self.even = np.zeros(d // 2 + 2)
        self.odd = np.zeros((d + 1) // 2 + 2)
        self.even[0] = 1.0

    def advance(self, a: np.ndarray) -> np.ndarray:
        """sum_j a_j R_{j,k} over these steps, the first of which is even."""
        d, e, k = self.d, self.exponent, np.arange(self.d + 1)
        below = np.diff(e, prepend=e[0])
        above = np.append(below[1:], 0)
        up = np.ldexp(k / d / self.radius, -below.astype(np.int32))
        down = np.ldexp((d - k) / d / self.radius, above.astype(np.int32))
        up_even, up_odd = up[0::2], up[1::2].copy()
        down_even, down_odd = down[0::2].copy(), down[1::2].copy()
        up_even = up_even.copy()
        n_even, n_odd = len(up_even), len(up_odd)
        even, odd = self.even, self.odd
        sum_even, sum_odd = np.zeros(n_even), np.zeros(n_odd)
        scratch_even, scratch_odd = np.zeros(n_even), np.zeros(n_odd)
        for step, coefficient in enumerate(a.tolist()):
            if step % 2 == 0:
                current = even[:n_even]
                if coefficient:
                    sum_even += np.multiply(current, coefficient, out=scratch_even)
                target = odd[1 : n_odd + 1]
                np.multiply(up_odd, even[:n_odd], out=target)
                target += np.multiply(down_odd, even[1 : n_odd + 1], out=scratch_odd)
            else:
                current = odd[1 : n_odd + 1]
                if coefficient:
                    sum_odd += np.multiply(current, coefficient, out=scratch_odd)
                target = even[:n_even]
                np.multiply(up_even, odd[:n_even], out=target)
                target += np.multiply(down_even, odd[1 : n_even + 1], out=scratch_even)
        sums = np.zeros(d + 1)
        sums[0::2], sums[1::2] = sum_even, sum_odd
        return sums

    def rescale(self) -> None:
        """Bring every R_k into [1/2, 1); degrees not reached yet take the exponent of the front."""
        r = np.zeros(self.d + 1)
        r[0::2] = self.even[: self.d // 2 + 1]
        r[1::2] = self.odd[1 : (self.d + 1) // 2 + 1]
        mantissa, shift = np.frexp(r)
        exponent = self.exponent + shift
        front = int(np.max(np.nonzero(r)))
        exponent[front + 1 :] = exponent[front]
        self.even[: self.d // 2 + 1] = mantissa[0::2]
        self.odd[1 : (self.d + 1) // 2 + 1] = mantissa[1::2]
        self.exponent = exponent
