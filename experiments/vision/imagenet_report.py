"""Table and figure of the ImageNet experiment, from run records alone.

Random weights are called so in every row, legend and title, and never stand beside the paper's
numbers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.paper import claim
from experiments.run import report
from experiments.run.evidence import Evidence, below
from experiments.run.record import RunRecord

RANDOM = "RANDOM"  # the name of weights that nobody trained
LABELS = {
    "vit-l16": "ViT-L/16",
    "vit-ti16": "ViT-Ti/16",
    "convnextv2-tiny": "ConvNeXtV2-Tiny",
    "convnextv2-atto": "ConvNeXtV2-Atto",
}
WARNING = "RANDOM WEIGHTS: not a result"


def summary(record: RunRecord) -> str:
    """A line for each network and variance: accuracy in percent, sensitivity ± standard error."""
    result = record.read("result.json")
    data = result["data"]
    header = ["network", "weights", "pixels", "images", f"{data['split']} acc. %", "variance"]
    rows = []
    for line in result["final"]:
        accuracy, paper = line["accuracy"], line["paper"]
        rows.append(
            [
                LABELS[line["model"]],
                line["weights"],
                str(line["image_size"]),
                str(line["examples"]),
                "no labels" if accuracy is None else f"{100 * accuracy:.2f}",
                f"{line['variance']:g}",
                f"{line['sensitivity']:.4f} ± {line['sensitivity_stderr']:.4f}",
                "-" if paper is None else f"{paper:.4f}",
            ]
        )
    text = report.table([*header, "sensitivity", "paper"], rows)
    return f"{text}\n{WARNING}" if _any_random(result["final"]) else text


def evidence(record: RunRecord) -> list[Evidence]:
    """The sensitivities of published weights, and their order; nothing of random ones."""
    result = record.read("result.json")
    differs = f"{result['data']['split']} images of {result['data']['source']}"
    numbers = {
        LABELS[line["model"]]: (line["sensitivity"], line["sensitivity_stderr"])
        for line in result["final"]
        if line["weights"] != RANDOM
        and line["variance"] == 15
        and line["model"] in ("vit-l16", "convnextv2-tiny")
    }
    found = [
        Evidence(claim("Section 5", label, "sensitivity"), *number, differs=differs)
        for label, number in numbers.items()
    ]
    if len(numbers) == 2:
        told = below(numbers["ViT-L/16"], numbers["ConvNeXtV2-Tiny"])
        said = ", ".join(f"{k} {v:.4f} ± {e:.4f}" for k, (v, e) in numbers.items())
        printed = claim("Section 5", "ViT-L/16", "order by sensitivity")
        found.append(Evidence(printed, said, holds=told, differs=differs))
    return found


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run: sensitivity against variance, and where in the image it lies."""
    lines = record.read("result.json")["final"]
    names = list(dict.fromkeys(line["model"] for line in lines))
    ratios = [1.4] + [1.0] * len(names)
    figure, panels = report.figure(
        4.4 + 3.0 * len(names), 3.4, ncols=1 + len(names), width_ratios=ratios
    )
    by_model = {name: [line for line in lines if line["model"] == name] for name in names}
    for i, (name, own) in enumerate(by_model.items()):
        own = sorted(own, key=lambda line: line["variance"])
        values = [line["sensitivity"] for line in own]
        low, high = np.transpose([line["sensitivity_interval"] for line in own])
        panels[0].errorbar(
            [line["variance"] for line in own],
            values,
            yerr=np.maximum([values - low, high - values], 0),
            color=f"C{i}",
            marker="o",
            capsize=3,
            label=_label(own[0]),
        )
        for line in own:
            if line["paper"] is not None:
                panels[0].plot(
                    line["variance"], line["paper"], "s", color=f"C{i}", fillstyle="none",
                    label=f"{LABELS[name]}, paper",
                )  # fmt: skip
    panels[0].set(xscale="log", xlabel="variance of the noise on a patch", title="sensitivity")
    panels[0].set_ylim(bottom=0)
    variances = sorted({line["variance"] for line in lines})
    panels[0].set_xticks(variances, [f"{variance:g}" for variance in variances])
    panels[0].set_xticks([], minor=True)
    panels[0].legend()
    maps = {name: _map(own[0]) for name, own in by_model.items()}
    highest = max(np.nanmax(grid, initial=0.0) for grid in maps.values())
    for panel, (name, grid) in zip(panels[1:], maps.items(), strict=True):
        first = by_model[name][0]
        image = panel.imshow(grid, cmap="magma", vmin=0, vmax=highest or 1.0)
        panel.set_title(f"flip rate by patch, variance {first['variance']:g}\n{_label(first)}")
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(True)
    figure.colorbar(image, ax=panels[1:].tolist(), fraction=0.05)
    if _any_random(lines):
        figure.suptitle(WARNING, color="C3", fontweight="bold")
    report.save(figure, record.directory / "imagenet.png")


def _map(line: Mapping[str, Any]) -> np.ndarray:
    rates = np.array(line["sensitivity_per_token"], float)  # null, where no draw fell, is NaN
    side = math.isqrt(len(rates))
    return rates.reshape(side, side)


def _label(line: Mapping[str, Any]) -> str:
    return LABELS[line["model"]] + (", RANDOM weights" if line["weights"] == RANDOM else "")


def _any_random(lines: Sequence[Mapping[str, Any]]) -> bool:
    return any(line["weights"] == RANDOM for line in lines)
