"""Table and figure of the experiment on targets of known sensitivity, from run records alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.reports.robustness import interval, verdict
from experiments.run import report
from experiments.run.evidence import Evidence
from experiments.run.record import RunRecord

OUTCOMES = {"clean": "clean", "noise": "bits flipped", "block": "a block negated"}
BEYOND = True  # neither paper has it


def evidence(record: RunRecord) -> list[Evidence]:
    """No claim of a paper is about these targets."""
    return []


def summary(record: RunRecord) -> str:
    """For each target what is known of it, and what each strength of the regularisation gives."""
    result, flip = record.read("result.json"), record.read("config.json")["flip"]
    said = []
    for name, known in result["targets"].items():
        own, best = known["itself"], known["best"]
        said.append(
            f"{name}: sensitivity {own['sensitivity']:.4f}, right under flips of {flip:g} "
            f"{100 * own['noise']:.1f} % of the time; the best there is "
            f"{100 * best['noise']:.1f} % at sensitivity {best['sensitivity']:.4f}"
        )
        lines = [line for line in result["final"] if line["target"] == name]
        rows = []
        for strength in dict.fromkeys(line["strength"] for line in lines):
            mine = [line for line in lines if line["strength"] == strength]
            values = [line["sensitivity"] for line in mine]
            row = [
                f"{strength:g}",
                f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})",
            ]
            rows.append(row + [f"{100 * np.mean([x[k] for x in mine]):.1f}" for k in OUTCOMES])
        header = ["strength", "sensitivity", *(f"{text}, %" for text in OUTCOMES.values())]
        said.append(report.table(header, rows))
        said += contrast_lines(known.get("contrasts", ()))
        for side, found in known["slopes"].items():
            parts = [
                f"{text} {interval(found[k], -1)} ({verdict(found[k])})"
                for k, text in OUTCOMES.items()
            ]
            said.append(
                f"{side} the target's sensitivity ({found['models']} networks), 0.01 less of it "
                f"gives, in points: {'; '.join(parts)}"
            )
    return "\n".join(said)


def contrast_lines(contrasts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each strength changes against the weakest, paired by seed."""
    said = []
    for one in contrasts:
        changes = [
            f"{text} {100 * value:+.1f} ± {np.nan if error is None else 100 * error:.1f}"
            for k, text in OUTCOMES.items()
            for value, error in [one[k]]
        ]
        said.append(
            f"strength {one['strength']:g} against the weakest, by seed: sensitivity "
            f"{one['sensitivity'][0]:+.4f}; in points: {', '.join(changes)}"
        )
    return said


def draw(record: RunRecord) -> None:
    """Redraw the figure: accuracies against sensitivity, a panel for each target."""
    result = record.read("result.json")
    targets: Mapping[str, Any] = result["targets"]
    figure, panels = report.figure(
        2.9 * max(len(targets), 2), 3.8, ncols=len(targets), squeeze=False, sharey=True
    )
    for panel, (name, known) in zip(panels[0], targets.items(), strict=True):
        lines = [line for line in result["final"] if line["target"] == name]
        x = np.array([line["sensitivity"] for line in lines])
        for i, (field, text) in enumerate(OUTCOMES.items()):
            y = 100 * np.array([line[field] for line in lines])
            panel.plot(x, y, "o", markersize=3, color=f"C{i}", alpha=0.7, label=text)
        own, best = known["itself"], known["best"]
        panel.axvline(own["sensitivity"], color="k", lw=1, ls=":", label="the target's sensitivity")
        panel.plot(
            best["sensitivity"], 100 * best["noise"], "k*", markersize=9, label="best under flips"
        )
        panel.set(title=name, xlabel="sensitivity, share of bits")
        panel.set_xlim(left=0)
    panels[0][0].set_ylabel("right, %")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    report.save(figure, record.directory / "known_sensitivity.png")
