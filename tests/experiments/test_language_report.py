"""What language runs say together: side by side, in figures and in the report."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from experiments.reports import language as language_report
from experiments.reports.language import gap_share
from experiments.run.cli import UserError
from experiments.run.record import RunRecord
from experiments.text import beside


@pytest.fixture
def runs(tmp_path):
    """Two finished runs of one network each on the same three texts."""
    folders = []
    for name, rates in (("lstm", [0.5, 0.0, 0.25]), ("roberta", [0.0, 0.0, 0.5])):
        folder = tmp_path / name
        folder.mkdir()
        config = {"experiment": "language", **{key: 1 for key in beside.SAME}}
        (folder / "config.json").write_text(json.dumps(config))
        line = {"model": name, "seed": 0, "step": 0}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        final = {**line, "sensitivity_per_example": rates, "sensitivity_fingerprint": "ab"}
        (folder / "result.json").write_text(json.dumps({"final": [final]}))
        folders.append(folder)
    return folders


def test_runs_side_by_side_are_paired_text_by_text(runs):
    config = type("C", (), {"arch": ("none",), **{key: 1 for key in beside.SAME}})
    others = beside.read(runs, config)
    (found,) = beside.paired([line for other in others for line in other.final])
    difference = np.array([-0.5, 0.0, 0.25])
    assert (found["model"], found["against"], found["field"]) == ("roberta", "lstm", "sensitivity")
    assert found["difference"] == pytest.approx(difference.mean())
    assert found["stderr"] == pytest.approx(difference.std(ddof=1) / 3**0.5)
    others[1].final[0]["sensitivity_fingerprint"] = "other noise"
    assert beside.paired([line for other in others for line in other.final]) == []
    config.tokens = 2
    with pytest.raises(UserError, match="was made with tokens = 1; here it is 2"):
        beside.read(runs, config)
    config.tokens, config.arch = 1, ("lstm",)
    with pytest.raises(UserError, match="has lstm too"):
        beside.read(runs, config)


def test_vocabularies_side_by_side_are_told_apart(runs):
    for folder, vocabulary in zip(runs, (300, 1000), strict=True):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "vocabulary": vocabulary}))
        result = json.loads((folder / "result.json").read_text())
        result["final"][0]["label"] = folder.name
        result["data"] = {"vocabulary": vocabulary, "tokens a pair": 9.0}
        (folder / "result.json").write_text(json.dumps(result))
    config = type("C", (), {"arch": ("none",), **{key: 1 for key in beside.SAME}})
    others = beside.read(runs, config)
    assert [other.final[0]["model"] for other in others] == ["lstm 300", "roberta 1000"]
    assert others[0].final[0]["label"] == "lstm, 300 sub-words"
    assert others[1].lines[0]["model"] == "roberta 1000"
    config.arch = ("gpt2",)
    with pytest.raises(UserError, match="was made with vocabulary = 300; here it is 1"):
        beside.read(runs, config)


def test_the_figure_of_vocabularies_has_a_line_for_each_network(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(language_report.report, "save", lambda figure, path: drawn.append(figure))
    finals = {}
    for kind, size in itertools.product(("lstm", "roberta"), (4000, 300)):
        line = {"label": f"{kind}, {size} sub-words", "vocabulary": size, "tokens": 9.0}
        line |= {"sensitivity": 1 / size, "sensitivity_stderr": 0.001}
        line |= {"train_accuracy": 0.9, "validation_accuracy": 0.6}
        finals[f"{kind} {size}"] = [line]
    language_report.draw_vocabularies(finals, tmp_path / "vocabulary.png")
    (figure,) = drawn
    lines = [bars.lines[0] for bars in figure.axes[0].containers]
    assert [list(line.get_xdata()) for line in lines] == [[300, 4000]] * 2
    assert [list(line.get_ydata()) for line in lines] == [[1 / 300, 1 / 4000]] * 2
    whole = np.asarray(figure.axes[1].containers[0].lines[0].get_ydata(), float)
    assert np.isnan(whole).all()  # not measured


def test_roberta_stands_in_the_report_as_in_the_text_and_as_in_the_code():
    record = RunRecord(
        Path(language_report.__file__).parents[2] / "figures" / "records" / "language_mrpc_small"
    )
    finals = record.read("result.json")["final"]
    rows = language_report.evidence(record)
    for label, kinds in (("LSTM", 1), ("RoBERTa", 2), ("RoBERTa-ReLU", 2)):
        own = [line for line in finals if line["label"] == label]
        found = [row for row in rows if row.claim.model == label and row.claim.place == "Section 6"]
        numbers = {row.measured: row.value for row in found if isinstance(row.value, float)}
        wanted = [
            np.mean([line[name] for line in own])
            for name in ("sensitivity", "sensitivity_block")[:kinds]
        ]
        assert list(numbers.values()) == pytest.approx(wanted)


def test_the_share_of_a_gap_that_renormalising_takes_away():
    def lines(full, after):
        errors = {"sensitivity_stderr": 0.001, "sensitivity_renormalised_stderr": 0.001}
        return [{"sensitivity": full, "sensitivity_renormalised": after, **errors}]

    value, error = gap_share(lines(0.10, 0.04), lines(0.02, 0.02))
    assert value == pytest.approx(0.75)
    assert error == pytest.approx(math.hypot(2**0.5, 0.25 * 2**0.5) * 0.001 / 0.08)
    assert gap_share(lines(0.021, 0.02), lines(0.02, 0.02)) is None
