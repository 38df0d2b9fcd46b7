"""What holds for every experiment: its record, its figures again, its resumption."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from witnesses import small_runs
from witnesses.commands import execute, read, timeless

from experiments import redraw
from experiments.run.record import RunRecord
from experiments.run.reports import REPORTS

NAMES = list(small_runs.ARGUMENTS)
RECORD = {"config.json", "metrics.jsonl", "result.json"}


def test_every_report_is_of_an_experiment_and_the_other_way_round():
    assert set(REPORTS) == set(small_runs.MODULES)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_leaves_its_record_and_figures(finished, name):
    directory = finished(name)
    others = {
        "grokking": {"checkpoints", "weights"},
        "imagenet": set(),
        "priors": set(),
        "language": {"checkpoints", "tokenizer.json"},
    }.get(name, {"checkpoints"})
    files = RECORD | small_runs.FIGURES[name] | others
    assert {path.name for path in directory.iterdir()} == files
    config = json.loads((directory / "config.json").read_text())
    assert config["experiment"] == name
    assert not {"out", "resume"} & set(config)


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_redrawn_from_the_record_alone(finished, tmp_path, capsys, name):
    for file in RECORD:
        shutil.copy(finished(name) / file, tmp_path / file)
    capsys.readouterr()
    assert execute(redraw, tmp_path) == 0
    assert capsys.readouterr() == (f"redrew {tmp_path}\n", "")
    assert {path.name for path in tmp_path.iterdir()} == RECORD | small_runs.FIGURES[name]
    for figure in small_runs.FIGURES[name]:
        assert (tmp_path / figure).read_bytes() == (finished(name) / figure).read_bytes()


# The others share the loop of the first.
RESUMED = ["mnist", "imagenet"]


@pytest.mark.parametrize(
    "name",
    [name if name in RESUMED else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
def test_an_interrupted_run_resumes_to_the_same_result(
    command, finished, tmp_path, monkeypatch, capsys, name
):
    calls, original = [], RunRecord.add

    def add(self, lines):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(self, lines)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunRecord, "add", add)
        assert command(name, "--out", out) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("interrupted; ")
    assert last.endswith(f": go on with --resume --out {out}")
    assert command(name, "--out", out, "--resume") == 0
    assert timeless(read(out)) == timeless(read(finished(name)))
    for figure in small_runs.FIGURES[name]:
        assert (out / figure).read_bytes() == (finished(name) / figure).read_bytes()


DRAWS = """
import pathlib, sys
import experiments.redraw
from experiments.run.record import RunRecord
from experiments.run.reports import report_of
for name in sys.argv[1:]:
    record = RunRecord(pathlib.Path(name))
    report = report_of(record.read("config.json")["experiment"])
    report.draw(record)
    report.summary(record)
print(*sorted({"jax", "flax", "optax", "orbax"} & set(sys.modules)))
"""


def test_drawing_needs_no_network_and_no_training(finished):
    """In a fresh process; the report of grokking reads its phases with the library."""
    runs = [str(finished(name)) for name in NAMES if name != "grokking"]
    shown = subprocess.run(
        [sys.executable, "-c", DRAWS, *runs],
        cwd=Path(redraw.__file__).parents[1], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.split() == []
