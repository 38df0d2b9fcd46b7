"""Keeping a run: small, whole or not at all, without the machine's paths, thinned by rule."""

import json
import os

import numpy as np
import pytest
from witnesses.commands import execute

from experiments.report import __main__ as report
from experiments.report import keep

CONFIG = {"experiment": "mnist", "data": "/home/me/data/mnist", "made_of": {"commit": "abc"}}
RESULT = {
    "data": {"name": "mnist", "source": "/home/me/data/mnist"},
    "picture": {"image": np.linspace(0, 1, 784).reshape(28, 28).tolist(), "token": 6},
    "final": [{"model": "vit", "seed": 0, "sensitivity": 1 / 3, "per_token": [0.1] * 16}],
    "command": "python -m experiments.mnist --data ../data/mnist --out '/tmp/a b/c' --resume",
    "device": "cpu x 1",
    "cpu_cores": 2,
    "seconds": 12.5,
    "versions": {"jax": "0.10.2"},
    "commit": "def",
}


def lines(models=("vit", "mlp"), seeds=3, epochs=501):
    return [
        {"model": model, "seed": seed, "epoch": epoch, "sensitivity": 0.5 / (1 + epoch)}
        for model in models
        for epoch in range(epochs)
        for seed in range(seeds)
    ]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A run, and a clone to keep it in."""
    monkeypatch.setattr(keep, "ROOT", tmp_path)
    monkeypatch.setattr(keep, "RECORDS", tmp_path / "figures" / "records")
    monkeypatch.setattr(keep, "FIGURES", tmp_path / "figures")
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "large").write_bytes(b"x")
    (run / "config.json").write_text(json.dumps(CONFIG))
    (run / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines()))
    (run / "result.json").write_text(json.dumps(RESULT))
    (run / "curves.png").write_bytes(b"a")
    (run / "measured.png").write_bytes(b"b")
    os.utime(run / "result.json", (1e9, 1e9))
    return run


def test_a_run_is_kept_small_and_without_paths(place, capsys):
    assert execute(report, "--keep", place, "--as", "mnist_60k", "--note", "all images") == 0
    kept = keep.RECORDS / "mnist_60k"
    assert capsys.readouterr().out.startswith(f"kept {place} as figures/records/mnist_60k, ")
    assert {path.name for path in kept.iterdir()} == {
        "config.json", "metrics.jsonl", "result.json", "meta.json"
    }  # fmt: skip
    assert sum(path.stat().st_size for path in kept.iterdir()) < 100_000
    everything = "".join(path.read_text() for path in kept.iterdir())
    assert not any(path in everything for path in ("/home", "/tmp", "../data", "a b"))
    meta = json.loads((kept / "meta.json").read_text())
    assert meta["command"] == "python -m experiments.mnist --data .../mnist"
    assert meta["finished"] is True
    assert (meta["date"], meta["note"], meta["cpu_cores"]) == ("2001-09-09", "all images", 2)
    assert meta["lines"]["of"] == 3006
    assert meta["lines"]["kept"] <= keep.LINES
    result = json.loads((kept / "result.json").read_text())
    assert result["picture"]["image"] == {"shape": [28, 28], "mean": 0.5, "min": 0, "max": 1}
    assert result["final"] == [{**RESULT["final"][0], "sensitivity": 0.333333}]
    pictures = {path.name: path.read_bytes() for path in keep.FIGURES.glob("*.png")}
    assert pictures == {"mnist_60k_curves.png": b"a", "mnist_60k_measured.png": b"b"}


def test_what_neither_paper_asks_is_a_row_without_a_claim(place, capsys):
    line = {"model": "lstm, xavier, 5 bits, depth 2", "seed": 0, "sensitivity": 0.25}
    (place / "config.json").write_text(json.dumps({"experiment": "priors"}))
    (place / "metrics.jsonl").write_text(json.dumps(line))
    (place / "result.json").write_text(
        json.dumps({"final": [line], "command": "python -m x", "seconds": 5})
    )
    assert execute(report, "--keep", place, "--as", "priors", "--note", "few networks") == 0
    assert "unusable" not in capsys.readouterr().out
    told = (keep.ROOT / "docs" / "report.md").read_text()
    (row,) = [x for x in told.split("## Beyond both papers")[1].splitlines() if "priors" in x]
    assert row.startswith("| priors<br>a record |")
    assert "| **no claim** | 1 seed; 5 s<br>few networks |" in row
    assert row.endswith("| `python -m x` |")
    assert "Beyond both papers" in (keep.ROOT / "docs" / "report.html").read_text()


def test_an_unfinished_run_says_so(place):
    (place / "result.json").unlink()
    kept = keep.keep(place, None)
    assert kept.name == "mnist"
    meta = json.loads((kept / "meta.json").read_text())
    assert meta["finished"] is False
    assert meta["command"].startswith("python -m experiments.mnist (")
    assert not (kept / "result.json").exists()
    assert keep.command({}, "length_scaling").startswith("python -m experiments.length scaling (")


@pytest.mark.parametrize("limit", [2, 7, 40, 400, 4000])
def test_evaluations_are_thinned_evenly_with_their_ends(limit):
    for all_lines in (lines(), lines(models=("vit",), seeds=1, epochs=1), lines(epochs=7), []):
        found = keep.thinned(all_lines, limit)
        assert len(found) <= max(limit, 2 * 2 * 3)  # never less than both ends
        assert len(all_lines) > limit or found == all_lines
        for model in {x["model"] for x in all_lines}:
            at = [x["epoch"] for x in found if x["model"] == model and x["seed"] == 0]
            whole = [x["epoch"] for x in all_lines if x["model"] == model and x["seed"] == 0]
            assert (at[0], at[-1]) == (whole[0], whole[-1])
            gaps = np.diff(at)
            assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
            assert sum(x["model"] == model for x in found) == len(at) * len(
                {x["seed"] for x in all_lines}
            )


def test_a_record_with_many_fields_is_thinned_until_it_is_small():
    wide = [line | {f"field_{i}": i / 7 for i in range(40)} for line in lines(epochs=100)]
    files, kept = keep.small(CONFIG, RESULT, wide)
    assert sum(map(len, files.values())) <= keep.LARGEST
    assert kept == len(files["metrics.jsonl"].splitlines()) > 30
    endless = [{"model": "vit", "seed": 0, "epoch": 0, "text": "a" * keep.LARGEST}]
    with pytest.raises(keep.UserError, match="more than 150000"):
        keep.small(CONFIG, {}, endless)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python -m x --data /a/b/c.zip --n 3", "python -m x --data .../c.zip --n 3"),
        ("--data=~/x/mnist/", "--data=.../mnist"),
        ("from /a/b/c.mat, ../d", "from .../c.mat, .../d"),
        ("train / test, 3/4, n_s/n_d, https://host/path", None),
        ("/", "/"),
    ],
)
def test_paths_lose_all_but_their_last_part(text, expected):
    assert keep.shortened(text) == (text if expected is None else expected)


def test_what_cannot_be_kept_is_one_line_and_nothing_is_written(place, capsys):
    (place / "config.json").write_text("{")
    assert execute(report, "--keep", place) == 2
    assert "config.json is damaged" in capsys.readouterr().err
    (place / "config.json").write_text('{"experiment": "os"}')
    assert execute(report, "--keep", place) == 2
    assert "names no experiment that is known here: 'os'" in capsys.readouterr().err
    (place / "config.json").write_text(json.dumps(CONFIG))
    for name in ("../outside", "A", ""):
        assert execute(report, "--keep", place, "--as", name) == (0 if name == "" else 2)
    assert [path.name for path in keep.RECORDS.iterdir()] == ["mnist"]
    assert execute(report, "--keep", place) == 2
    assert "exists; choose another name with --as, or give --replace" in capsys.readouterr().err
    assert execute(report, "--keep", place, "--replace") == 0
    (place / "result.json").unlink()
    (place / "metrics.jsonl").unlink()
    assert execute(report, "--keep", place, "--as", "none") == 2
    assert "nothing to keep" in capsys.readouterr().err
