"""Table and figures of the MNIST experiment, from run records alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.paper import claim
from experiments.run import report
from experiments.run.curve import by_model
from experiments.run.equal import at_accuracy, common_accuracy
from experiments.run.evidence import Evidence, below, shown
from experiments.run.record import RunRecord

PATCH, SIZE = 7, 28
APART = 1.0  # points of training accuracy beyond which final sensitivities are not compared
LABELS = {"vit": "ViT-small", "mlp": "MLP"}  # of records that do not name them
KINDS = {"sensitivity": "patch from the data", "sensitivity_gaussian": "Gaussian noise"}


def summary(record: RunRecord) -> str:
    """The table: model, seeds, accuracies in percent, sensitivity ± standard error."""
    rows = []
    result = record.read("result.json")
    labels = _labels(result)
    for name in labels:
        lines = [line for line in result["final"] if line["model"] == name]
        row = [labels[name], str(len(lines))]
        row += [
            f"{100 * np.mean([line[f'{p}_accuracy'] for line in lines]):.2f}"
            for p in ("train", "test")
        ]
        for kind in KINDS:
            value, error = report.pooled(
                *[[line[k] for line in lines] for k in (kind, f"{kind}_stderr")]
            )
            row.append(f"{value:.4f} ± {error:.4f}")
        rows.append(row)
    header = ["model", "seeds", "train acc. %", "test acc. %"]
    curves = by_model(record.read_metrics())
    equal = [_equal(curves, kind, labels) for kind in KINDS] if len(labels) > 1 else []
    text = report.table([*header, *[f"sensitivity, {kind}" for kind in KINDS.values()]], rows)
    return "\n".join([text, *report.differences(result, labels), *equal])


def _equal(curves: Mapping[str, report.Lines], kind: str, labels: Mapping[str, str]) -> str:
    """The sensitivities where each network first had the accuracy that all of them reached."""
    level = common_accuracy(curves)
    numbers = {name: _at(curves[name], level, kind) for name in curves}
    said = ", ".join(f"{labels[name]} {v:.4f} ± {e:.4f}" for name, (v, e) in numbers.items())
    return f"{kind.replace('_', ' ')} at {100 * level:.1f} % training accuracy: {said}"


def _at(lines: report.Lines, level: float, kind: str) -> tuple[float, float]:
    """A sensitivity at one training accuracy, pooled over seeds."""
    found = [tuple(one.values()) for one in at_accuracy(lines, level, kind)]
    value, error = report.pooled(*np.transpose(found))
    return value, error


def evidence(record: RunRecord) -> list[Evidence]:
    """The order of the two networks, at the end (paired) and at equal training accuracy."""
    result, curves = record.read("result.json"), by_model(record.read_metrics())
    finals = by_model(result["final"])
    if not {"vit", "mlp"} <= set(finals):
        return []
    printed = claim("Section 5", "ViT-small", "sensitivity")
    images, epochs = result["data"]["train"], {line["epoch"] for line in result["final"]}
    differs = "" if images == 60_000 else f"{images:,} of 60,000 training images, "
    differs += f"{' and '.join(map(str, sorted(epochs)))} epochs"
    level = common_accuracy(curves)
    found = []
    for kind, label in KINDS.items():
        ends = {
            name: report.pooled(*[[line[k] for line in lines] for k in (kind, f"{kind}_stderr")])
            for name, lines in finals.items()
        }
        fits = [100 * np.mean([x["train_accuracy"] for x in finals[n]]) for n in ("vit", "mlp")]
        pairs = [x for x in result.get("paired", ()) if (x["field"], x["model"]) == (kind, "mlp")]
        if pairs:
            paired = report.pooled(*[[x[k] for x in pairs] for k in ("difference", "stderr")])
            holds, text = shown(*paired), f", MLP minus ViT {paired[0]:+.4f} ± {paired[1]:.4f}"
        else:
            holds, text = below(ends["vit"], ends["mlp"]), ""
        equal = {name: _at(curves[name], level, kind) for name in ("vit", "mlp")}
        reached = f"at the end, {fits[0]:.1f} and {fits[1]:.1f} % training accuracy"
        if abs(fits[0] - fits[1]) > APART:  # the paper compares at equal accuracy
            holds, reached = None, f"{reached}: too far apart to compare"
        for how, numbers, told, more in (
            (reached, ends, holds, text),
            (f"at {100 * level:.1f} % training accuracy", equal, below(*equal.values()), ""),
        ):
            said = ", ".join(
                f"{name} {numbers[key][0]:.4f} ± {numbers[key][1]:.4f}"
                for key, name in LABELS.items()
            )
            ways = f"{label}, {how}"
            found.append(Evidence(printed, said + more, None, told, differs, ways))
    return found


def draw(record: RunRecord) -> None:
    """Redraw both figures of a run from its record."""
    result, lines = record.read("result.json"), record.read_metrics()
    labels = _labels(result)
    names = list(labels)
    figure, panels = report.figure(10, 3.2, ncols=3)
    fields = {"accuracy": "accuracy", **{k: f"sensitivity: {v}" for k, v in KINDS.items()}}
    for panel, (field, title) in zip(panels, fields.items(), strict=True):
        for i, name in enumerate(names):
            for part, dash in (
                (("train_", "-"), ("test_", ":")) if field == "accuracy" else (("", "-"),)
            ):
                label = labels[name] + (f", {part[:-1]}" if part else "")
                epochs, values = report.curve(lines, part + field, model=name)
                report.draw_band(panel, epochs, values, color=f"C{i}", linestyle=dash, label=label)
        panel.set(xlabel="epoch", title=title)
        panel.legend()
        if field != "accuracy":
            panel.set_ylim(bottom=0)
    report.save(figure, record.directory / "curves.png")

    shown = result["picture"]
    figure, panels = report.figure(2.2 * (3 + len(names)), 2.5, ncols=3 + len(names))
    row, column = divmod(shown["token"], SIZE // PATCH)
    for panel, (field, title) in zip(panels, {"image": "an image", **KINDS}.items(), strict=False):
        panel.imshow(np.array(shown[field]), cmap="gray", vmin=-1, vmax=1)
        panel.set_title(title)
        box = (column * PATCH - 0.5, row * PATCH - 0.5)
        if field != "image":
            panel.add_patch(_rectangle(box))
        for edge in range(PATCH, SIZE, PATCH):
            panel.axhline(edge - 0.5, color="C0", linewidth=0.4)
            panel.axvline(edge - 0.5, color="C0", linewidth=0.4)
    maps = [
        np.mean([f["sensitivity_per_token"] for f in result["final"] if f["model"] == name], axis=0)
        for name in names
    ]
    for panel, name, flips in zip(panels[3:], names, maps, strict=True):
        grid = flips.reshape(SIZE // PATCH, -1)
        image = panel.imshow(grid, cmap="magma", vmin=0, vmax=np.max(maps))
        panel.set_title(f"flip rate, {labels[name]}")
    figure.colorbar(image, ax=panels[3:].tolist(), fraction=0.05)
    for panel in panels:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(True)
    report.save(figure, record.directory / "measured.png")


def _labels(result: Mapping[str, Any]) -> dict[str, str]:
    """What each model of a record is called."""
    return {
        line["model"]: line.get("label") or LABELS.get(line["model"], line["model"])
        for line in result["final"]
    }


def _rectangle(corner: tuple[float, float]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, PATCH, PATCH, fill=False, edgecolor="C3", linewidth=1.5)
