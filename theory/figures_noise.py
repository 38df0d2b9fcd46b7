"""The figure of Proposition 3.2 and of the bound by average sensitivity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .drawing import COLOURS, RED, canvas, png
from .network_functions import random_functions, trained_functions
from .noise_bounds import (
    average_sensitivity_bound,
    check_average_sensitivity_bound,
    check_proposition_3_2,
)
from .noise_table import BITS, FAMILIES, RHO, Noise, four_bits, named, noise_of, sparse_parity

DRAWS, SEEDS = 24, 3


def proposition_3_2() -> bytes:
    """Both bounds on every function of four bits, on named ones, and on networks' functions."""
    noise = noise_of(four_bits())
    kept = noise.varying
    with canvas(2, 2, (9.4, 7.4)) as (figure, axes):
        maximum, average, tightness, networks = axes.ravel()
        _scatter(maximum, noise.maximum, noise.probability)
        for s in range(5):
            bound = (1 - RHO**s**2) / 2
            maximum.plot([s - 0.35, s + 0.35], [bound, bound], color=RED, linewidth=2, zorder=3)
        _scatter(average, noise.average, noise.probability)
        _curve(average, 4)
        for axis, bound, name, formula in (
            (maximum, noise.by_maximum, r"maximum sensitivity $S_{\max}$", r"S_{\max}^2"),
            (average, noise.by_average, "average sensitivity $S$", "S"),
        ):
            median = np.median(noise.probability[kept] / bound[kept])
            within = np.mean(noise.probability <= bound + 1e-14)
            axis.set_xlabel(name)
            axis.set_ylabel(r"$\Pr[f(x) \neq f(x')]$")
            axis.set_title(
                f"all 65,536 functions of 4 bits, $\\rho$ = {RHO}:\n"
                f"{within:.0%} under the bound, median tightness {median:.2f}"
            )
            line = Line2D(
                [], [], color=RED, linewidth=2, label=rf"bound $(1-\rho^{{{formula}}})/2$"
            )
            dots = Line2D([], [], **_dots(COLOURS[0]), label="functions (area grows with number)")
            axis.legend(handles=[line, dots], fontsize=7.5, loc="upper left")
            axis.set_ylim(-0.02, 0.52)
        _tightness(tightness)
        _networks(networks)
        figure.suptitle(
            "Proposition 3.2 (maximum sensitivity) and the sharper bound by average sensitivity"
        )
        return png(figure)


def _dots(colour: str) -> dict[str, object]:
    return {"color": colour, "marker": "o", "linestyle": "", "alpha": 0.6}


def _curve(axis: Axes, end: float) -> None:
    s = np.linspace(0, end, 200)
    axis.plot(s, average_sensitivity_bound(s, RHO), color=RED, linewidth=2, zorder=1)


def _scatter(axis: Axes, sensitivity: np.ndarray, probability: np.ndarray) -> None:
    pairs = np.stack([sensitivity, np.round(probability, 12)])
    (x, y), counts = np.unique(pairs, axis=1, return_counts=True)
    size = 4 + 12 * np.log10(counts + 1) ** 2
    axis.scatter(x, y, s=size, color=COLOURS[0], alpha=0.55, linewidth=0, zorder=2)


def _tightness(axis: Axes) -> None:
    correlations = np.linspace(0, 1, 101)[:-1]
    for (name, f), colour in zip(named(9).items(), COLOURS, strict=True):
        for check, style in ((check_average_sensitivity_bound, "-"), (check_proposition_3_2, "--")):
            values = [check(f, float(r)).tightness for r in correlations]
            label = name if style == "-" else None
            axis.plot(correlations, values, style, color=colour, label=label, linewidth=1.3)
    axis.set_xlabel(r"correlation $\rho$")
    axis.set_ylabel("probability / bound")
    axis.set_ylim(0, 1.05)
    axis.set_title(
        "functions of 9 bits, bound by the average (lines) and by the\n"
        "maximum (dashed); dictators and parities attain the first"
    )
    axis.legend(fontsize=8, loc="lower left")


def _networks(axis: Axes) -> None:
    _curve(axis, 3.6)
    for (name, family), colour in zip(FAMILIES.items(), COLOURS, strict=False):
        drawn = noise_of(random_functions(family, draws=DRAWS))
        trained = trained_functions(family, sparse_parity(), seeds=SEEDS)
        path = noise_of(trained.tables.reshape(-1, trained.tables.shape[-1]))
        for noise, marker, face in ((drawn, "o", "white"), (path, "o", colour)):
            style = {"color": colour, "markerfacecolor": face, "markersize": 4}
            axis.plot(noise.average, noise.probability, marker, **style)
            _gap(axis, noise, colour)
        axis.plot([], [], "o", color=colour, markersize=4, label=name)
    grey = {"color": "0.3", "markersize": 4}
    axis.plot([], [], "o", markerfacecolor="white", label="random", **grey)
    axis.plot([], [], "o", label="learning a parity of 3", **grey)
    axis.plot([], [], "_", label="bound by the maximum", **grey)
    axis.set_xlabel("average sensitivity $S$")
    axis.set_ylabel(r"$\Pr[f(x) \neq f(x')]$")
    axis.set_ylim(-0.02, 0.52)
    axis.set_title(rf"finite networks on {BITS} bits, $\rho$ = {RHO}" + "\n(line: bound by $S$)")
    axis.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(0.02, 0.43), ncols=2)


def _gap(axis: Axes, noise: Noise, colour: str) -> None:
    axis.plot(noise.average, noise.by_maximum, "_", color=colour, markersize=4, alpha=0.5)


FIGURES: dict[str, Callable[[], bytes]] = {"theory_proposition_3_2": proposition_3_2}
