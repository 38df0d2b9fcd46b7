"""Table and figures of the language experiment, from run records alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.paper import WHOLE, printed
from experiments.reports.language_evidence import TRAINING, pair
from experiments.reports.language_evidence import evidence as evidence
from experiments.run import report
from experiments.run.curve import by_model
from experiments.run.equal import at_accuracy, common_accuracy
from experiments.run.record import RunRecord

BEYOND = True  # vocabularies and interventions, which the paper does not have
Lines = report.Lines
WAYS = {
    "sensitivity": "one token",
    "sensitivity_renormalised": "renormalised",
    "sensitivity_words": "on words",
    "sensitivity_block": "LayerNorm again",
    "sensitivity_whole": "whole sentence",
    "sensitivity_validation": "validation pairs",
}


def setting(task: str) -> str:
    """The setting of the paper's numbers for a task, as `experiments.paper` has it."""
    return f"{task.upper()}, {TRAINING}"


def number(lines: Lines, field: str) -> tuple[float, float] | None:
    """Mean over seeds and its error; None where the network has no such measure."""
    if field not in lines[0]:
        return None
    return report.pooled(*[[line[name] for line in lines] for name in (field, f"{field}_stderr")])


def summary(record: RunRecord) -> str:
    """The table, paired differences, equal accuracy, and what the LayerNorm makes of the noise."""
    result, config = record.read("result.json"), record.read("config.json")
    finals = by_model(result["final"])
    labels = {name: lines[0]["label"] for name, lines in finals.items()}
    at_fifteen = config["sigma2"][0] == 15
    rows = []
    for name, lines in finals.items():
        known = printed(
            ("Section 6",), labels[name], "sensitivity", setting=setting(config["task"])
        ) if at_fifteen else None  # fmt: skip
        whole = printed(("Table 4",), labels[name], WHOLE) if config["task"] == "qqp" else None
        rows.append(
            [
                labels[name],
                str(config["batch_size"] * lines[0]["step"]),
                *(f"{_mean(lines, f'{split}_accuracy'):.1f}" for split in ("train", "validation")),
                _shown(number(lines, "sensitivity")),
                "-" if known is None else f"{known}",
                _shown(pair(lines, "sensitivity_tokenwise")),
                _shown(number(lines, "sensitivity_validation")),
                _shown(number(lines, "sensitivity_whole")),
                "-" if whole is None else f"{whole}",
                _shown(pair(lines, "sensitivity_cls")),
            ]
        )
    header = ["network", "points", "train acc. %", "val. acc. %", "S", "paper", "S by token"]
    said = [report.table([*header, "S validation", "S whole", "paper", "S at CLS"], rows)]
    said += report.differences(result, labels)
    said += _equal(record, labels) + _layer_norm(finals, labels)
    return "\n".join(said)


def _mean(lines: Lines, field: str) -> float:
    return 100 * float(np.mean([line[field] for line in lines]))


def _shown(value: tuple[float, float] | None) -> str:
    return "-" if value is None else f"{value[0]:.4f} ± {value[1]:.4f}"


def _equal(record: RunRecord, labels: Mapping[str, str]) -> list[str]:
    """Each network where its training accuracy first reached what all of them have reached."""
    models = {name: lines for name, lines in by_model(record.read_metrics()).items()
              if name in labels}  # fmt: skip
    if len(models) < 2:
        return []
    level, found = common_accuracy(models), []
    for name, lines in models.items():
        at = at_accuracy(lines, level)
        value, error = report.pooled(
            *[[one[f"sensitivity{end}"] for one in at] for end in ("", "_stderr")]
        )
        found.append(f"{labels[name]} {value:.4f} ± {error:.4f}")
    return [f"at training accuracy {100 * level:.1f} %: {', '.join(found)}"]


