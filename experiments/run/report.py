"""Tables and curves over seeds, from records alone."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from command.files import write_whole
from command.tables import table as table
from experiments.run.curve import Lines as Lines
from experiments.run.curve import curve as curve

STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
}


def pooled(values: Sequence[float], stderrs: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and its standard error.

    The error is sqrt(mean(stderr^2) + var / S): seeds share their examples, so their errors are
    taken as fully correlated, and the spread between seeds is added. It errs on the large side.
    """
    spread = np.var(values, ddof=1) / len(values) if len(values) > 1 else 0.0
    return float(np.mean(values)), float(np.sqrt(np.mean(np.square(stderrs)) + spread))


def differences(result: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
    """A line for each paired difference between two networks in a result, pooled over seeds."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for line in result.get("paired", ()):
        found.setdefault((line["field"], line["model"], line["against"]), []).append(line)
    said = []
    for (field, model, against), lines in found.items():
        value, error = pooled(*[[line[k] for line in lines] for k in ("difference", "stderr")])
        names = f"{labels.get(model, model)} minus {labels.get(against, against)}"
        said.append(f"{field.replace('_', ' ')}, paired: {names} {value:+.4f} ± {error:.4f}")
    return said


def draw_band(axes: Any, epochs: np.ndarray, values: np.ndarray, **style: Any) -> None:
    """The mean over seeds (S, E) with a band from the lowest to the highest seed."""
    (line,) = axes.plot(epochs, values.mean(0), **style)
    if len(values) > 1:
        axes.fill_between(
            epochs, values.min(0), values.max(0), color=line.get_color(), alpha=0.2, linewidth=0
        )


def figure(width: float, height: float, **subplots: Any) -> tuple[Any, Any]:
    """A figure in the house style, without a display."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # For the whole process: legends and labels take the style when they are added, not here.
    matplotlib.rcParams.update(STYLE)
    drawn = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn, drawn.subplots(**subplots)


def save(drawn: Any, path: Path) -> None:
    """Write a figure whole or not at all."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format=path.suffix.lstrip("."))
    write_whole(path, buffer.getvalue())
