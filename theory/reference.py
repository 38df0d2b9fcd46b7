r"""The kernels of the input that repeats one token, in arbitrary precision: what others are
measured by.

K(x, x) grows like 3^depth in the exponent where linear attention is stacked, so the recursion for
arrays (`theory.recursion`) carries kernels divided by those of one input, and their size is kept
here, as numbers that cannot overflow. That input is x = (1, ..., 1): tokens that agree make S(x, x)
largest in every layer, so no input has a larger K(x, x). Its T x T kernels have one value q on the
diagonal and rho q off it; Theta has n q and m q. The layers are those of `theory.recursion`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import mpmath

from .architecture import Architecture

DIGITS = 40
# Kernels whose size lies within 2^±PLAIN are given as they are.
PLAIN = 500


def digits(architecture: Architecture) -> int:
    """Decimal digits for which K(x, x) is right to DIGITS: attention triples relative errors."""
    extreme = max(architecture.bias, architecture.positions, 1.0)
    return DIGITS + architecture.depth + math.ceil(4 * math.log10(extreme))


def dual(name: str, k: Any, q: Any) -> tuple[Any, Any]:
    """E[phi(u) phi(v)] and E[phi'(u) phi'(v)] at covariance k and variance q, in mpmath."""
    m, two_pi = mpmath, 2 * mpmath.pi
    if name == "relu":
        r = max(min(k / q, m.mpf(1)), m.mpf(-1))
        slope = (m.pi / 2 + m.asin(r)) / two_pi
        return q * m.sqrt((1 - r) * (1 + r)) / two_pi + k * slope, slope
    if name == "erf":
        return 2 / m.pi * m.asin(2 * k / (1 + 2 * q)), 4 / m.pi / m.sqrt(
            (1 + 2 * (q - k)) * (1 + 2 * (q + k))
        )
    big = (1 + (q - k)) * (1 + (q + k))
    quadrant = m.mpf(1) / 4 + m.asin(k / (1 + q)) / two_pi
    numerator = (q - k) * (q + k) + 2 * k**2 / (1 + q)
    slope = quadrant + k * (4 / (1 + q) - 1 + numerator / big) / (two_pi * m.sqrt(big))
    return k * quadrant + numerator / (two_pi * m.sqrt(big)), slope


@dataclass(frozen=True)
class Reference:
    """K_aa = q, K_ab = rho q, Theta_aa = n q, Theta_ab = m q for x = y = (1, ..., 1); mpmath."""

    tokens: int
    q: Any
    rho: Any
    n: Any
    m: Any

    @property
    def overlap(self) -> Any:
        """S / q² = sum_ij K_ij² / q²."""
        return self.tokens + self.tokens * (self.tokens - 1) * self.rho**2

    def trained(self) -> Reference:
        """The weights of a Dense layer, whose gradients add K to Theta."""
        return replace(self, n=self.n + 1, m=self.m + self.rho)

    def attention(self) -> Reference:
        """Linear attention, infinitely many heads."""
        t, s = self.tokens, self.overlap
        share = 2 * t * (self.n + (t - 1) * self.rho * self.m) / s
        return replace(
            self, q=self.q**3 * s, n=4 + self.n + share, m=4 * self.rho + self.m + self.rho * share
        )

    def activation(self, name: str) -> Reference:
        """An activation, elementwise."""
        own, slope = dual(name, self.q, self.q)
        other, other_slope = dual(name, self.rho * self.q, self.q)
        gain = self.q / own
        return replace(
            self,
            q=own,
            rho=other / own,
            n=self.n * slope * gain,
            m=self.m * other_slope * gain,
        )

    def layer_norm(self) -> Reference:
        """LayerNorm: variance 1."""
        return replace(self, q=mpmath.mpf(1))

    def plus(self, other: Reference) -> Reference:
        """The sum with an independent branch."""
        q = self.q + other.q
        w = self.q / q
        mixed = {
            name: w * getattr(self, name) + (1 - w) * getattr(other, name)
            for name in ("rho", "n", "m")
        }
        return replace(self, q=q, **mixed)


def constant(tokens: int, std: float) -> Reference:
    """K = std² everywhere, Theta = 0: the raw tokens (std = 1) and what a bias adds."""
    zero = mpmath.mpf(0)
    return Reference(tokens, mpmath.mpf(std) ** 2, mpmath.mpf(1), zero, zero)


def positions(tokens: int, std: float) -> Reference:
    """K = Theta = std² on the diagonal: what position embeddings add."""
    zero, one = mpmath.mpf(0), mpmath.mpf(1)
    return Reference(tokens, mpmath.mpf(std) ** 2, one if tokens == 1 else zero, one, zero)