def _layer_norm(finals: Mapping[str, Lines], labels: Mapping[str, str]) -> list[str]:
    """S where the noise meets the network at full size, and where a LayerNorm follows it."""
    said = []
    for name, lines in finals.items():
        ways = {WAYS[way]: number(lines, way) for way in list(WAYS)[:4]}
        known = [f"{way} {_shown(value)}" for way, value in ways.items() if value is not None]
        if len(known) > 1:
            said.append(f"{labels[name]}, where the noise goes: {', '.join(known)}")
    for name in finals:
        if name.startswith("roberta") and "lstm" in finals:
            found = gap_share(finals["lstm"], finals[name])
            if found is not None:
                value, error = found
                said.append(
                    f"of the gap between LSTM and {labels[name]}, renormalising the noise of both "
                    f"takes away {100 * value:.0f} ± {100 * error:.0f} %"
                )
    return said


def gap_share(lstm: Lines, other: Lines) -> tuple[float, float] | None:
    """1 - (S'_lstm - S'_other) / (S_lstm - S_other), S' with the noise renormalised in both.

    None unless the gap S_lstm - S_other is more than two standard errors from 0. The error is that
    of a ratio of independent estimates, and so on the large side.
    """
    both = lstm, other
    a, b = (number(lines, "sensitivity") for lines in both)
    c, d = (number(lines, "sensitivity_renormalised") for lines in both)
    if a is None or b is None or c is None or d is None:
        return None
    gap, error = a[0] - b[0], np.hypot(a[1], b[1])
    if abs(gap) <= 2 * error:
        return None
    ratio = (c[0] - d[0]) / gap
    return 1 - ratio, float(np.hypot(np.hypot(c[1], d[1]), ratio * error) / abs(gap))


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run from its record; of an unfinished one as far as it is."""
    config, models = record.read("config.json"), by_model(record.read_metrics())
    finished = (record.directory / "result.json").exists()
    result: Mapping[str, Any] = record.read("result.json") if finished else {}
    finals = by_model(result.get("final", []))
    labels = {name: name for name in models if not finished}
    labels |= {name: lines[0]["label"] for name, lines in finals.items()}
    figure, grid = report.figure(11, 7, nrows=2, ncols=3)
    panels = grid.ravel()
    for i, (name, label) in enumerate(labels.items()):
        style = {"color": f"C{i}", "label": label}
        _curves(panels, models[name], config["batch_size"], style)
        if name in finals:
            _by_place(panels[3], finals[name][0], style)
            _ways(panels[4], finals[name], i, len(finals))
    _differences(panels[5], result, labels)
    thousand = "training points, thousands"
    panels[0].set(xlabel=thousand, ylabel="sensitivity (95 % interval)", ylim=(0, None))
    panels[1].set(xlabel=thousand, ylabel="accuracy, % (dotted: validation)")
    panels[2].set(xlabel="training accuracy, %", ylabel="sensitivity", ylim=(0, None))
    panels[3].set(xlabel="position, from the last token", ylabel="flip rate (x: CLS)")
    panels[3].set(ylim=(0, None))
    panels[4].set(ylabel="sensitivity at the end (95 %)", ylim=(0, None))
    panels[1].legend(fontsize=7)
    figure.suptitle(
        f"{config['task']}, noise of variance {config['sigma2'][0]:g}, width {config['width']}, "
        f"depth {config['depth']}, seeds: {config['seeds']}",
        fontsize=10,
    )
    report.save(figure, record.directory / "language.png")
    if any("vocabulary" in lines[0] for lines in finals.values()):
        draw_vocabularies(finals, record.directory / "vocabulary.png")


def draw_vocabularies(finals: Mapping[str, Lines], path: Path) -> None:
    """Sensitivity and accuracy of each architecture against what a token is."""
    kinds: dict[str, list[Lines]] = {}
    for _, lines in sorted(finals.items(), key=lambda item: item[1][0]["vocabulary"]):
        kinds.setdefault(lines[0]["label"].split(",")[0], []).append(lines)
    figure, panels = report.figure(10, 3.2, ncols=3)
    for i, (label, group) in enumerate(kinds.items()):
        sizes = [lines[0]["vocabulary"] for lines in group]
        for panel, field in zip(panels, ("sensitivity", "sensitivity_whole"), strict=False):
            values, errors = zip(*[number(lines, field) or (np.nan, 0) for lines in group],
                                 strict=True)  # fmt: skip
            error = 1.96 * np.array(errors)
            panel.errorbar(sizes, values, error, fmt="o-", color=f"C{i}", label=label)
        for split, style in (("train", "o-"), ("validation", "o:")):
            shares = [_mean(lines, f"{split}_accuracy") for lines in group]
            panels[2].plot(sizes, shares, style, color=f"C{i}")
    for panel, said in zip(
        panels, ("S, one token (95 %)", "S, whole sentence (95 %)", "accuracy, %"), strict=True
    ):
        panel.set(xscale="log", xlabel="sub-words", ylabel=said)
        panel.set_xticks(sorted({lines[0]["vocabulary"] for lines in finals.values()}))
        panel.get_xaxis().set_major_formatter("{x:.0f}")
        panel.minorticks_off()
    for panel in panels[:2]:
        panel.set_ylim(0, None)
    sizes = {lines[0]["vocabulary"]: lines[0]["tokens"] for lines in finals.values()}
    told = ", ".join(f"{size}: {tokens:.0f}" for size, tokens in sorted(sizes.items()))
    figure.suptitle(
        f"tokens a pair by vocabulary: {told} (accuracy dotted: validation)", fontsize=9
    )
    panels[0].legend()
    report.save(figure, path)


def _curves(panels: Any, lines: Lines, batch_size: int, style: Mapping[str, Any]) -> None:
    """Sensitivity and accuracy by training points, and one against the other."""
    steps, values = report.curve(lines, "sensitivity", at="step")
    _, errors = report.curve(lines, "sensitivity_stderr", at="step")
    points, colour = steps * batch_size / 1000, style["color"]
    means, spread = np.array(
        [report.pooled(v, e) for v, e in zip(values.T, errors.T, strict=True)]
    ).T
    panels[0].plot(points, means, **style)
    panels[0].fill_between(
        points, means - 1.96 * spread, means + 1.96 * spread, color=colour, alpha=0.2, lw=0
    )
    _, train = report.curve(lines, "train_accuracy", at="step")
    _, validation = report.curve(lines, "validation_accuracy", at="step")
    report.draw_band(panels[1], points, 100 * train, **style)
    report.draw_band(panels[1], points, 100 * validation, color=colour, linestyle=":")
    panels[2].errorbar(
        100 * train.mean(0), means, 1.96 * spread, fmt="o-", markersize=3, lw=1, **style
    )


def _by_place(panel: Any, line: Mapping[str, Any], style: Mapping[str, Any]) -> None:
    """The first seed's flip rate by position from the end, CLS marked."""
    places = -np.array(line["sensitivity_places"], float)
    values, errors = (
        np.array(line[f"sensitivity_by_place{end}"], float) for end in ("", "_stderr")
    )
    panel.errorbar(places, values, 1.96 * errors, lw=1, elinewidth=0.4, **style)
    (value, error), first = pair([line], "sensitivity_cls"), min(places, default=0) - 4
    panel.errorbar([first], [value], 1.96 * error, fmt="x", color=style["color"])


