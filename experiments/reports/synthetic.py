"""Table and figure of the synthetic experiment, from run records alone."""

import numpy as np

from experiments.paper import claim, printed
from experiments.run import report
from experiments.run.curve import by_model
from experiments.run.evidence import Evidence, all_hold
from experiments.run.record import RunRecord

KINDS = ("sparse", "frequent", "irrelevant")  # of tokens, as the fields of the record name them
PLACE = ("Tables 1, 3",)


def summary(record: RunRecord) -> str:
    """The table: accuracies, sensitivity, and the ideal predictors beside the paper's numbers."""
    result, rows = record.read("result.json"), []
    for text, ideals in result["ideal"].items():
        lines = [line for line in result["final"] if line["model"] == text]
        mean = {
            k: np.mean([line[k] for line in lines]) for k in ("train_accuracy", "test_accuracy")
        }
        lowest, highest = (f([line["test_accuracy"] for line in lines]) for f in (min, max))
        value, error = report.pooled(
            *[[line[k] for line in lines] for k in ("sensitivity", "sensitivity_stderr")]
        )
        row = [
            f"({text})",
            str(ideals["vocabulary"]),
            f"{100 * mean['train_accuracy']:.1f}",
            f"{100 * mean['test_accuracy']:.1f} ({100 * lowest:.1f} to {100 * highest:.1f})",
            f"{value:.4f} ± {error:.4f}",
        ]
        for kind in KINDS[:2]:
            number = printed(PLACE, f"{kind}-only predictor", "sensitivity", setting=text)
            known = "-" if number is None else f"{number:.4f}"
            one = ideals[kind]
            row.append(
                f"{one['exact']:.4f} / {one['measured']:.4f} ± {one['stderr']:.4f} / {known}"
            )
        rows.append(row)
    header = ["(n_s,n_d,n_f,m)", "M", "train acc. %", "OOD acc. %", "sensitivity"]
    kinds = [f"{kind}-only: exact / measured / paper" for kind in KINDS[:2]]
    return report.table([*header, *kinds], rows)


def evidence(record: RunRecord) -> list[Evidence]:
    """The ideal predictors' numbers; on which tokens the head ends, and what the curves show.

    It ends on the sparse tokens where its OOD accuracy is below 1/4, on the frequent ones above
    3/4, and on neither between.
    """
    result, config = record.read("result.json"), record.read("config.json")
    finals, found = by_model(result["final"]), []
    rounding = config.get("rounding", "down")
    ends = {text: _end(lines) for text, lines in finals.items()}
    for text, ideals in result["ideal"].items():
        if printed(PLACE, "sparse-only predictor", "sensitivity", setting=text) is None:
            continue
        for kind in KINDS[:2]:
            one = ideals[kind]
            asked = claim(PLACE[0], f"{kind}-only predictor", "sensitivity", setting=text)
            found.append(Evidence(asked, one["measured"], one["stderr"]))
        asked = claim("Fig. 3, 12", "one head", "ends on the tokens", setting=text)
        end, accuracy = ends[text]
        said = f"{end} (OOD accuracy {100 * accuracy:.0f} %)"
        odd = sum(map(int, text.split(",")[1:3])) % 2
        differs = f"(n_f + n_d) / 2 rounded {rounding}" if odd else ""
        found.append(Evidence(asked, said, None, _same(end, asked.value), differs))
    for number, cue in (("3", "sparse"), ("1", "frequent")):
        mine = {text: end for text, end in ends.items() if text.split(",")[0] == number}
        if len(mine) < 3:
            continue
        asked = claim("Fig. 3, 12", "one head", f"OOD accuracy by epoch, {cue} settings")
        said = ", ".join(f"({text}) {100 * value:.0f} %" for text, (_, value) in mine.items())
        told = [_same(end, cue) for end, _ in mine.values()]
        found.append(Evidence(asked, f"at the end {said}", None, all_hold(told), _how(rounding)))
    told = []
    for text, lines in finals.items():
        end = ends[text][0]
        aligned = {kind: _mean(lines, f"alignment_{kind}") for kind in KINDS[:2]}
        told.append(None if end == "neither" else aligned[end] == max(aligned.values()))
    if len(told) == 6:
        said = f"more with the tokens that it ends on in {told.count(True)} of 6 settings"
        asked = claim("Fig. 3, 12", "one head", "alignment of the value weights")
        found.append(Evidence(asked, said, None, all_hold(told), _how(rounding)))
    return found


def _mean(lines: report.Lines, field: str) -> float:
    return float(np.mean([line[field] for line in lines]))


def _end(lines: report.Lines) -> tuple[str, float]:
    """On which tokens a head ends, and its OOD accuracy."""
    accuracy = _mean(lines, "test_accuracy")
    return ("sparse" if accuracy < 0.25 else "frequent" if accuracy > 0.75 else "neither"), accuracy


def _same(end: str, cue: object) -> bool | None:
    return None if end == "neither" else end == cue


def _how(rounding: str) -> str:
    return f"in (1, 7, 32, 36), (n_f + n_d) / 2 rounded {rounding}"


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run from its record: a column for each setting."""
    lines = record.read_metrics()
    names = list(dict.fromkeys(line["model"] for line in lines))
    rows = {
        "accuracy": {"train_accuracy": "train", "test_accuracy": "OOD"},
        "alignment of $U W_V^\\top$": {f"alignment_{kind}": kind for kind in KINDS},
        "attention mass": {f"attention_{kind}": kind for kind in KINDS},
        "sensitivity": {"sensitivity": "model"},
    }
    figure, grid = report.figure(
        2.1 * len(names) + 0.6, 7, nrows=len(rows), ncols=len(names), squeeze=False, sharex=True
    )
    ideals = record.read("result.json")["ideal"]
    for column, name in enumerate(names):
        grid[0, column].set_title("$(n_s, n_d, n_f, m)$ =\n(" + name.replace(",", ", ") + ")")
        grid[-1, column].set_xlabel("epoch")
        for row, (title, fields) in enumerate(rows.items()):
            panel = grid[row, column]
            for number, (field, label) in enumerate(fields.items()):
                epochs, values = report.curve(lines, field, model=name)
                color = "k" if field == "sensitivity" else f"C{number}"
                report.draw_band(panel, epochs, values, color=color, label=label)
            if title == "sensitivity":
                for number, kind in enumerate(KINDS[:2]):
                    exact = ideals[name][kind]["exact"]
                    style = {"color": f"C{number}", "linestyle": ":", "linewidth": 1}
                    panel.axhline(exact, label=f"{kind} only", **style)
                panel.set_ylim(bottom=-0.01)
            else:
                panel.set_ylim(-0.3 if title.startswith("alignment") else -0.03, 1.03)
            if column == 0:
                panel.set_ylabel(title)
                panel.legend(fontsize=7)
    report.save(figure, record.directory / "curves.png")
