"""Figures of softmax attention, and of several tokens at large d."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .architecture import Architecture
from .column_blocks import orbit_spectra
from .column_verdict import column_verdict
from .columns import evaluate
from .cubic import cubic_spectrum
from .drawing import COLOURS, KERNELS, by_degree, canvas, parity_legend, png
from .propositions import check_proposition_3_1
from .softmax_verdict import softmax_cube, softmax_verdicts


def softmax_bias() -> bytes:
    """Softmax against linear attention: bias to low degree by T, and mu by degree."""
    cases = (
        ("flattened", {}),
        ("flattened, positions", {"positions": 1.0}),
        (
            "positions, residual, post-LN",
            {"positions": 1.0, "residual": True, "layer_norm": "post"},
        ),
        ("mean pool", {"readout": "mean"}),
    )
    d, tokens = 6, (1, 2, 3, 6)
    with canvas(2, 2, (9, 6.6), sharey="row") as (figure, axes):
        for (_, options), colour in zip(cases, COLOURS, strict=False):
            found = []
            for t in tokens:
                architecture = Architecture(tokens=t, mlp="relu", **options)
                found.append(
                    softmax_verdicts(architecture, d, softmax_cube(architecture, d, draws=128))
                )
            for column in range(2):
                mine = [verdicts[column] for verdicts in found]
                axes[0, column].errorbar(
                    range(len(tokens)),
                    [v.trace_weighted_degree.value for v in mine],
                    [v.trace_weighted_degree.stderr for v in mine],
                    fmt="o-",
                    color=colour,
                    markersize=4.5,
                    linewidth=1.2,
                )
                axes[0, column].plot(
                    range(len(tokens)),
                    [v.linear_degree for v in mine],
                    "s--",
                    color=colour,
                    markerfacecolor="white",
                    markersize=4.5,
                    linewidth=1.2,
                )
        _softmax_by_degree(axes[1])
        for column, name in enumerate(KERNELS):
            axes[0, column].set_title(f"{name}, attention + ReLU, d = {d}")
            axes[0, column].set_xticks(range(len(tokens)), [str(t) for t in tokens])
            axes[0, column].set_xlabel("tokens T")
            axes[0, column].axhline(d / 2, color="0.4", linewidth=0.8)
        axes[0, 0].set_ylabel("trace-weighted degree\n(line at the top: no bias)")
        handles = [
            Line2D([], [], color=c, label=name)
            for (name, _), c in zip(cases, COLOURS, strict=False)
        ]
        grey = {"color": "0.3", "markersize": 4.5}
        handles += [
            Line2D([], [], marker="o", linestyle="-", label="softmax", **grey),
            Line2D([], [], marker="s", linestyle="--", mfc="white", label="linear", **grey),
        ]
        axes[0, 1].legend(
            handles=handles, fontsize=7.5, loc="upper right", bbox_to_anchor=(1, 0.97), ncols=2
        )
        figure.suptitle("Softmax or linear attention: which is biased more to low degree")
        return png(figure)


def _softmax_by_degree(axes: np.ndarray) -> None:
    d = 8
    architecture = Architecture(tokens=4, mlp="relu", positions=1.0)
    verdicts = softmax_verdicts(architecture, d, softmax_cube(architecture, d, draws=64))
    for column, (name, v) in enumerate(zip(KERNELS, verdicts, strict=True)):
        values, stderr = v.degree_averages
        by_degree(axes[column], np.log10(values / values[0]), COLOURS[0])
        axes[column].errorbar(
            np.arange(d + 1),
            np.log10(values / values[0]),
            4 * stderr / values / math.log(10),
            fmt="none",
            color="k",
            linewidth=1,
        )
        linear = v.linear_averages
        by_degree(axes[column], np.log10(linear / linear[0]), COLOURS[1])
        axes[column].set_title(
            f"{name}, T = 4, flattened, positions, d = {d} (bars: 4 std. errors)"
        )
        axes[column].set_xlabel("degree k")
    axes[0].set_ylabel(r"$\log_{10}$ average of $\mu_U$, $|U| = k$, over $\mu_0$")
    parity_legend(axes[0], [("softmax", COLOURS[0]), ("linear", COLOURS[1])], fontsize=7.5)


def large_d() -> bytes:
    """What happens to Proposition 3.1 as d grows at two and three tokens."""
    cases = (
        ("T = 2, attention + ReLU", Architecture(tokens=2, mlp="relu"), (4, 8, 12, 20, 32, 48, 64)),
        (
            "T = 2, positions, residual, pre-LN",
            Architecture(tokens=2, mlp="relu", positions=1.0, residual=True, layer_norm="pre"),
            (4, 8, 12, 20, 32),
        ),
        (
            "T = 2, mean pool",
            Architecture(tokens=2, mlp="relu", readout="mean"),
            (4, 8, 12, 20, 32),
        ),
        ("T = 3, attention + ReLU", Architecture(tokens=3, mlp="relu"), (6, 9, 12, 15, 18)),
    )
    with canvas(2, 2, (9.4, 7)) as (figure, axes):
        for (name, architecture, sizes), colour in zip(cases, (*COLOURS[:3], "k"), strict=True):
            found = []
            for d in sizes:
                if architecture.tokens > 2:
                    found.append(check_proposition_3_1(architecture, d))
                    continue
                orbits = evaluate(architecture, d)
                found.append(column_verdict(architecture, orbits))
            for line, kernel in (("o-", "ck"), ("o--", "ntk")):
                mine = [getattr(v, kernel) for v in found]
                # Lines may coincide: the first one is drawn wider, under the others.
                width = 3 if name == cases[0][0] else 1.1
                style = {"color": colour, "markersize": 4, "linewidth": width}
                style["markerfacecolor"] = colour if kernel == "ck" else "white"
                label = name if kernel == "ck" else None
                axes[0, 0].semilogx(sizes, [k.spread for k in mine], line, **style)
                axes[0, 1].loglog(sizes, [k.off_diagonal for k in mine], line, label=label, **style)
                excess = [k.chain.excess if k.chain else np.nan for k in mine]
                axes[1, 0].loglog(sizes, excess, line, **style)
            if name == cases[0][0]:
                spectrum = orbit_spectra(orbits)[1]
                _scatter(axes[1, 1], spectrum)
                axes[1, 1].set_title(f"NTK, {name}, d = {sizes[-1]}:\neigenspaces above rounding")
        sizes = (6, 12, 24, 66, 192, 600, 3000)
        three = (
            (
                "T = 3, attention alone, positions",
                Architecture(tokens=3, positions=1.0),
                COLOURS[3],
            ),
            ("T = 3, attention alone", Architecture(tokens=3, embedding=False), COLOURS[4]),
        )
        for name, architecture, colour in three:
            shares = [cubic_spectrum(architecture, d)[0].off_diagonal for d in sizes]
            axes[0, 1].loglog(
                sizes, shares, "^-", color=colour, markersize=4, linewidth=1.1, label=name
            )
        axes[0, 0].set_title("part 1: largest spread of K within <x, y>, over max |K|")
        axes[0, 1].set_title("part 2: share of the norm off the Walsh diagonal")
        axes[1, 0].set_title("part 3: worst rise along a chain, over the largest mu")
        for axis in (axes[0, 0], axes[0, 1], axes[1, 0]):
            axis.set_xlabel("d")
        for axis in (axes[0, 0], axes[1, 0]):
            axis.set_xticks([4, 8, 16, 32, 64], ["4", "8", "16", "32", "64"])
            axis.set_xticks([], minor=True)
        axes[0, 0].set_ylim(0, 1)
        axes[1, 0].text(
            0.97,
            0.95,
            "positions, residual, pre-LN:\nno rise above 1e-10",
            transform=axes[1, 0].transAxes,
            ha="right",
            va="top",
            fontsize=8,
            color=COLOURS[1],
        )
        axes[0, 1].legend(fontsize=7.5, loc="lower left")
        axes[0, 0].legend(
            handles=[
                Line2D([], [], color="0.3", marker="o", linestyle="-", label="CK"),
                Line2D([], [], color="0.3", marker="o", linestyle="--", mfc="white", label="NTK"),
            ],
            fontsize=8,
        )
        figure.suptitle("Several tokens as d grows: the three parts of Proposition 3.1")
        return png(figure)


def _scatter(axis: Axes, spectrum) -> None:
    keep = spectrum.nonzero
    axis.scatter(
        spectrum.mean_degree[keep],
        np.log10(spectrum.eigenvalues[keep] / spectrum.eigenvalues[0]),
        s=3 + 0.12 * np.log10(spectrum.multiplicity[keep]) ** 2,
        color=COLOURS[0],
        alpha=0.5,
        linewidth=0,
    )
    axis.set_xlabel("mean degree of the eigenvector")
    axis.set_ylabel(r"$\log_{10}\ \lambda / \lambda_0$")


FIGURES: dict[str, Callable[[], bytes]] = {
    "theory_softmax": softmax_bias,
    "theory_large_d": large_d,
}