def _ways(panel: Any, lines: Lines, i: int, of: int) -> None:
    """The final sensitivity in each way that the noise may go."""
    for x, way in enumerate(WAYS):
        found = number(lines, way)
        if found is not None:
            place = x + (i - (of - 1) / 2) * 0.15
            panel.errorbar([place], found[0], 1.96 * found[1], fmt="o", ms=3, color=f"C{i}")
    panel.set_xticks(range(len(WAYS)), list(WAYS.values()), rotation=30, ha="right", fontsize=7)


def _differences(panel: Any, result: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    """Paired differences from the first network, pooled over seeds."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in result.get("paired", ()):
        found.setdefault((line["model"], line["field"]), []).append(line)
    names: Sequence[str] = list(labels)
    for (model, field), lines in found.items():
        if field in WAYS:
            value, error = report.pooled(*[[x[k] for x in lines] for k in ("difference", "stderr")])
            i = names.index(model)
            place = list(WAYS).index(field) + (i - (len(names) - 1) / 2) * 0.15
            panel.errorbar([place], value, 1.96 * error, fmt="o", ms=3, color=f"C{i}")
    panel.axhline(0, color="k", lw=0.5)
    panel.set_xticks(range(len(WAYS)), list(WAYS.values()), rotation=30, ha="right", fontsize=7)
    panel.set_ylabel(f"minus {next(iter(labels.values()), '')}, paired (95 %)")
