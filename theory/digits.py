"""Printed digits that the last digits of float64 cannot change."""

from __future__ import annotations

import math

import mpmath

STEADY = 9  # significant digits that summation order, threads and libraries leave alone


def steady(value: float, digits: int) -> str:
    """`value` to so many significant digits, the same on every machine.

    Many values are short binary fractions, and a tie such as 0.125 give or take a rounding error
    would go either way. Rounded to STEADY digits first, it is the tie itself everywhere.
    """
    return f"{float(f'{value:.{STEADY}g}'):.{digits}g}"


def decimals(value: float, places: int) -> str:
    """The same with a fixed number of decimals; never "-0.00"."""
    return f"{round(float(f'{value:.{STEADY}g}'), places) + 0.0:.{places}f}"


def scientific(mantissa: float, exponent: int) -> str:
    """mantissa 2^exponent in decimal, whatever its size."""
    if mantissa == 0:
        return "0"
    if -1000 < exponent < 1000:
        return f"{math.ldexp(mantissa, exponent):.6e}"
    with mpmath.workdps(30 + exponent.bit_length()):
        logarithm = mpmath.log10(mpmath.ldexp(abs(mantissa), exponent))
        power = int(mpmath.floor(logarithm))
        sign = "-" if mantissa < 0 else ""
        return f"{sign}{float(mpmath.mpf(10) ** (logarithm - power)):.6f}e{power:+03d}"
