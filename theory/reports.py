"""What `python -m theory columns` and `curves` print."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from command.streams import say

from .architecture import Architecture
from .column_blocks import ColumnSpectrum, column_spectrum, orbit_spectra
from .column_verdict import column_verdict, undecided_from
from .columns import RATE, cost, evaluate
from .cubic import CubicSpectrum, cubic_spectrum
from .dot_product import DegreeSpectrum, dot_product_spectrum
from .learning_curves import Modes, modes_of, predicted_risk, samples_to_learn
from .spectrum import Spectrum, architecture_spectrum
from .verdict_report import verdict_lines

_DENSE = 14  # bits up to which `curves` takes the blocks of `theory.spectrum`


def is_cubic(a: Architecture) -> bool:
    """Whether `theory.cubic` knows the kernels: one linear attention layer and nothing else."""
    return a.attention == "linear" and a.mlp == "none" and a.depth == 1 and a.layer_norm == "none"


def columns_report(a: Architecture, d: int, top: int) -> list[str]:
    """The proposition and the spectrum for several tokens at large d."""
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    a.check(d)
    if is_cubic(a):
        lines = [f"{a} on {{±1}}^{d}: kernels of degree 3, all eigenvalues beyond are 0"]
        for name, spectrum in zip(("CK", "NTK"), cubic_spectrum(a, d), strict=True):
            lines += _cubic_lines(name, spectrum, top)
        return lines
    orbits = cost(d, a.tokens)
    say(f"{orbits} orbits of pairs, about {orbits / RATE:.0f} s ...")
    values = evaluate(a, d)
    verdict = column_verdict(a, values)
    lines = verdict_lines(verdict)
    for kernel in (verdict.ck, verdict.ntk):
        for parity, k in zip(("even", "odd"), undecided_from(kernel), strict=True):
            if k is not None:
                lines.append(
                    f"{kernel.kernel}: the order of {parity} degrees is undecided from {k} on: "
                    "mu is 0 or below 1e-10 of the largest, lost in the rounding of K"
                )
    for name, spectrum in zip(("CK", "NTK"), orbit_spectra(values), strict=True):
        lines.append(
            f"{name}: trace-weighted degree {spectrum.trace_weighted_degree:.4f} "
            f"(no bias: {d / 2:g})"
        )
        lines += _eigenvalue_lines(name, spectrum, spectrum.mean_degree, top)
    return lines


def _eigenvalue_lines(
    name: str, spectrum: ColumnSpectrum | CubicSpectrum, degrees: np.ndarray, top: int
) -> list[str]:
    lines = [f"{name}: {'eigenvalue':>13} {'copies':>12} {'mean degree':>11} {'% of trace':>10}"]
    trace = spectrum.variance.sum()
    for value, copies, degree in list(
        zip(spectrum.eigenvalues, spectrum.multiplicity, degrees, strict=True)
    )[:top]:
        share = 100 * value * copies / trace
        lines.append(
            f"{'':{len(name) + 1}} {value:13.6e} {copies:12.6g} {degree:11.4f} {share:10.4f}"
        )
    return lines


def _cubic_lines(name: str, spectrum: CubicSpectrum, top: int) -> list[str]:
    share = spectrum.variance / spectrum.variance.sum()
    chain = spectrum.chain_violation()
    order = "holds"
    if chain is not None:
        u, v = (" ".join(_tokens(w) for w in kind) or "{}" for kind in chain[:2])
        order = f"fails, mu rises by {chain[2]:.3g} of the largest from columns {u} to {v}"
    return [
        f"{name}: {spectrum.off_diagonal:.4g} of the Frobenius norm is off the Walsh diagonal",
        f"{name}: the order along chains {order}",
        f"{name}: % of trace at degrees 0 to 3: " + ", ".join(f"{100 * s:.4g}" for s in share),
        *_eigenvalue_lines(name, spectrum, spectrum.weights @ np.arange(4), top),
    ]


def _tokens(mask: int) -> str:
    return "{" + ", ".join(str(i + 1) for i in range(mask.bit_length()) if mask >> i & 1) + "}"


def spectra_for_curves(
    a: Architecture, d: int
) -> tuple[DegreeSpectrum | Spectrum | ColumnSpectrum, ...]:
    """CK and NTK by whichever way is exact and fastest; ValueError where none is."""
    a.check(d)
    if a.tokens == 1:
        return dot_product_spectrum(a, d)
    if a.tokens == 2:
        return column_spectrum(a, d)
    if d > _DENSE:
        raise ValueError(
            f"with {a.tokens} tokens learning curves go to d = {_DENSE}, got {d}; 1 token goes to "
            "4096 and 2 tokens to 72"
        )
    return architecture_spectrum(a, d)


def curves_report(
    a: Architecture, d: int, degrees: int, samples: Sequence[float], ridge: float, noise: float
) -> list[str]:
    """Predicted test error by degree of the target and sample size, for CK and NTK."""
    lines = [
        f"{a}, d = {d}: predicted test error (variance of the target = 1) of kernel "
        f"{'ridge ' if ridge else ''}regression, random targets of one degree",
    ]
    for name, spectrum in zip(("CK", "NTK"), spectra_for_curves(a, d), strict=True):
        modes: Modes = modes_of(spectrum, degrees)
        head = "".join(f" {'degree ' + str(k):>11}" for k in range(degrees + 1))
        lines.append(f"{name}: {'samples':>10} {'kappa':>11}{head}")
        for n in samples:
            risk = predicted_risk(modes, n, ridge=ridge, noise=noise)
            cells = "".join(f" {error:11.4g}" for error in risk.by_degree)
            lines.append(f"{'':{len(name) + 1}} {n:10.4g} {risk.kappa:11.4g}{cells}")
        needed = "".join(f" {n:11.4g}" for n in samples_to_learn(modes, ridge=ridge))
        lines.append(f"{name}: samples for an error of 1/2 {needed}")
    return lines
