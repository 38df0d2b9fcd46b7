"""Table and figure of the flatness experiment, from run records alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.reports.robustness_evidence import table_2 as evidence
from experiments.run import report
from experiments.run.curve import by_model
from experiments.run.record import RunRecord

FIELDS = {
    "sensitivity": "sensitivity",
    "shop": "ShOp",
    "shpred": "ShPred",
    "shop_code": "ShOp, as coded",
    "shpred_code": "ShPred, as coded",
    "direction": "mean rise of the loss",
    "worst": "largest rise found",
    "eigenvalue": "largest eigenvalue",
}
BEYOND = True  # of other networks than ViT-small, and other measures, the paper has none

__all__ = ["draw", "evidence", "summary"]


def summary(record: RunRecord) -> str:
    """A line for each network: means over seeds ± standard error."""
    result = record.read("result.json")
    models = by_model(result["final"])
    fields = _there(result["final"])
    header = ["network", "seeds", "train acc. %", *fields.values()]
    rows = []
    for lines in models.values():
        accuracy = 100 * np.mean([line["train_accuracy"] for line in lines])
        row = [lines[0]["label"], str(len(lines)), f"{accuracy:.1f}"]
        rows.append(row + [_value(lines, field) for field in fields])
    data = result["data"]
    return f"{data['name']}, {data['train']} training images\n{report.table(header, rows)}"


def _there(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {field: text for field, text in FIELDS.items() if field in lines[0]}


def _value(lines: Sequence[Mapping[str, Any]], field: str) -> str:
    values = [line[field] for line in lines]
    errors = [line.get(f"{field}_stderr") or 0.0 for line in lines]
    value, error = report.pooled(values, errors)
    return f"{value:.3g} ± {error:.1g}" if error > 0 else f"{value:.3g}"


def draw(record: RunRecord) -> None:
    """Redraw the figure: a panel for each measure, a bar for each network, a point for a seed."""
    result = record.read("result.json")
    models, fields = by_model(result["final"]), _there(result["final"])
    rows = -(-len(fields) // 4)
    figure, grid = report.figure(
        11, rows * (1.1 + 0.28 * len(models)), nrows=rows, ncols=4, squeeze=False, sharey=True
    )
    panels = grid.ravel()
    for panel, (field, text) in zip(panels, fields.items(), strict=False):
        for place, lines in enumerate(models.values()):
            values = np.array([line[field] for line in lines], float)
            panel.barh(place, values.mean(), color=f"C{place % 10}", alpha=0.5)
            panel.plot(values, [place] * len(values), "k.", markersize=4)
        panel.set(xlabel=text, yticks=range(len(models)))
    for panel in panels[len(fields) :]:
        panel.set_visible(False)
    for row in grid:
        row[0].set_yticklabels([lines[0]["label"] for lines in models.values()])
    grid[0, 0].invert_yaxis()
    data = result["data"]
    figure.suptitle(
        f"{data['name']}, {data['train']:,} training images; points: seeds", fontsize=10
    )
    report.save(figure, record.directory / "flatness.png")
