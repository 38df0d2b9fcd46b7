"""The figure of learning curves: predicted, of kernel regression, and of trained networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .architecture import Architecture
from .dot_product import dot_product_spectrum
from .drawing import COLOURS, canvas, png
from .learning_curves import kernel_regression, modes_of, predicted_risk
from .recursion import ck_ntk
from .reports import spectra_for_curves
from .symmetry import points
from .trained_curves import trained_risk

MLP = {"attention": "none", "mlp": "relu", "bias": 0.1}


def learning_curves() -> bytes:
    """Predicted learning curves, kernel regression, and trained networks."""
    with canvas(2, 2, (9.4, 7)) as (figure, axes):
        grid = np.logspace(0, 11, 120)
        for d, line in ((256, "--"), (4096, "-")):
            modes = modes_of(dot_product_spectrum(Architecture(**MLP), d)[1], 3)
            _curves(axes[0, 0], modes, grid, line)
        axes[0, 0].set_title("T = 1, MLP, NTK: d = 256 (dashed) and 4096")
        grid = np.logspace(0, 7, 100)
        for line, architecture in (
            ("--", Architecture(mlp="relu", positions=1.0)),
            ("-", Architecture(tokens=2, mlp="relu", positions=1.0)),
        ):
            modes = modes_of(spectra_for_curves(architecture, 48)[1], 3)
            _curves(axes[0, 1], modes, grid, line)
        axes[0, 1].set_title("attention + ReLU, positions, NTK, d = 48:\nT = 1 (dashed) and T = 2")
        _experiment(axes[1, 0])
        _trained(axes[1, 1])
        for axis in axes.flat:
            axis.set_xlabel("samples n")
            axis.set_xscale("log")
            axis.set_ylim(0, 1.6)
        for row in axes:
            row[0].set_ylabel("test error / variance of the target")
        axes[0, 1].legend(
            handles=[
                Line2D([], [], color=COLOURS[k], label=f"target of degree {k}") for k in range(4)
            ],
            fontsize=8,
            loc="upper right",
        )
        figure.suptitle("Learning curves by degree of the target, from the spectrum (lines)")
        return png(figure)


def _curves(axis: Axes, modes, grid: np.ndarray, line: str, degrees=range(4)) -> None:
    errors = np.stack([predicted_risk(modes, float(n), ridge=1e-9).by_degree for n in grid])
    for k in degrees:
        axis.plot(grid, errors[:, k], line, color=COLOURS[k], linewidth=1.2)


def _mean(axis: Axes, n: int, values: np.ndarray, marker: str, colour: str) -> None:
    stderr = values.std(ddof=1) / len(values) ** 0.5
    axis.errorbar(n, values.mean(), stderr, fmt=marker, color=colour, markersize=4.5)


def _experiment(axis: Axes) -> None:
    architecture, d = Architecture(tokens=2, mlp="relu", positions=0.5), 10
    x = points(np.arange(2**d), d)
    kernel = ck_ntk(architecture, x, x)[1]
    _curves(axis, modes_of(spectra_for_curves(architecture, d)[1], 3), np.logspace(0, 2.6, 60), "-")
    for n in (3, 10, 30, 100, 300):
        found = kernel_regression(kernel, n, 3, ridge=1e-6, trials=20)
        for k in range(4):
            _mean(axis, n, found[:, k], "o", COLOURS[k])
    axis.set_title(
        "T = 2, attention + ReLU, NTK, d = 10:\nkernel regression (20 trials, std. errors)"
    )


def _trained(axis: Axes) -> None:
    d = 20
    networks = (
        ("o", "-", Architecture(**MLP), 256, (10, 30, 100, 200)),
        ("s", "--", Architecture(tokens=2, mlp="relu", positions=0.5), 24, (10, 30, 100)),
    )
    for marker, line, architecture, width, samples in networks:
        modes = modes_of(spectra_for_curves(architecture, d)[1], 2)
        _curves(axis, modes, np.logspace(0.7, 2.6, 50), line, degrees=(1, 2))
        for n in samples:
            for k in (1, 2):
                errors, _ = trained_risk(
                    architecture, d, n, k, width=width, steps=300, seeds=3, test_points=1000
                )
                _mean(axis, n, errors, marker, COLOURS[k])
    axis.set_title(
        f"trained networks, d = {d} (3 seeds, std. errors):\nMLP (o, -), T = 2 attention (s, --)"
    )


FIGURES: dict[str, Callable[[], bytes]] = {"theory_learning_curves": learning_curves}
