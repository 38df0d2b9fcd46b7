"""Table and figures of the MNIST experiment, from run records alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.run import report
from experiments.run.record import RunRecord

PATCH, SIZE = 7, 28
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
    text = report.table([*header, *[f"sensitivity, {kind}" for kind in KINDS.values()]], rows)
    return "\n".join([text, *report.differences(result, labels)])


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
