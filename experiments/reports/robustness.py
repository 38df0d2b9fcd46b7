"""Tables and figures of the robustness experiment, from run records alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.reports.robustness_evidence import evidence as evidence
from experiments.run import report
from experiments.run.curve import by_model
from experiments.run.record import RunRecord

Lines = Sequence[Mapping[str, Any]]
OUTCOMES = {
    "corruption_accuracy": "all corruptions",
    "noise_accuracy": "noise-like",
    "other_accuracy": "other",
}
BEYOND = True  # with several strengths it asks what neither paper does
MARKS = {"none": "o", "augmentation": "^", "regularisation": "s"}


def summary(record: RunRecord) -> str:
    """A line for each network, then what goes together, then what follows what.

    Accuracies in percent, means over seeds; "relative" is accuracy under corruptions over clean
    accuracy on the same images, mCE the mean corruption error without a reference network.
    """
    result = record.read("result.json")
    data, finals = result["data"], result["final"]
    header = ["network", "seeds", "train acc.", "clean acc.", "sensitivity", "corrupted acc."]
    header += ["noise-like", "other", "mCE", "relative", "ShOp", "ShPred"]
    rows = []
    for lines in by_model(finals).values():
        value, error = report.pooled(*_columns(lines, "sensitivity", "sensitivity_stderr"))
        row = [lines[0]["label"], str(len(lines)), _percent(lines, "train_accuracy")]
        row += [_percent(lines, "clean"), f"{value:.4f} ± {error:.4f}"]
        row += [_percent(lines, name) for name in OUTCOMES]
        row += [f"{_mean(lines, 'mce'):.3f}", f"{_mean(lines, 'relative'):.3f}"]
        row += [f"{_mean(lines, name):.3g}" for name in ("shop", "shpred")]
        rows.append(row)
    severities = ", ".join(map(str, result["severities"]))
    title = (
        f"{data['name']}: {data['corrupted']} test images under {len(finals[0]['accuracy'])} "
        f"corruptions at severities {severities}; sensitivity on {data['measured']} training images"
    )
    labels = {line["model"]: line["label"] for line in finals}
    return "\n".join(
        [
            title,
            report.table(header, rows),
            *report.differences(result, labels),
            *association_lines(result),
            *sweep_lines(result),
        ]
    )


def association_lines(result: Mapping[str, Any]) -> list[str]:
    """What is said of the correlation over all trained models."""
    return [
        f"sensitivity and accuracy under {_called(name)} over {found['models']} models of "
        f"{found['networks']} networks: Spearman's rho {interval(found['rho'])}; given clean "
        f"accuracy {interval(found['partial'])}"
        for name, found in result["associations"].items()
    ]


def sweep_lines(result: Mapping[str, Any]) -> list[str]:
    """What a hundredth of sensitivity is worth in percentage points, where it was set."""
    said = []
    for arch, fields in result["sweeps"].items():
        for field, found in fields.items():
            token = field.removeprefix("sensitivity").replace("_size", ", patches of ")
            low, high = found["range"]
            said.append(
                f"{arch}{token}: sensitivity from {low:.4f} to {high:.4f}{_moved(found)}; 0.01 "
                "less of it gives, in points of accuracy:"
            )
            for name in OUTCOMES:
                if name in found:
                    direct, beyond = found[name], found[f"{name}_beyond_clean"]
                    said.append(
                        f"  {_called(name)}: {interval(direct, -1)} ({verdict(direct)}); beyond "
                        f"clean accuracy {interval(beyond, -1)} ({verdict(beyond)})"
                    )
            said.append(f"  clean: {interval(found['clean'], -1)} ({verdict(found['clean'])})")
    return said


def _moved(found: Mapping[str, Any]) -> str:
    """Whether the strength did set it."""
    if "set" not in found:
        return ""
    high = found["set"]["high"]
    told = "set by it" if high is not None and high < 0 else "not clearly set by it"
    return f" ({told}: rho of strength and sensitivity {interval(found['set'])})"


def verdict(slope: Mapping[str, Any]) -> str:
    """What an interval of a slope on sensitivity says of lowering it."""
    low, high = slope["low"], slope["high"]
    if low is None or high is None:
        return "too few to tell"
    return "helps" if high < 0 else "harms" if low > 0 else "undecided"


def interval(found: Mapping[str, Any], factor: float = 1) -> str:
    """A statistic with its 95 % interval."""
    ends = [found[k] for k in ("value", "low", "high")]
    value, low, high = (np.nan if end is None else factor * end for end in ends)
    if factor < 0:
        low, high = high, low
    if np.isnan(value):
        return "undefined"
    between = f"[{low:+.2f}, {high:+.2f}]" if np.isfinite([low, high]).all() else "[too few]"
    return f"{value:+.2f} {between}"


def draw(record: RunRecord) -> None:
    """Redraw the figures of a run from its record."""
    result = record.read("result.json")
    models = by_model(result["final"])
    _corruptions(record, models, result)
    _scatter(record, models, result)
    _variants(record, models, result)


def _corruptions(record: RunRecord, models: Mapping[str, Lines], result: Mapping[str, Any]) -> None:
    """Accuracy by corruption, severities averaged; accuracy by severity, corruptions averaged."""
    names = list(next(iter(models.values()))[0]["accuracy"])
    figure, (left, right) = report.figure(
        11, 0.6 + 0.24 * max(len(names), 12), ncols=2, width_ratios=[2, 1]
    )
    for i, lines in enumerate(models.values()):
        table = 100 * np.array([list(line["accuracy"].values()) for line in lines])  # (M, C, S)
        style = {"color": f"C{i % 10}", "marker": MARKS[lines[0]["intervention"]]}
        places = np.arange(len(names)) + 0.6 * (i / max(len(models) - 1, 1) - 0.5)
        values = table.mean((0, 2))
        left.plot(values, places, linestyle="", markersize=4, label=lines[0]["label"], **style)
        by_severity = table.mean((0, 1))
        clean = 100 * np.mean([line["clean"] for line in lines])
        right.plot([0, *result["severities"]], [clean, *by_severity], markersize=4, **style)
    left.set(
        yticks=range(len(names)),
        yticklabels=[name.replace("_", " ") for name in names],
        xlabel="accuracy, %, mean over severities",
    )
    left.invert_yaxis()
    left.grid(axis="y", alpha=0.3)
    right.set(xlabel="severity (0: clean)", ylabel="accuracy, %, mean over corruptions")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(_subject(result), fontsize=10)
    report.save(figure, record.directory / "corruptions.png")


def _scatter(record: RunRecord, models: Mapping[str, Lines], result: Mapping[str, Any]) -> None:
    """Sensitivity against accuracy under corruptions, a point for each trained model."""
    found = {n: text for n, text in OUTCOMES.items() if n in result["associations"]}
    figure, panels = report.figure(11, 3.9, ncols=len(found), squeeze=False)
    for panel, (name, text) in zip(panels[0], found.items(), strict=True):
        for i, lines in enumerate(models.values()):
            x, y, errors = _columns(lines, "sensitivity", name, "sensitivity_stderr")
            panel.errorbar(
                x, 100 * y, xerr=1.96 * errors, fmt=MARKS[lines[0]["intervention"]], markersize=5,
                color=f"C{i % 10}", elinewidth=0.7, label=lines[0]["label"],
            )  # fmt: skip
        one = result["associations"][name]
        panel.set(
            xlabel="sensitivity (95 % interval)",
            ylabel="accuracy, %",
            title=f"{text}: rho {interval(one['rho'])}\ngiven clean accuracy "
            f"{interval(one['partial'])}",
        )
        panel.set_xlim(left=0)
        panel.title.set_fontsize(9)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(_subject(result), fontsize=10)
    report.save(figure, record.directory / "scatter.png")


def _variants(record: RunRecord, models: Mapping[str, Lines], result: Mapping[str, Any]) -> None:
    """The networks that were trained with interventions beside the plain ones (Table 2, Fig. 9)."""
    touched = {line["arch"] for line in result["final"] if line["intervention"] != "none"}
    chosen = [lines for lines in models.values() if lines[0]["arch"] in touched] or list(
        models.values()
    )
    fields = {
        "sensitivity": ("sensitivity", 1),
        "corruption_accuracy": ("accuracy under corruptions, %", 100),
        "shop": ("ShOp", 1),
        "shpred": ("ShPred", 1),
    }
    figure, panels = report.figure(11, 1.2 + 0.3 * len(chosen), ncols=len(fields), sharey=True)
    for panel, (field, (text, factor)) in zip(panels, fields.items(), strict=True):
        for place, lines in enumerate(chosen):
            values = factor * _columns(lines, field)[0]
            panel.barh(place, values.mean(), color=f"C{place % 10}", alpha=0.5)
            panel.plot(values, [place] * len(values), "k.", markersize=4)
        panel.set(xlabel=text, yticks=range(len(chosen)))
    panels[0].set_yticklabels([lines[0]["label"] for lines in chosen])
    panels[0].invert_yaxis()
    figure.suptitle(f"{_subject(result)}; points: seeds", fontsize=10)
    report.save(figure, record.directory / "variants.png")


def _subject(result: Mapping[str, Any]) -> str:
    data = result["data"]
    return f"{data['name']}, {data['train']:,} training images"


def _called(name: str) -> str:
    return f"{OUTCOMES[name]} corruptions".replace("corruptions corruptions", "corruptions")


def _columns(lines: Lines, *names: str) -> list[np.ndarray]:
    return [np.array([line[name] for line in lines], float) for name in names]


def _mean(lines: Lines, name: str) -> float:
    return float(_columns(lines, name)[0].mean())


def _percent(lines: Lines, name: str) -> str:
    values = [line[name] for line in lines]
    return "-" if None in values else f"{100 * np.mean(values):.1f}"
