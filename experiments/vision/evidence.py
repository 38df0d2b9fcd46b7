"""What the records of CIFAR-10, SVHN and Fashion-MNIST say of paper A's claims."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.paper import WHOLE, Claim, claim
from experiments.run import report
from experiments.run.curve import Lines, by_model
from experiments.run.equal import at_accuracy, common_accuracy
from experiments.run.evidence import ORDER_FACTOR, Evidence, below
from experiments.run.record import RunRecord

# Place, name of the data, training images, variance of the noise on a patch: as in the paper.
PAPER = {
    "cifar": ("Fig. 4", "cifar10", 50_000, 1.0),
    "svhn": ("Fig. 19", "svhn", 73_257, 1.0),
    "fashion_mnist": ("Fig. 18", "fashion-mnist", 60_000, 5.0),
}
Number = tuple[float, float]  # and its standard error
Finals = Mapping[str, Sequence[Mapping[str, Any]]]
ADAM = " Adam"  # at the end of the name of a network that was trained by it
PATCHES, PIXELS = "patches", "random pixels, as the published code"


def evidence(record: RunRecord) -> list[Evidence]:
    """A number for every network as the paper has it, and how the networks compare."""
    config, result = record.read("config.json"), record.read("result.json")
    experiment = config["experiment"]
    place, data, images, variance = PAPER[experiment]
    differs = differences(result, data, images)
    # Names of more than one word are networks with other widths, optimizers or interventions.
    finals = {name: lines for name, lines in by_model(result["final"]).items() if " " not in name}
    labels = {name: lines[0]["label"] for name, lines in finals.items()}
    found = []
    for name, lines in finals.items():
        printed = claim(place, labels[name], "sensitivity")
        for field, how in (("sweep", PATCHES), ("scatter", PIXELS)):
            number = final_number(lines, field, variance)
            if number is not None:
                found.append(Evidence(printed, *number, differs=differs, measured=how))
        if experiment == "cifar" and labels[name] in ("ResNet-18", "ViT-small"):  # of Table 4
            number = final_number(lines, "sweep", variance)
            if number is not None:
                again = claim("Table 4", labels[name], "sensitivity")
                found.append(Evidence(again, *number, differs=differs, measured=PATCHES))
            if "whole" in lines[0]:
                number = pooled([line["whole"] for line in lines])
                printed = claim("Table 4", labels[name], WHOLE)
                found.append(Evidence(printed, *number, differs=differs))
    compared = {
        "cifar": _cifar,
        "svhn": lambda *known: _lowest(claim("Fig. 19", "ViT-small", BY_EPOCH), *known),
        "fashion_mnist": lambda *known: _lowest(claim("Fig. 18", "ViT-small", BY_EPOCH), *known),
    }[experiment]
    kept = {
        name: lines for name, lines in by_model(record.read_metrics()).items() if name in finals
    }
    if any(is_transformer(name) for name in kept) and not all(map(is_transformer, kept)):
        found += compared(result, kept, labels, variance, differs)
    if experiment == "cifar":
        found += _adam(config, result, record.read_metrics(), variance, differs)
    return found


BY_EPOCH = "sensitivity by epoch"


def is_transformer(name: str) -> bool:
    return name.split()[0] in ("vit", "vit-simple")


def differences(result: Mapping[str, Any], data: str, images: int) -> str:
    """How a run's data are not the paper's, in words."""
    told, said = result["data"], []
    if told["name"] != data:
        said.append(f"other data: {told['name']}")
    if told["train"] != images:
        said.append(f"{told['train']:,} of {images:,} training images")
    epochs = {line["epoch"] for line in result["final"]}
    said.append(f"{_range(epochs)} epochs")
    accuracies = {round(100 * line["train_accuracy"], 1) for line in result["final"]}
    said.append(f"training accuracy {_range(accuracies)} %")
    return ", ".join(said)


def _range(values: set[Any]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def final_number(lines: Sequence[Mapping[str, Any]], field: str, variance: float) -> Number | None:
    """The final measurement at one level of the noise, pooled over seeds; None without."""
    points = [p for line in lines for p in line.get(field, ()) if p["sigma2"] == variance]
    return pooled(points) if points else None


def pooled(points: Sequence[Mapping[str, Any]]) -> Number:
    """Mean over seeds and its standard error."""
    return report.pooled(
        [point["sensitivity"] for point in points],
        [point["sensitivity_stderr"] for point in points],
    )


def says(number: Number, label: str) -> str:
    return f"{label} {number[0]:.4f} ± {number[1]:.4f}"


def _lowest(
    printed: Claim,
    result: Mapping[str, Any],
    curves: Finals,
    labels: Mapping[str, str],
    variance: float,
    differs: str,
    *,
    fields: tuple[str, str] = ("sweep", "sensitivity"),
    tokens: str = "",
) -> list[Evidence]:
    """Whether the transformers end below every other network; beside it, at equal accuracy."""
    last, field = fields
    finals = {n: final_number(v, last, variance) for n, v in by_model(result["final"]).items()}
    ends = {name: finals[name] for name in curves if finals.get(name) is not None}
    level = common_accuracy(curves)
    equal = {name: pooled(at_accuracy(curves[name], level, field)) for name in curves}
    found = []
    at_level = f"at {100 * level:.1f} % training accuracy"
    for how, numbers in ((f"{tokens}at the end", ends), (tokens + at_level, equal)):
        mine = [n for name, n in numbers.items() if is_transformer(name)]
        others = [n for name, n in numbers.items() if not is_transformer(name)]
        if mine and others:
            text = ", ".join(says(n, labels[name]) for name, n in numbers.items())
            told = below(max(mine), min(others))
            found.append(Evidence(printed, text, holds=told, differs=differs, measured=how))
    return found


def _adam(
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    metrics: Lines,
    variance: float,
    differs: str,
) -> list[Evidence]:
    """Whether the transformers are below the others when all are trained by Adam."""
    lines, final = (
        [
            {**line, "model": line["model"].removesuffix(ADAM)}
            for line in lines
            if line["model"].endswith(ADAM) and " " not in line["model"].removesuffix(ADAM)
        ]
        for lines in (metrics, result["final"])
    )
    curves = by_model(lines)
    if not final or not any(map(is_transformer, curves)) or all(map(is_transformer, curves)):
        return []
    labels = {line["model"]: line["label"].removesuffix(f",{ADAM}") for line in final}
    rate, every = config["learning_rate"] or 0.002, config.get("halve_every", 8)
    differs += f", rate {rate:g}, halved every {every} epochs"
    known = ({"final": final}, curves, labels, variance, differs)
    printed = claim("Fig. 14", "all", "order by sensitivity with Adam")
    found = []
    for fields, how in (
        (("sweep", "sensitivity"), PATCHES),
        (("scatter", "sensitivity_scatter"), PIXELS),
    ):
        if all(field in rows[0] for field, rows in zip(fields, (final, lines), strict=True)):
            found += _lowest(printed, *known, fields=fields, tokens=f"{how}, ")
    return found


def _cifar(
    result: Mapping[str, Any],
    curves: Finals,
    labels: Mapping[str, str],
    variance: float,
    differs: str,
) -> list[Evidence]:
    """Whether the transformers are below, and at equal accuracy by an order of magnitude."""
    found = _lowest(
        claim("Fig. 4, 16", "ViTs", BY_EPOCH), *(result, curves, labels), variance, differs
    )
    printed = claim("Fig. 4", "ViTs", "sensitivity at equal training accuracy")
    level = common_accuracy(curves)
    for field, how in (("sensitivity", PATCHES), ("sensitivity_scatter", PIXELS)):
        if not all(field in lines[0] for lines in curves.values()):
            continue
        numbers = {name: pooled(at_accuracy(curves[name], level, field)) for name in curves}
        highest = max(n for name, n in numbers.items() if is_transformer(name))
        lowest = min(n for name, n in numbers.items() if not is_transformer(name))
        far, near = below(highest, lowest, ORDER_FACTOR), below(highest, lowest)
        text = ", ".join(says(n, labels[name]) for name, n in numbers.items())
        text += f", all at {100 * level:.1f} % training accuracy"
        holds = True if far else False if near is False else None
        found.append(Evidence(printed, text, holds=holds, differs=differs, measured=how))
    return found
