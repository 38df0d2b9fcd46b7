"""What it takes to have every eigenvalue right at d = 1024, and what simpler methods give.

Degrees right to 1e-6 and the worst relative error of four ways to the spectrum of a T = 1 kernel,
against exact integers: the nonnegative series with the urn recursion (`theory.dot_product`), and,
in float64, the Krawtchouk sum and finite differences. About half a minute on two CPU cores.
"""

import dataclasses
import time
from typing import Any

import numpy as np

from command.line import UserError
from command.tables import table

from .architecture import Architecture

NETWORKS = {
    "2-layer ReLU MLP": Architecture(attention="none", mlp="relu", depth=2),
    "4-layer ReLU MLP": Architecture(attention="none", mlp="relu", depth=4),
    "linear attention + ReLU": Architecture(mlp="relu"),
}
RIGHT = 1e-6


@dataclasses.dataclass(frozen=True)
class Config:
    """Accuracy and seconds of the spectrum of a dot-product kernel, beside simpler methods."""

    d: int = 1024
    """Number of bits."""
    smoke: bool = False
    """The same code at d = 64."""


def main(config: Config) -> None:
    """Compute, compare, print a table."""
    try:
        from .dot_product import MAX_DIMENSION
    except ModuleNotFoundError as error:
        raise UserError(f"{error}; run: pip install -e . --group theory") from None
    d = 64 if config.smoke else config.d
    if not 2 <= d <= MAX_DIMENSION:
        raise UserError(f"--d must lie between 2 and {MAX_DIMENSION}, got {d}")
    rows = [row for name, network in NETWORKS.items() for row in _network(name, network, d)]
    header = ("network", "kernel", "method", "degrees right", "worst rel. error", "seconds")
    print(f"d = {d}; right means to {RIGHT:g}; {d + 1} degrees in all")
    print(table(header, rows))


def _network(name: str, network: Architecture, d: int) -> list[tuple[str, ...]]:
    import mpmath

    from . import dot_product, exact
    from .series import taylor

    begun = time.perf_counter()
    witnesses = exact.exact_eigenvalues(network, d)
    exact_seconds = (time.perf_counter() - begun) / 2
    begun = time.perf_counter()
    series = taylor(network, dot_product.mixing_terms(d))
    series_seconds = (time.perf_counter() - begun) / 2
    values = exact.kernel_values(network, d, 64)
    rows: list[tuple[str, ...]] = []
    for kernel, coefficients, at, witness in zip(
        ("CK", "NTK"), series, values, witnesses, strict=True
    ):
        rounded = np.array([float(value) for value in at])
        begun = time.perf_counter()
        spectrum = dot_product.ehrenfest(coefficients, d)
        seconds = time.perf_counter() - begun
        exactly = [
            mpmath.ldexp(mpmath.mpf(float(m)), int(e))
            for m, e in zip(spectrum.mantissa, spectrum.exponent, strict=True)
        ]
        rows.append(
            (
                name,
                kernel,
                "series and urn recursion",
                *_accuracy(exactly, witness),
                f"{seconds:.2f} + series {series_seconds:.2f}",
            )
        )
        for method, function in (
            ("Krawtchouk sum, float64", exact.krawtchouk_float),
            ("finite differences, float64", exact.differences_float),
        ):
            begun = time.perf_counter()
            with np.errstate(all="ignore"):
                found = function(rounded)
            seconds = time.perf_counter() - begun
            rows.append(
                (
                    name,
                    kernel,
                    method,
                    *_accuracy([mpmath.mpf(float(v)) for v in found], witness),
                    f"{seconds:.2f}",
                )
            )
        rows.append((name, kernel, "exact integers", "", "", f"{exact_seconds:.2f}"))
    return rows


def _accuracy(found: list[Any], witness: list[Any]) -> tuple[str, str]:
    """How many degrees are right, and the worst relative error; a zero must be exactly zero."""
    import mpmath

    from .exact import GUARD_BITS

    scale = max(abs(value) for value in witness)
    errors = []
    for value, right in zip(found, witness, strict=True):
        is_zero = abs(right) < mpmath.ldexp(scale, -len(witness) - GUARD_BITS // 2)
        error = abs(value - right) / abs(right) if not is_zero else abs(value) and mpmath.inf
        errors.append(mpmath.inf if mpmath.isnan(error) else error)
    right_to = sum(error <= RIGHT for error in errors)
    return str(right_to), mpmath.nstr(max(errors), 2)
