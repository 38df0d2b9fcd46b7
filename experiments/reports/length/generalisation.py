"""What is learned of random functions from some strings (paper B, Fig. 4), from records alone."""

import numpy as np

from experiments.paper import claim
from experiments.run import report
from experiments.run.evidence import Evidence, shown
from experiments.run.record import RunRecord

KINDS = {"learned": "learned completion", "random": "random completion"}


def spread(values: list[float]) -> str:
    """Mean and standard error over functions."""
    error = f" ± {_pooled(values)[1]:.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{error}"


def summary(record: RunRecord) -> str:
    """Two tables: sensitivity of what was learned, and the sharpness of fitting each completion."""
    result, rows = record.read("result.json"), []
    for count in dict.fromkeys(line["strings"] for line in result["final"]):
        lines = [line for line in result["final"] if line["strings"] == count]
        fitted = [line for line in lines if line["fitted"]]
        row = [str(count), f"{len(fitted)} of {len(lines)}"]
        if fitted:
            row.append(f"{np.mean([line['step'] for line in fitted]):.0f}")
            row += [
                spread([line[f"sensitivity_{kind}"] for line in fitted])
                for kind in ("learned", "random", "target")
            ]
            less = [line["sensitivity_random"] - line["sensitivity_learned"] for line in fitted]
            others = [line["elsewhere"] for line in fitted if line["elsewhere"] is not None]
            row += [spread(less), f"{np.mean(others):.3f}" if others else "-"]
        rows.append([*row, *["-"] * (8 - len(row))])
    header = ["strings", "fitted", "steps", "as learned", "as random completion", "as target",
              "random - learned", "accuracy elsewhere"]  # fmt: skip
    text = report.table(header, rows)
    rows = []
    for count in dict.fromkeys(line["strings"] for line in result["completed"]):
        pairs: dict[int, dict[str, float]] = {}
        for kind, label in KINDS.items():
            lines = [
                line
                for line in result["completed"]
                if line["strings"] == count and line["kind"] == kind
            ]
            fitted = [line for line in lines if line["fitted"]]
            row = [str(count), label, f"{len(fitted)} of {len(lines)}"]
            if fitted:
                for line in fitted:
                    pairs.setdefault(line["function"], {})[kind] = line["sharpness"]
                row += [
                    spread([line[field] for line in fitted])
                    for field in ("sensitivity", "sharpness", "sharpness_seen")
                ]
            rows.append([*row, *["-"] * (7 - len(row))])
        whole = [pair["random"] - pair["learned"] for pair in pairs.values() if len(pair) == 2]
        rows[-1][6] = spread(whole) if whole else "-"
    header = ["strings", "completion", "fitted", "as", "sharpness", "on training strings",
              "sharpness, random - learned"]  # fmt: skip
    if rows:
        text += f"\n\n{report.table(header, rows)}"
    return f"{text}\n± is the standard error over functions; sharpness in ±1 units"


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run: sensitivity by strings, and sharpness by sensitivity."""
    config, result = record.read("config.json"), record.read("result.json")
    drawn, (left, right) = report.figure(9, 3.4, ncols=2)
    counts = list(dict.fromkeys(line["strings"] for line in result["final"]))
    for number, (kind, label) in enumerate(KINDS.items()):
        color, means = f"C{number}", []
        for count in counts:
            lines = [line for line in result["final"] if line["strings"] == count]
            for fitted in (True, False):
                values = [ln[f"sensitivity_{kind}"] for ln in lines if ln["fitted"] is fitted]
                left.plot(
                    [count] * len(values), values, "o", color=color, markersize=4, alpha=0.7,
                    markerfacecolor=color if fitted else "none",
                )  # fmt: skip
            fits = [line[f"sensitivity_{kind}"] for line in lines if line["fitted"]]
            means.append(np.mean(fits) if fits else np.nan)
        left.plot(counts, means, color=color, linewidth=1, label=label)
        lines = [line for line in result["completed"] if line["kind"] == kind]
        for fitted in (True, False):
            chosen = [line for line in lines if line["fitted"] is fitted]
            right.plot(
                [line["sensitivity"] for line in chosen],
                [line["sharpness"] for line in chosen],
                "o",
                color=color,
                markersize=5,
                markerfacecolor=color if fitted else "none",
                label=f"{label} of {', '.join(map(str, config['complete']))} strings"
                if fitted
                else None,
            )
    half = config["bits"] / 2
    left.axhline(half, color="k", linewidth=0.8, linestyle=":", label="n/2, a random function")
    missing = sum(not line["fitted"] for line in (*result["final"], *result["completed"]))
    total = len(result["final"]) + len(result["completed"])
    left.set_title(f"n = {config['bits']}; hollow: did not fit, {missing} of {total}")
    left.set(xlabel="strings seen", ylabel="average sensitivity", xscale="log")
    left.set_xticks(counts, [str(count) for count in counts])
    left.minorticks_off()
    right.set(
        xlabel="average sensitivity of the completion", ylabel="sharpness of fitting it",
        title="trained on the whole cube",
    )  # fmt: skip
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    report.save(drawn, record.directory / "generalisation.png")


def evidence(record: RunRecord) -> list[Evidence]:
    """Fig. 4: sensitivity of what was learned, and the sharpness of fitting it."""
    config, result, found = record.read("config.json"), record.read("result.json"), []
    differs = (
        f"width {config['width']}, batch {config['batch_size']}, rate "
        f"{config['learning_rate']:g}, {config['seeds']} functions"
    )
    less: dict[int, list[float]] = {}
    for line in result["final"]:
        if line["fitted"] and line["strings"] < 2 ** config["bits"]:
            difference = line["sensitivity_random"] - line["sensitivity_learned"]
            less.setdefault(line["strings"], []).append(difference)
    pooled = {count: _pooled(found) for count, found in sorted(less.items()) if len(found) > 1}
    if pooled:
        below = [shown(*pair) for pair in pooled.values()]
        means = [mean for mean, _ in pooled.values()]
        holds = all(below) and means == sorted(means, reverse=True)
        said = "; ".join(
            f"{count} strings: {mean:.3f} ± {error:.3f} below"
            for count, (mean, error) in pooled.items()
        )
        quantity = "average sensitivity of the learned completion"
        at = claim("Fig. 4", "random functions", quantity, paper="B")
        sure = holds or False in below
        found.append(Evidence(at, said, holds=bool(holds) if sure else None, differs=differs))
    pairs: dict[tuple[int, int], dict[str, float]] = {}
    for line in result["completed"]:
        if line["fitted"]:
            key = line["strings"], line["function"]
            pairs.setdefault(key, {})[line["kind"]] = line["sharpness"]
    whole = [pair["random"] - pair["learned"] for pair in pairs.values() if len(pair) == 2]
    if len(whole) > 1:
        mean, error = _pooled(whole)
        quantity = "sharpness of fitting the learned completion"
        at = claim("Fig. 4", "random functions", quantity, paper="B")
        said = f"{mean:.3f} ± {error:.3f} below the random completion's"
        found.append(Evidence(at, said, holds=shown(mean, error), differs=differs))
    return found


def _pooled(values: list[float]) -> tuple[float, float]:
    """Mean and standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
