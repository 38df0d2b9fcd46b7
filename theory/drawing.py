"""What the figures of the theory share: a canvas, colours, and curves by degree."""

from __future__ import annotations

import io
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

KERNELS = ("CK", "NTK")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7F7F7F")
RED = "#D00000"  # bounds, and what breaks an order
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "axes.titlesize": 9.5,
    "figure.titlesize": 11,
}


@contextmanager
def canvas(rows: int, columns: int, size: tuple[float, float], **sharing: object):
    """A figure in our style, and its panels (rows, columns)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=150)
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, squeeze=False, **sharing)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def by_degree(axes: Axes, values: np.ndarray, colour: str, **options: object) -> None:
    """Even degrees filled and joined, odd degrees open and joined; zeros are left out."""
    for parity in (0, 1):
        k = np.arange(parity, len(values), 2)
        shown = values[k] > -np.inf
        axes.plot(
            k[shown],
            values[k][shown],
            "o-" if parity == 0 else "o--",
            color=colour,
            markerfacecolor=colour if parity == 0 else "white",
            markersize=4,
            linewidth=1,
            **options,
        )


def parity_legend(axes: Axes, colours: list[tuple[str, str]], **options: object) -> None:
    """Names of the colours, and how even and odd degrees are drawn."""
    handles = [Line2D([], [], color=c, marker="o", markersize=4, label=t) for t, c in colours]
    grey = {"color": "0.3", "marker": "o", "markersize": 4}
    handles += [
        Line2D([], [], linestyle="-", label="even degree", **grey),
        Line2D([], [], linestyle="--", markerfacecolor="white", label="odd degree", **grey),
    ]
    axes.legend(handles=handles, **options)
