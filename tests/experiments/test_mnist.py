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
from witnesses.commands import execute, one_line, read, timeless

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


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    out = tmp_path_factory.mktemp("mnist") / "run"
    assert execute(mnist, *SMOKE, "--out", out) == 0
    return out


def test_the_record_of_a_run(smoke):
    assert {path.name for path in smoke.iterdir()} == FILES
    config = json.loads((smoke / "config.json").read_text())
    assert config["experiment"] == "mnist"
    assert (config["arch"], config["epochs"], config["seeds"]) == ("mlp", 2, 2)
    assert not {"out", "resume"} & set(config)
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


def test_figures_are_redrawn_from_the_record_alone(smoke, tmp_path, monkeypatch, capsys):
    for name in ("config.json", "metrics.jsonl", "result.json"):
        shutil.copy(smoke / name, tmp_path / name)
    monkeypatch.setattr(mnist, "load", None)  # no data, no training
    monkeypatch.setattr(mnist, "Trainer", None)
    assert execute(redraw, tmp_path) == 0
    assert capsys.readouterr() == (f"redrew {tmp_path}\n", "")
    for figure in FIGURES:
        assert (tmp_path / figure).read_bytes() == (smoke / figure).read_bytes()


def test_an_interrupted_run_resumes_to_the_same_result(smoke, tmp_path, monkeypatch, capsys):
    def save(directory, state, *, step):
        if step == 2:
            raise KeyboardInterrupt
        original(directory, state, step=step)

    original = checkpoints.save
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save)
        assert execute(mnist, *SMOKE, "--out", tmp_path / "run") == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"interrupted; saved up to epoch 1 of mlp: go on with --resume --out {tmp_path / 'run'}"
    )
    assert execute(mnist, *SMOKE, "--out", tmp_path / "run", "--resume") == 0
    assert timeless(read(tmp_path / "run")) == timeless(read(smoke))
    for changed in (["--learning-rate", "0.1"], ["--seed", "1"]):
        assert execute(mnist, *SMOKE, *changed, "--out", tmp_path / "run", "--resume") == 2
        assert "resume with the same options" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--nonsense", "1"], "--nonsense"),
        (["--epochs", "ten"], "--epochs"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--every", "-1"], "--every must be at least 1, got -1"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--seed", "-1"], "--seed must lie between 0 and"),
        (["--seed", "4294967296"], "--seed must lie between 0 and"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--batch-size", "4001"], "--batch-size must be at most 4000, the number of training im"),
        (["--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["--curve-tokens", "0"], "--curve-tokens must lie between 1 and 16, got 0"),
        (["--curve-tokens", "17"], "--curve-tokens must lie between 1 and 16, got 17"),
        (["--arch", "cnn"], "--arch must be vit, mlp or all, got cnn"),
        *((["--variance", value], "--variance must be finite and greater than 0, got")
          for value in ("0", "-1", "nan", "inf")),
        *((["--learning-rate", value], "--learning-rate must be finite and greater than 0, got")
          for value in ("0", "-1", "nan", "inf")),
        (["--examples", "0"], "--examples must lie between 1 and 4000, got 0"),
        (["--examples", "-5"], "--examples must lie between 1 and 4000, got -5"),
        (["--examples", "4001"], "--examples must lie between 1 and 4000, got 4001"),
        (["--sensitivity-examples", "0"], "sensitivity needs at least 2 images for its standard"),
        (["--examples", "4", "--batch-size", "2"], "sensitivity needs at least 2 images"),
        (["--sensitivity-examples", "4001"], "--sensitivity-examples must lie between 1 and 4000"),
        (["--data", "nowhere"], "there is no file or directory nowhere"),
        (["--data", ""], "holds no MNIST that can be read"),
        (["--data", "foreign"], "foreign holds no MNIST that can be read"),
        (["--data", "foreign/notes.txt"], "foreign/notes.txt holds no MNIST that can be read"),
        (["--data", "cut"], "cannot be read"),
        (["--resume"], "--resume needs --out"),
        (["--resume", "--out", "foreign"], "foreign holds no run"),
        (["--out", "foreign"], "foreign exists; choose another --out, or --resume"),
        (["--out", "foreign/notes.txt/run"], "cannot be written: Not a directory"),
        (["--out", "x" * 300], "cannot be written: File name too long"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_writes_nothing(
    tmp_path, monkeypatch, capsys, args, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b\x08")
    before = sorted(tmp_path.rglob("*"))
    assert message in one_line(mnist, "--data", "embedded", *args, capsys=capsys)
    assert sorted(tmp_path.rglob("*")) == before


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
    table = out.splitlines()[-4:]
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
        assert f"epoch {saved} of" in last
        assert saved > previous
        assert progress[0].startswith(f"mlp {previous}/100000 epochs")
        epochs = [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()]
        assert epochs[: saved + 1] == list(range(saved + 1))
