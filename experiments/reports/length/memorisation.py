"""Sensitivity of networks while they learn random labels, from run records alone."""

from typing import Any

import numpy as np

from experiments.reports.length.lines import Lines, mean_and_error
from experiments.run import report
from experiments.run.curve import by_model
from experiments.run.equal import at_accuracy, by_seed, common_accuracy
from experiments.run.evidence import Evidence
from experiments.run.record import RunRecord

LEARNED = 0.99  # training accuracy at which the labels count as learned
BEYOND = True  # neither paper prints it


def learned_at(lines: Lines) -> Any:
    """The first line where the labels are learned; None if none is."""
    return next((line for line in lines if line["train_accuracy"] >= LEARNED), None)


def evidence(record: RunRecord) -> list[Evidence]:
    """No claim of the two papers is about it."""
    return []


def summary(record: RunRecord) -> str:
    """The table, means ± standard errors over functions, and the difference by function."""
    found, final = by_model(record.read_metrics()), record.read("result.json")["final"]
    rows = []
    for model, lines in found.items():
        seeds = by_seed(lines)
        learned = [line for line in map(learned_at, seeds) if line is not None]
        last = [line for line in final if line["model"] == model]
        rows.append(
            [
                model,
                f"{len(learned)} of {len(seeds)}",
                f"{np.mean([line['epoch'] for line in learned]):.0f}" if learned else "-",
                _spread([seed[0]["sensitivity"] for seed in seeds]),
                _spread([line["sensitivity"] for line in learned]),
                f"{last[0]['epoch']:g}",
                _spread([line["sensitivity"] for line in last]),
                _spread([line["sensitivity_seen"] for line in last]),
            ]
        )
    header = ["network", "learned", "at epoch", "before training", "when learned", "last epoch",
              "at the end", "on strings seen"]  # fmt: skip
    said = [f"s(f, x) / n on fresh strings; learned: {LEARNED:.0%} of the labels"]
    level, (first, *others) = common_accuracy(found), found
    for model in others:
        for place, lines in {
            "at the end": by_model(final),
            f"at {level:.1%} training accuracy": {
                k: at_accuracy(v, level) for k, v in found.items()
            },
        }.items():
            pairs = zip(lines[model], lines[first], strict=True)
            more = [one["sensitivity"] - other["sensitivity"] for one, other in pairs]
            said.append(f"{model} minus {first}, by function, {place}: {_spread(more)}")
    return "\n".join([report.table(header, rows), *said])


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    mean, error = mean_and_error(values)
    return f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run: sensitivity by epoch, training accuracy, and one by the other."""
    drawn, panels = report.figure(11, 3.2, ncols=3)
    for number, (model, every) in enumerate(by_model(record.read_metrics()).items()):
        for place, lines in enumerate(by_seed(every)):
            epochs, flips, right = (
                np.array([line[field] for line in lines])
                for field in ("epoch", "sensitivity", "train_accuracy")
            )
            errors = np.array([line["sensitivity_stderr"] for line in lines])
            style = {"color": f"C{number}", "linewidth": 1.0, "label": None if place else model}
            panels[0].plot(epochs, flips, **style)
            panels[0].fill_between(
                epochs, flips - errors, flips + errors, color=f"C{number}", alpha=0.2, linewidth=0
            )
            panels[1].plot(epochs, right, **style)
            panels[2].plot(right, flips, ".-", markersize=3, **style)
    panels[0].set(xlabel="epoch", ylabel="s(f, x) / n on fresh strings")
    panels[1].set(xlabel="epoch", ylabel="training accuracy")
    panels[2].set(xlabel="training accuracy", ylabel="s(f, x) / n on fresh strings")
    for panel in (panels[0], panels[2]):
        panel.set_ylim(bottom=0)
    drawn.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8,
        title="a line for each function; band: ± standard error over strings", title_fontsize=8,
    )  # fmt: skip
    report.save(drawn, record.directory / "memorisation.png")
