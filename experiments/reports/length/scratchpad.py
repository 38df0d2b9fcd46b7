"""Sharpness, blow-up and accuracy of scratchpads against the number of bits (paper B, Fig. 11)."""

import numpy as np

from experiments.paper import claim
from experiments.reports.length.lines import (
    Lines,
    fitted_slope,
    hardly_changes,
    mean_and_error,
    values,
)
from experiments.run import report
from experiments.run.evidence import Evidence
from experiments.run.record import RunRecord

PANELS = {
    "sharpness": "sharpness",
    "written_accuracy": "accuracy of what it writes",
    "blowup": "layer-norm blow-up",
    "norm": "parameter norm",
}


def by_length(lines: Lines) -> dict[int, Lines]:
    """The networks of each number of bits."""
    lengths = sorted({line["bits"] for line in lines})
    return {n: [line for line in lines if line["bits"] == n] for n in lengths}


def summary(record: RunRecord) -> str:
    """The table: for each length how many have fitted, and the means of those.

    Where none has, the means of all of them, in brackets.
    """
    rows = []
    for bits, lines in by_length(record.read("result.json")["final"]).items():
        fitted = [line for line in lines if line["fitted"]]
        shown, form = (fitted, "{}") if fitted else (lines, "({})")
        means = [values(shown, field).mean() for field in ("test_loss", *PANELS)]
        steps = np.mean([line["step"] for line in lines])
        rows.append(
            [
                str(bits),
                f"{len(fitted)} of {len(lines)}",
                f"{steps:.0f}",
                *[form.format(f"{mean:.3g}") for mean in means],
            ]
        )
    header = ["n", "fitted", "steps", "loss", "sharpness", "accuracy", "blow-up", "norm"]
    return (
        f"{report.table(header, rows)}\nsharpness in ±1 units; fitted: more than 99.9 % of the "
        "bits that it writes by itself are right"
    )


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run from its record; hollow marks are networks that did not fit."""
    found = by_length(record.read("result.json")["final"])
    drawn, grid = report.figure(7.5, 5, nrows=2, ncols=2)
    for (field, title), panel in zip(PANELS.items(), grid.ravel(), strict=True):
        means = []
        for n, lines in found.items():
            for line in lines:
                fill = "C0" if line["fitted"] else "none"
                style = {"markersize": 3.5, "color": "C0", "markerfacecolor": fill, "alpha": 0.7}
                panel.plot([n], values([line], field), "o", **style)
            fits = [line for line in lines if line["fitted"]]
            means.append(values(fits, field).mean() if fits else np.nan)
        panel.plot(list(found), means, color="C0", linewidth=1)
        panel.set(xlabel="bits n", title=title)
    grid[0, 0].set_ylim(bottom=min(0.0, grid[0, 0].get_ylim()[0]))
    lines = [line for group in found.values() for line in group]
    missing = sum(not line["fitted"] for line in lines)
    grid[0, 0].plot(
        [], [], "ko", markerfacecolor="none", markersize=3.5,
        label=f"did not fit: {missing} of {len(lines)}",
    )  # fmt: skip
    drawn.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", fontsize=8)
    report.save(drawn, record.directory / "scratchpad.png")


def evidence(record: RunRecord) -> list[Evidence]:
    """Fig. 11: sharpness with n over the networks that fitted, and the accuracy of all."""
    config, final = record.read("config.json"), record.read("result.json")["final"]
    ends = min(config["lengths"]), max(config["lengths"])
    differs = f"n = {ends[0]} to {ends[1]}, at most {config['steps']} steps"
    if config["stop"]:
        differs += ", stopped when fitted"
    slope, error = fitted_slope(final, None, "sharpness")
    found = []
    if np.isfinite(error):
        found.append(
            Evidence(
                claim("Fig. 11", "PARITY with scratchpad", "sharpness with n", paper="B"),
                f"slope {slope:+.5f} ± {error:.5f} a bit",
                holds=slope <= 0 or hardly_changes(slope, error, ends[1] - ends[0]),
                differs=differs,
            )
        )
    count = sum(line["fitted"] for line in final)
    found.append(
        Evidence(
            claim("Fig. 11", "PARITY with scratchpad", "accuracy", paper="B"),
            *mean_and_error(values(final, "written_accuracy")),
            differs=f"{count} of {len(final)} networks fitted; {differs}",
        )
    )
    return found
