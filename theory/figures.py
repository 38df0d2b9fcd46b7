"""The figures of the spectra; each function returns the bytes of a PNG."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from matplotlib.lines import Line2D

from jaxsens import boolean

from .architecture import Architecture
from .dot_product import dot_product_spectrum
from .drawing import COLOURS, KERNELS, RED, by_degree, canvas, parity_legend, png
from .propositions import verdict_of_rows
from .spectrum import (
    architecture_forms,
    architecture_rows,
    architecture_spectrum,
    spectra_of_rows,
)
from .survivors import survivors

STACK = {"mlp": "relu", "bias": 0.1, "residual": True, "layer_norm": "pre"}


def one_token() -> bytes:
    """Eigenvalues by degree at T = 1, across depth and across d (pre-LN residual blocks)."""
    depths, dimensions = (1, 2, 4, 8), (8, 32, 128, 1024)
    with canvas(2, 2, (8.6, 6.4), sharex="row") as (figure, axes):
        for depth, colour in zip(depths, COLOURS, strict=False):
            spectra = dot_product_spectrum(Architecture(depth=depth, **STACK), 32)
            for column, spectrum in enumerate(spectra):
                logs = (spectrum.log_eigenvalues - spectrum.log_eigenvalues[0]) / math.log(10)
                by_degree(axes[0, column], logs, colour)
        for d, colour in zip(dimensions, COLOURS, strict=False):
            spectra = dot_product_spectrum(Architecture(depth=2, **STACK), d)
            for column, spectrum in enumerate(spectra):
                logs = (spectrum.log_eigenvalues - spectrum.log_eigenvalues[0]) / math.log(10)
                by_degree(axes[1, column], logs[:17], colour)
        for column, name in enumerate(KERNELS):
            axes[0, column].set_title(f"{name}, d = 32, number of blocks varies")
            axes[1, column].set_title(f"{name}, 2 blocks, d varies")
            axes[1, column].set_xlabel("degree k")
            axes[0, column].set_xlabel("degree k")
        for row in axes:
            row[0].set_ylabel(r"$\log_{10}\ \mu_k / \mu_0$")
        parity_legend(
            axes[0, 0],
            [
                (f"{n} blocks" if n > 1 else "1 block", c)
                for n, c in zip(depths, COLOURS, strict=False)
            ],
            fontsize=7.5,
            loc="upper right",
        )
        parity_legend(
            axes[1, 0],
            [(f"d = {d}", c) for d, c in zip(dimensions, COLOURS, strict=False)],
            fontsize=7.5,
            loc="lower left",
        )
        figure.suptitle("One token: eigenvalues fall along even and along odd degrees, always")
        return png(figure)


def several_tokens() -> bytes:
    """Quadratic forms by degree for T > 1: average and range, violations of the order in red."""
    cases = (
        ("T = 2, flattened", Architecture(tokens=2, mlp="relu")),
        ("T = 4, flattened, 2 blocks", Architecture(tokens=4, mlp="relu", depth=2)),
        ("T = 4, mean pool", Architecture(tokens=4, mlp="relu", readout="mean")),
        (
            "T = 2, last token, positions",
            Architecture(tokens=2, mlp="relu", readout="last", positions=1.0),
        ),
    )
    d, floor = 8, 1e-8
    sizes = boolean.set_sizes(d)
    with canvas(2, 4, (11.5, 5.6), sharex=True, sharey="row") as (figure, axes):
        for column, (title, architecture) in enumerate(cases):
            rows = architecture_rows(architecture, d)
            spectra = spectra_of_rows(architecture, rows)
            verdict = verdict_of_rows(architecture, d, rows)
            for row, (spectrum, kernel) in enumerate(
                zip(spectra, (verdict.ck, verdict.ntk), strict=True)
            ):
                panel = axes[row, column]
                forms = np.maximum(spectrum.forms / spectrum.forms.max(), floor)
                means = np.maximum(spectrum.degree_averages / spectrum.forms.max(), floor)
                low = [forms[sizes == k].min() for k in range(d + 1)]
                high = [forms[sizes == k].max() for k in range(d + 1)]
                panel.vlines(range(d + 1), low, high, color="0.75", linewidth=5)
                by_degree(panel, means, COLOURS[0])
                for k in range(d - 1):
                    if means[k + 2] > means[k] * (1 + 1e-9):
                        panel.plot([k, k + 2], means[[k, k + 2]], "-", color=RED, linewidth=2)
                if kernel.chain is not None:
                    ends = (len(kernel.chain.smaller), len(kernel.chain.larger))
                    pair = (kernel.chain.mu_smaller, kernel.chain.mu_larger)
                    heights = np.maximum(np.array(pair) / spectrum.forms.max(), floor)
                    panel.plot(ends, heights, "v:", color=RED, markersize=5, linewidth=1)
                panel.set_yscale("log")
                panel.set_ylim(floor / 2, 2)
                panel.set_title(
                    f"{title}\n{KERNELS[row]}, " + ("ordered" if kernel.ordered else "order broken")
                )
            axes[1, column].set_xlabel("degree |U|")
        for row in axes:
            row[0].set_ylabel(r"$\mu_U\ /\ \max \mu$")
        blue = COLOURS[0]
        handles = [
            Line2D([], [], color=blue, marker="o", markersize=4, label="average, even degrees"),
            Line2D(
                [],
                [],
                color=blue,
                marker="o",
                markersize=4,
                linestyle="--",
                markerfacecolor="white",
                label="average, odd degrees",
            ),
            Line2D([], [], color="0.75", linewidth=5, label="range over sets U of that size"),
            Line2D([], [], color=RED, linewidth=2, label="average rises from k to k + 2"),
            Line2D([], [], color=RED, marker="v", linestyle=":", label="worst chain U, U + {i, j}"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8)
        figure.suptitle(
            r"Several tokens, d = 8: a trend stays, the order may fail (zeros drawn at $10^{-8}$)"
        )
        return png(figure)


def variance_by_degree() -> bytes:
    """Share of the trace E[f(x)²] by degree: across depth at T = 1, across T at d = 12."""
    with canvas(2, 2, (8.6, 6.0), sharey="row") as (figure, axes):
        for depth, colour in zip((1, 2, 4, 8), COLOURS, strict=False):
            spectra = dot_product_spectrum(Architecture(depth=depth, **STACK), 64)
            for panel, spectrum in zip(axes[0], spectra, strict=True):
                share = spectrum.variance / spectrum.variance.sum()
                panel.plot(
                    share[:13],
                    "o-",
                    color=colour,
                    markersize=3.5,
                    linewidth=1,
                    label=f"{depth} block" + "s" * (depth > 1),
                )
        for tokens, colour in zip((1, 2, 3, 6, 12), COLOURS, strict=True):
            both = architecture_forms(Architecture(tokens=tokens, mlp="relu", bias=0.1), 12)
            for panel, forms in zip(axes[1], both, strict=True):
                share = np.bincount(boolean.set_sizes(12), forms) / forms.sum()
                panel.plot(
                    share, "o-", color=colour, markersize=3.5, linewidth=1, label=f"T = {tokens}"
                )
        for column, name in enumerate(KERNELS):
            axes[0, column].set_title(f"{name}, T = 1, d = 64")
            axes[1, column].set_title(f"{name}, one block, d = 12, flattened")
            for row in axes:
                row[column].set_xlabel("degree k")
        for row in axes:
            row[0].set_ylabel("share of the trace")
            row[0].legend(fontsize=8)
        figure.suptitle("Fraction of variance by degree")
        return png(figure)


def rank_correlation() -> bytes:
    """The bias to low degree against the number of tokens: in the trace, and between ranks."""
    d, choices = 12, (1, 2, 3, 4, 6)
    cases = (
        ("flattened", {}),
        ("flattened, positions", {"positions": 1.0}),
        ("mean pool, positions", {"positions": 1.0, "readout": "mean"}),
        ("flattened, 2 blocks", {"depth": 2}),
    )
    with canvas(2, 2, (8.6, 6.6), sharey="row") as (figure, axes):
        places = range(len(choices))
        for (name, options), colour in zip(cases, COLOURS, strict=False):
            found = []
            for tokens in choices:
                architecture = Architecture(tokens=tokens, mlp="relu", bias=0.1, **options)
                found.append([survivors(s) for s in architecture_spectrum(architecture, d)])
            for column, rows in enumerate(zip(*found, strict=True)):
                style = {"color": colour, "markersize": 4.5, "linewidth": 1.2}
                axes[0, column].plot(
                    places, [row.trace_weighted_degree for row in rows], "o-", label=name, **style
                )
                for parity, (line, face) in enumerate((("o-", colour), ("o--", "white"))):
                    values = [row.variance_correlation[parity] for row in rows]
                    axes[1, column].plot(places, values, line, markerfacecolor=face, **style)
        for column, name in enumerate(KERNELS):
            axes[0, column].set_title(f"{name}, d = {d}, ReLU, bias 0.1")
            axes[0, column].axhline(d / 2, color="0.4", linewidth=0.8, linestyle=":")
            axes[1, column].axhline(0, color="0.4", linewidth=0.8)
            for row in axes:
                row[column].set_xticks(places, [str(t) for t in choices])
            axes[1, column].set_xlabel("tokens T")
        axes[0, 0].set_ylabel("trace-weighted degree\n(dotted: no bias)")
        axes[0, 0].set_ylim(0, d / 2 + 0.4)
        axes[1, 0].set_ylabel("rank correlation of -log eigenvalue\nand degree, by variance")
        axes[1, 0].set_ylim(-0.1, 1.05)
        parity_legend(
            axes[1, 0],
            [(n, c) for (n, _), c in zip(cases, COLOURS, strict=False)],
            fontsize=7.5,
            loc="lower left",
        )
        figure.suptitle("What survives where the order fails: variance leans to low degree")
        return png(figure)


FIGURES: dict[str, Callable[[], bytes]] = {
    "theory_one_token": one_token,
    "theory_several_tokens": several_tokens,
    "theory_variance": variance_by_degree,
    "theory_rank_correlation": rank_correlation,
}
