"""Table and histograms of random networks, from run records alone."""

from typing import Any

import numpy as np

from experiments.run import report
from experiments.run.evidence import Evidence
from experiments.run.record import RunRecord

FIELDS = {
    "sensitivity": "s(f, x) / n",
    "low": "networks at most 0.025",
    "zero": "strings with s = 0",
    "smallest": "smallest s(f, x)",
    "constant": "constant networks",
}
BEYOND = True  # neither paper draws its weights so


def evidence(record: RunRecord) -> list[Evidence]:
    """No claim of the two papers is about networks without training."""
    return []


def summary(record: RunRecord) -> str:
    """The table: a row for each kind of network, every value ± its standard error over networks."""
    rows = []
    for line in record.read("result.json")["final"]:
        values = [f"{line[f]:.3f} ± {line[f'{f}_stderr']:.3f}" for f in FIELDS]
        rows.append(
            [line["network"], line["start"], str(line["bits"]), str(line["depth"]), *values]
        )
    header = ["network", "weights", "bits", "depth", *FIELDS.values()]
    return "\n".join([report.table(header, rows), *verdict(record.read("result.json")["final"])])


def verdict(lines: list[dict[str, Any]]) -> list[str]:
    """How far the draw of its weights moves each network's mean sensitivity, a line for each."""
    said = []
    for network in dict.fromkeys(line["network"] for line in lines):
        mine = [line for line in lines if line["network"] == network]
        longest = max(line["bits"] for line in mine)
        mine = [line for line in mine if line["bits"] == longest]
        if len(mine) == 1:
            continue
        low, high = (f(mine, key=lambda line: line["sensitivity"]) for f in (min, max))
        said.append(
            f"{network}, {longest} bits: from {low['sensitivity']:.3f} ± "
            f"{low['sensitivity_stderr']:.3f} ({low['start']}) to {high['sensitivity']:.3f} ± "
            f"{high['sensitivity_stderr']:.3f} ({high['start']})"
        )
    return said


def draw(record: RunRecord) -> None:
    """Redraw the histograms of a run from its record: a panel for each start, deepest networks."""
    lines = record.read("result.json")["final"]
    longest, deepest = (max(line[key] for line in lines) for key in ("bits", "depth"))
    chosen = [line for line in lines if (line["bits"], line["depth"]) == (longest, deepest)]
    starts = list(dict.fromkeys(line["start"] for line in chosen))
    drawn, panels = report.figure(
        3.3 * len(starts), 3.0, ncols=len(starts), sharey=True, squeeze=False
    )
    for panel, start in zip(panels[0], starts, strict=True):
        for i, line in enumerate(line for line in chosen if line["start"] == start):
            shares = np.asarray(line["histogram"])
            panel.plot(
                np.arange(len(shares)) / longest,
                shares,
                drawstyle="steps-mid",
                color=f"C{i}",
                label=f"{line['network']}, mean {line['sensitivity']:.3f}",
            )
        title = f"{start} weights, depth {deepest}"
        panel.set(title=title, xlabel=f"s(f, x) / n, n = {longest}", yscale="log")
        panel.set_ylim(top=60)  # room for the legend
        panel.legend(fontsize=7, loc="upper right")
    panels[0][0].set_ylabel("share of strings and networks")
    report.save(drawn, record.directory / "histograms.png")
