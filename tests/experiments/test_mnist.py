"""python -m experiments.mnist: a whole run, its resumption, its figures again, and every error."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from witnesses.commands import execute, one_line, read

from experiments import mnist, redraw
from jaxsens import checkpoints

ROOT = Path(mnist.__file__).parents[1]
FIGURES = ("curves.png", "measured.png")
FILES = {"config.json", "metrics.jsonl", "result.json", "checkpoints", *FIGURES}
FIELDS = {
    "model", "seed", "epoch", "step", "seconds", "train_accuracy", "train_loss", "test_accuracy",
    "test_loss", "sensitivity", "sensitivity_stderr", "sensitivity_gaussian",
    "sensitivity_gaussian_stderr",
}  # fmt: skip
SMOKE = ("--data", "embedded", "--smoke", "--arch", "mlp")


@pytest.fixture
def smoke(finished):
    return finished("mnist")


def test_the_record_of_a_run(smoke):
    config = json.loads((smoke / "config.json").read_text())
    assert (config["arch"], config["epochs"], config["seeds"]) == ("mlp", 2, 2)
    result, lines = read(smoke)
    assert [(line["epoch"], line["seed"]) for line in lines] == [
        (epoch, seed) for epoch in (0, 1, 2) for seed in (0, 1)
    ]
    assert [line["step"] for line in lines[::2]] == [0, 4, 8]  # 200 images in batches of 50
    assert all(set(line) == FIELDS for line in lines)
    for final, line in zip(result["final"], lines[-2:], strict=True):
        for field in ("train_accuracy", "test_accuracy", "test_loss", "epoch", "seed"):
            assert final[field] == line[field]
        for kind in ("sensitivity", "sensitivity_gaussian"):
            assert len(final[f"{kind}_per_token"]) == 16
            assert np.mean(final[f"{kind}_per_token"]) == pytest.approx(final[kind], abs=1e-6)
            assert 0 <= final[kind] <= 1
            assert final[f"{kind}_stderr"] >= 0
    picture = {k: np.array(v) for k, v in result["picture"].items()}
    row, column = divmod(int(picture["token"]), 4)
    outside = np.ones((28, 28), bool)
    outside[7 * row : 7 * row + 7, 7 * column : 7 * column + 7] = False
    for kind in ("sensitivity", "sensitivity_gaussian"):
        assert picture[kind].shape == (28, 28)
        np.testing.assert_array_equal(picture[kind][outside], picture["image"][outside])
        assert (picture[kind] != picture["image"]).any()
    for figure in FIGURES:
        assert (smoke / figure).read_bytes().startswith(b"\x89PNG")


def test_only_the_same_run_is_resumed(smoke, capsys):
    for changed in (["--learning-rate", "0.1"], ["--seed", "1"]):
        assert execute(mnist, *SMOKE, *changed, "--out", smoke, "--resume") == 2
        assert "resume with the same options" in capsys.readouterr().err


def test_a_diverging_run_is_one_line_that_names_the_place(tmp_path, capsys):
    rate = ("--learning-rate", "1e30")
    assert execute(mnist, *SMOKE, *rate, "--out", tmp_path / "run") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert " epoch 1" in errors[0]
    assert "(learning rate 1e+30)" in errors[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "holds no run"),
        ("config.json", "{", "config.json is damaged"),
        ("config.json", "{}", "names no experiment that is known here: None"),
        ("config.json", '{"experiment": "redraw"}', "names no experiment that is known here"),
        ("config.json", '{"experiment": "__init__"}', "names no experiment that is known here"),
        ("config.json", '{"experiment": ["mnist"]}', "names no experiment that is known here"),
        ("config.json", '{"experiment": "os"}', "names no experiment that is known here: 'os'"),
        ("result.json", None, "holds no run, or an unfinished one"),
        ("result.json", '{"final": []', "result.json is damaged"),
        ("result.json", "{}", "is damaged: it lacks 'final'"),
        ("metrics.jsonl", '{"model": "ml', "metrics.jsonl is damaged"),
        ("metrics.jsonl", "{}\n", "is damaged: it lacks 'model'"),
        ("metrics.jsonl", None, "the record has no evaluations with {'model': 'mlp'}"),
    ],
)
def test_redrawing_what_is_no_run_is_one_line(smoke, tmp_path, capsys, name, content, message):
    for file in ("config.json", "metrics.jsonl", "result.json"):
        shutil.copy(smoke / file, tmp_path / file)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    assert message in one_line(redraw, tmp_path, capsys=capsys)
    assert not list(tmp_path.glob("*.png"))


def test_redrawing_nothing_is_one_line(capsys):
    assert one_line(redraw, capsys=capsys) == (
        "error: name at least one run directory, as in runs/<experiment>/<run>"
    )


def command(*args, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.mnist", *map(str, args)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_the_smoke_run_as_typed(tmp_path):
    args = ("--data", "embedded", "--smoke", "--out", tmp_path / "run")
    out, err = command(*args).communicate(timeout=540)
    result, lines = read(tmp_path / "run")
    assert result["command"] == " ".join(map(str, ("python -m experiments.mnist", *args)))
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert [final["model"] for final in result["final"]] == ["vit", "vit", "mlp", "mlp"]
    assert len(lines) == 12
    *table, replaced, gaussian = out.splitlines()[-6:]
    assert replaced.startswith("sensitivity, paired: MLP minus ViT-small ")
    assert gaussian.startswith("sensitivity gaussian, paired: MLP minus ViT-small ")
    assert table[0].startswith("model      seeds  train acc. %")
    assert [row.split()[0] for row in table[2:]] == ["ViT-small", "MLP"]
    assert all("epochs" in line for line in err.splitlines())


@pytest.mark.slow
def test_ctrl_c_leaves_a_record_to_go_on_with(tmp_path):
    out = tmp_path / "run"
    args = ("--data", "embedded", "--arch", "mlp", "--seeds", 1, "--every", 1, "--epochs", 100000,
            "--examples", 100, "--sensitivity-examples", 5, "--out", out)  # fmt: skip
    metrics = out / "metrics.jsonl"
    saved = 0
    for more in ((), ("--resume",)):
        process = command(*args, *more)
        try:
            deadline = time.monotonic() + 200
            while not metrics.exists() or len(metrics.read_text().splitlines()) < saved + 5:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=100)
        finally:
            process.kill()
        assert process.returncode == 130
        *progress, last = err.splitlines()
        assert all(line.startswith("mlp ") for line in progress)
        assert last.startswith("interrupted; saved up to epoch ")
        assert last.endswith(f" of mlp: go on with --resume --out {out}")
        previous, saved = saved, checkpoints.latest(out / "checkpoints" / "mlp")
        assert f"epoch {saved // 2} of" in last  # two steps each
        assert saved > previous
        assert progress[0].startswith(f"mlp {previous // 2}/100000 epochs")
        epochs = [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()]
        assert epochs[: saved // 2 + 1] == list(range(saved // 2 + 1))
