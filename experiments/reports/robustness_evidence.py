"""What records of robustness and flatness say of paper A's claims (Section 7, Table 2)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.paper import claim
from experiments.run import report
from experiments.run.evidence import Evidence, shown
from experiments.run.record import RunRecord

Lines = Sequence[Mapping[str, Any]]
PLACE = "Section 7"
LEVELS = {"augmentation": 0.1, "regularisation": 0.25}  # the paper's


def evidence(record: RunRecord) -> list[Evidence]:
    """Of every transformer that was trained plainly and with an intervention; and Table 2."""
    result = record.read("result.json")
    found = table_2(record)
    for plain, touched, kind in _beside(result["final"]):
        differs = differences(result, [*plain, *touched])
        change = [b["sensitivity"] - a["sensitivity"] for a, b in zip(plain, touched, strict=True)]
        errors = [
            np.hypot(a["sensitivity_stderr"], b["sensitivity_stderr"])
            for a, b in zip(plain, touched, strict=True)
        ]
        value, error = report.pooled(change, errors)
        found.append(
            Evidence(
                claim(PLACE, "ViT-small", f"sensitivity with {kind}"),
                f"{touched[0]['label']} minus {plain[0]['label']}: {value:+.4f} ± {error:.4f}",
                holds=shown(-value, error),
                differs=differs,
            )
        )
        rises = {
            name: _rise(plain, touched, name, result["data"]["corrupted"])
            for name in ("corruption_accuracy", "noise_accuracy", "other_accuracy")
            if all(line.get(name) is not None for line in (*plain, *touched))
        }
        words = {"corruption": "all", "noise": "noise-like", "other": "others"}
        text = ", ".join(
            f"{words[name.removesuffix('_accuracy')]} {100 * v:+.1f} ± {100 * e:.1f} points"
            for name, (v, e) in rises.items()
        )
        found.append(
            Evidence(
                claim(PLACE, "ViT-small", f"accuracy under corruptions, {kind}"),
                text,
                holds=shown(*rises["corruption_accuracy"]),
                differs=differs,
            )
        )
    return found


def table_2(record: RunRecord) -> list[Evidence]:
    """ShOp and ShPred of the transformer, plain and regularised."""
    result = record.read("result.json")
    found = []
    for intervention, end in (("none", ""), ("regularisation", " + regularisation")):
        lines = _transformer(result["final"], intervention)
        for field, name in (("shop", "ShOp"), ("shpred", "ShPred")):
            for variant, how in (("", "as defined"), ("_code", "as in the published code")):
                if lines and f"{field}{variant}" in lines[0]:
                    values, errors = (
                        [line[f"{field}{variant}{part}"] for line in lines]
                        for part in ("", "_stderr")
                    )
                    value, error = report.pooled(values, errors)
                    found.append(
                        Evidence(
                            claim("Table 2", f"ViT-small{end}", name),
                            value,
                            error,
                            differs=differences(result, lines),
                            measured=how,
                        )
                    )
    return found


def differences(result: Mapping[str, Any], lines: Lines) -> str:
    """How a run's network, data and corruptions are not the paper's, in words."""
    data, said = result["data"], []
    if data["name"] != "cifar10":
        said.append(f"other data: {data['name']}")
    said.append(f"{data['train']:,} of 50,000 training images")
    epochs = sorted({line["epoch"] for line in lines})
    said.append(f"{' to '.join(f'{e:g}' for e in (epochs[0], epochs[-1])[: len(epochs)])} epochs")
    accuracies = [100 * line["train_accuracy"] for line in lines]
    said.append(f"training accuracy {min(accuracies):.1f} to {max(accuracies):.1f} %")
    for kind, level in {(x["intervention"], x["level"]) for x in lines}:
        if kind in LEVELS and level != LEVELS[kind]:
            said.append(f"{kind} {level:g} where the paper has {LEVELS[kind]:g}")
    if "," in lines[0]["label"]:
        said.append(lines[0]["label"].split(", ", 1)[1])
    return ", ".join(said)


def _beside(lines: Lines) -> list[tuple[Lines, Lines, str]]:
    """For each intervention on a transformer its lines, and those of the same one without."""
    found = []
    for kind in ("augmentation", "regularisation"):
        touched = _transformer(lines, kind)
        if not touched:
            continue
        base = touched[0]["model"].split(f" {kind}")[0]
        plain = [x for x in lines if x["model"] == base]
        if [x["seed"] for x in plain] == [x["seed"] for x in touched]:
            found.append((plain, touched, kind))
    return found


def _transformer(lines: Lines, kind: str) -> Lines:
    """One transformer with this intervention: of several levels the one nearest to the paper's.

    A level of 0 is trained plainly, and no intervention.
    """
    mine = [x for x in lines if (x["arch"], x["intervention"]) == ("vit", kind) and x["level"] != 0]
    if not mine:
        return []
    first = min(mine, key=lambda x: abs(x["level"] - LEVELS[kind]) if kind in LEVELS else 0)
    return [x for x in mine if x["model"] == first["model"]]


def _rise(plain: Lines, touched: Lines, name: str, images: int) -> tuple[float, float]:
    """Change of an accuracy, pooled over seeds; the error allows for the images at least."""
    pairs = list(zip(plain, touched, strict=True))
    change = [b[name] - a[name] for a, b in pairs]
    errors = [np.sqrt((a[name] * (1 - a[name]) + b[name] * (1 - b[name])) / images)
              for a, b in pairs]  # fmt: skip
    return report.pooled(change, errors)
