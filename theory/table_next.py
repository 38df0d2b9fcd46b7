"""Tables that go on from `theory.table`: several tokens at large d, and samples to learn."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .architecture import Architecture
from .column_verdict import column_verdict, undecided_from
from .columns import evaluate
from .cubic import cubic_spectrum
from .digits import steady
from .learning_curves import modes_of, samples_to_learn
from .propositions import check_proposition_3_1
from .reports import is_cubic, spectra_for_curves
from .verdict import Verdict31

LARGE: tuple[tuple[Architecture, tuple[int, ...]], ...] = (
    (Architecture(tokens=2, mlp="relu"), (12, 32)),
    (Architecture(tokens=2, mlp="relu", readout="mean"), (12, 32)),
    (
        Architecture(tokens=2, mlp="relu", positions=1.0, residual=True, layer_norm="pre"),
        (12, 32),
    ),
    (Architecture(tokens=3, mlp="relu"), (12, 15)),
    (Architecture(tokens=3, embedding=False), (66, 3000)),
    (Architecture(tokens=3, positions=1.0), (66, 3000)),
)
CURVES: tuple[tuple[Architecture, tuple[int, ...]], ...] = (
    (Architecture(attention="none", mlp="relu", bias=0.1), (64, 256)),
    (Architecture(mlp="relu", positions=1.0), (64, 256)),
    (Architecture(tokens=2, mlp="relu", positions=1.0), (16, 32)),
)


def large_d_table(progress: Callable[[str], None] = lambda _: None) -> str:
    """Proposition 3.1 for several tokens as d grows, in Markdown."""
    out = [
        "| network | d | kernel | spread within <x,y> | off the Walsh diagonal | worst rise along "
        "a chain | order undecided from degree, even / odd | trace-weighted degree |\n"
        "|---|---|---|---|---|---|---|---|\n"
    ]
    for architecture, sizes in LARGE:
        for d in sizes:
            progress(f"{architecture}, d = {d}")
            rows = _column_rows if architecture.tokens == 2 else _dense_rows
            rows = _cubic_rows if is_cubic(architecture) else rows
            for name, cells in zip(("CK", "NTK"), rows(architecture, d), strict=True):
                out.append(f"| {architecture} | {d} | {name} | " + " | ".join(cells) + " |\n")
    return "".join(out)


def _column_rows(architecture: Architecture, d: int) -> list[list[str]]:
    return _verdict_rows(column_verdict(architecture, evaluate(architecture, d)))


def _dense_rows(architecture: Architecture, d: int) -> list[list[str]]:
    return _verdict_rows(check_proposition_3_1(architecture, d))


def _verdict_rows(verdict: Verdict31) -> list[list[str]]:
    degrees = np.arange(verdict.d + 1)
    sets = np.array([float(math.comb(verdict.d, k)) for k in degrees.tolist()])
    rows = []
    for kernel in (verdict.ck, verdict.ntk):
        variance = sets * kernel.degree_averages
        even, odd = ("-" if k is None else str(k) for k in undecided_from(kernel))
        rows.append(
            [
                steady(kernel.spread, 2),
                steady(kernel.off_diagonal, 2),
                steady(kernel.chain.excess, 2) if kernel.chain else "none",
                f"{even} / {odd}",
                steady(float(degrees @ variance / variance.sum()), 3),
            ]
        )
    return rows


def _cubic_rows(architecture: Architecture, d: int) -> list[list[str]]:
    rows = []
    for spectrum in cubic_spectrum(architecture, d):
        chain = spectrum.chain_violation()
        variance = spectrum.variance
        rows.append(
            [
                "-",
                steady(spectrum.off_diagonal, 2),
                "none" if chain is None else steady(chain[2], 2),
                "- / -",
                steady(sum(k * v for k, v in enumerate(variance)) / variance.sum(), 3),
            ]
        )
    return rows


def curves_table(progress: Callable[[str], None] = lambda _: None) -> str:
    """Predicted samples for a test error of 1/2 by degree of the target, in Markdown."""
    out = [
        "| network | d | kernel | degree 0 | degree 1 | degree 2 | degree 3 |\n"
        "|---|---|---|---|---|---|---|\n"
    ]
    for architecture, sizes in CURVES:
        for d in sizes:
            progress(f"samples to learn, {architecture}, d = {d}")
            spectra = spectra_for_curves(architecture, d)
            for name, spectrum in zip(("CK", "NTK"), spectra, strict=True):
                cells = [
                    "never" if n == math.inf else steady(n, 2)
                    for n in samples_to_learn(modes_of(spectrum, 3))
                ]
                out.append(f"| {architecture} | {d} | {name} | " + " | ".join(cells) + " |\n")
    return "".join(out)
