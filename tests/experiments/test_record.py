"""Run records: written whole, taken up again only as they were, damage told in one line."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.run import origin
from experiments.run import record as module
from experiments.run.cli import UserError
from experiments.run.record import RunRecord, provenance, to_json, write_whole


@dataclasses.dataclass(frozen=True)
class Config:
    out: Path | None = None
    resume: bool = False
    rate: float = 0.1
    widths: tuple[int, ...] = (3, 4)


def create(out, resume=False, **options):
    return RunRecord.create("task", Config(out, resume, **options), out=out, resume=resume)


@pytest.mark.parametrize("step", ["fsync", "replace", "write"])
def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "result.json"
    write_whole(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    target = {"fsync": (os, "fsync"), "replace": (Path, "replace"), "write": (Path, "open")}[step]
    with monkeypatch.context() as patch:
        patch.setattr(*target, fail)
        with pytest.raises(OSError, match="No space"):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json_values)
def test_to_json_is_what_strict_json_takes(value):
    text = json.dumps(to_json(value), allow_nan=False)
    assert to_json(json.loads(text)) == to_json(value)


def test_to_json_of_arrays_and_settings():
    value: dict[Any, Any] = {
        1: Config(Path("a/b")), "x": np.float32(0.5), "y": jnp.arange(2), "z": (np.nan, np.inf, 1)
    }  # fmt: skip
    assert to_json(value) == {
        "1": {"out": "a/b", "resume": False, "rate": 0.1, "widths": [3, 4]},
        "x": 0.5, "y": [0, 1], "z": [None, None, 1],
    }  # fmt: skip


def test_a_record_is_written_and_taken_up_again(tmp_path):
    run = create(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert set(config.pop("made_of")) == {"data", "code", "commit", "platform", "versions"}
    assert config == {"experiment": "task", "rate": 0.1, "widths": [3, 4]}
    run.add([{"epoch": 0, "x": np.float32(0.25)}, {"epoch": 1, "x": float("nan")}])
    run.add([{"epoch": 2, "x": 1}])
    again = create(tmp_path / "run", resume=True)
    expected = [{"epoch": 0, "x": 0.25}, {"epoch": 1, "x": None}, {"epoch": 2, "x": 1}]
    assert again.lines == again.read_metrics() == expected
    again.keep(lambda line: line["epoch"] < 2)
    again.add([{"epoch": 3}])
    assert again.read_metrics() == [*expected[:2], {"epoch": 3}]
    again.finish({"final": [1]}, seconds=1.26)
    result = again.read("result.json")
    assert (result["final"], result["seconds"]) == ([1], 1.3)
    assert set(result) == {
        "final", "seconds", "command", "versions", "device", "cpu_cores", "commit"
    }  # fmt: skip


def refused(message, out, resume=False, **options):
    with pytest.raises(UserError, match=message) as error:
        create(out, resume, **options)
    assert "\n" not in str(error.value)


def test_what_exists_is_not_written_over(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("precious")
    for name in ("", "dangling", "file"):
        refused("exists; choose another --out, or --resume", tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


def test_places_that_cannot_be_written_are_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    refused("cannot be written: Not a directory", tmp_path / "file" / "run")
    refused("cannot be written: File name too long", tmp_path / ("x" * 300))


def test_resuming_needs_the_same_run(tmp_path):
    refused("--resume needs --out", None, resume=True)
    refused("holds no run", tmp_path, resume=True)
    refused("holds no run", tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()
    create(tmp_path / "run")
    refused(r"was run with rate=0.1, not 0.2; resume with", tmp_path / "run", resume=True, rate=0.2)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\xff\xfe{}", b'{"a": 1}}'])
def test_damaged_files_are_one_line(tmp_path, content):
    run = create(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_bytes(content)
    refused("config.json is damaged", tmp_path / "run", resume=True)
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b'{"epoch": 1}\n' + (content or b"{"))
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged") as error:
        run.read_metrics()
    assert "\n" not in str(error.value)


def test_a_default_directory_names_experiment_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = create(None)
    assert run.directory.parent == Path("runs", "task")
    assert (run.directory / "config.json").exists()


SHOW = """
from experiments.run.record import provenance
print(provenance()["command"])
"""


@pytest.mark.parametrize(
    ("files", "command"),
    [
        (["lab/task.py"], ["-m", "lab.task"]),
        (["lab/tasks/__main__.py"], ["-m", "lab.tasks"]),
        (["top/__main__.py"], ["-m", "top"]),
        (["script.py"], ["script.py"]),
    ],
)
def test_the_recorded_command_is_what_was_typed(tmp_path, files, command):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SHOW)
    root = str(Path(module.__file__).parents[2])
    shown = subprocess.run(
        [sys.executable, *command, "--out", "a b", "--rate", "1"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": root},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.strip() == " ".join(["python", *command, "--out", "'a b'", "--rate", "1"])


def test_packages_that_are_not_installed_do_not_lose_the_result(monkeypatch):
    monkeypatch.setattr(origin, "PACKAGES", ("jax", "no-such-package"))
    versions = provenance()["versions"]
    assert versions["no-such-package"] is None
    assert versions["jax"]
