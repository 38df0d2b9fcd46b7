"""A run that is killed again and again ends with the numbers of one that was left alone."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import mnist
from experiments.run import record
from jaxsens import checkpoints

EPOCHS, KILLS = 60, 20
ARGUMENTS = (
    "--data", "embedded", "--arch", "mlp", "--seeds", 2, "--examples", 300, "--every", 1,
    "--sensitivity-examples", 20, "--repeats", 1, "--epochs", EPOCHS,
)  # fmt: skip
FILES = ["checkpoints", "config.json", "curves.png", "measured.png", "metrics.jsonl", "result.json"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The command, begun; compiled programs are kept, so that to begin again costs few seconds."""
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

    def start(out):
        # Before a record is made there is nothing to resume, and a run starts afresh.
        arguments = (*ARGUMENTS, "--out", out, *["--resume"] * out.exists())
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.mnist", *map(str, arguments)],
            cwd=Path(mnist.__file__).parents[1],
            env={**os.environ, "JAX_PLATFORMS": "cpu", **kept},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="module")
def through(start, tmp_path_factory):
    """An uninterrupted run: its numbers, and the seconds from the first line printed to the end."""
    out = tmp_path_factory.mktemp("through") / "run"
    finish(start(out))
    process = start(tmp_path_factory.mktemp("again") / "run")  # with everything compiled
    wait_for_training(process)
    begun = time.monotonic()
    finish(process)
    return numbers(out), time.monotonic() - begun


def wait_for_training(process):
    """Until the line that is printed once the record is made."""
    line = process.stdout.readline()
    assert line.startswith("training on 300 images"), line + process.communicate()[1]


def finish(process):
    try:
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, err


def numbers(out):
    """Everything in a finished record but when and how it was made."""
    assert sorted(path.name for path in out.iterdir()) == FILES
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((out / "result.json").read_text())
    for line in (*lines, *result["final"]):
        del line["seconds"]
    assert [line["epoch"] for line in lines[::2]] == list(range(EPOCHS + 1))
    return lines, result["final"], result["picture"]


@pytest.mark.slow
def test_killed_twenty_times(start, through, tmp_path):
    """At random moments: some while the process starts, most while it trains, saves and draws."""
    expected, seconds = through
    chance = random.Random(0)
    kills, runs, saved = 0, 0, []
    while kills < KILLS:  # a run that survives has its numbers compared, and another begins
        runs += 1
        out, process = tmp_path / f"run{runs}", None
        while process is None or process.returncode != 0:
            process = start(out)
            if kills < KILLS:
                early = kills % 5 == 0
                if not early:
                    wait_for_training(process)
                try:
                    process.wait(chance.uniform(0, 3 if early else seconds))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    saved.append(checkpoints.latest(out / "checkpoints" / "mlp"))
                    kills += 1
                    continue
            finish(process)
        assert numbers(out) == expected
    assert len(set(saved) - {None}) > 2, "the kills say little: raise the epochs"


WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


@pytest.mark.slow
def test_stopped_eight_times(start, through, tmp_path):
    """Ctrl-C and SIGTERM at random moments, the start and the saves among them: one line each."""
    expected, seconds = through
    chance = random.Random(1)
    out = tmp_path / "run"
    for number in range(8):
        process = start(out)
        signum = list(WORDS)[number % 2]
        if number >= 3:
            wait_for_training(process)
        try:
            process.wait(chance.uniform(0, seconds / 4 if number >= 3 else 4))
        except subprocess.TimeoutExpired:
            process.send_signal(signum)
        try:
            _, err = process.communicate(timeout=100)
        finally:
            process.kill()
        if process.returncode == 0:  # it was faster
            break
        assert process.returncode == 128 + signum, err
        *progress, last = err.splitlines()
        assert all(line.startswith("mlp ") for line in progress), err
        assert last.startswith(WORDS[signum])
    finish(start(out))
    assert numbers(out) == expected


@pytest.mark.slow
def test_resumed_by_three_at_once(start, through, tmp_path):
    """One goes on, the others are told; the record is that of a run left alone."""
    out = tmp_path / "run"
    process = start(out)
    wait_for_training(process)
    time.sleep(through[1] / 3)
    process.kill()
    process.communicate()
    processes = [start(out) for _ in range(3)]
    ended = [(process.communicate(timeout=300)[1], process.returncode) for process in processes]
    assert sorted(code for _, code in ended) == [0, 2, 2]
    for err, code in ended:
        if code:
            assert err.count("\n") == 1
            assert "is being written by another process" in err
    assert numbers(out) == through[0]


class Killed(BaseException):
    """The end of the process, at which no file is tidied away."""


@pytest.fixture
def kill_at(monkeypatch):
    """Stop in the n-th write, its bytes on the disk and its file not yet renamed."""

    def kill_at(number):
        calls = []

        def fsync(descriptor):
            calls.append(descriptor)
            if len(calls) == number:
                patch.setattr(Path, "unlink", lambda *args, **settings: None)
                patch.setattr(shutil, "rmtree", lambda *args, **settings: None)
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            yield

    return contextlib.contextmanager(kill_at)


def test_a_record_killed_at_its_birth_may_be_made_again(tmp_path, kill_at):
    out = tmp_path / "run"
    with kill_at(1), pytest.raises(Killed):
        record.RunRecord.create("mnist", {"a": 1}, out=out, resume=False)
    assert not out.exists()
    record.RunRecord.create("mnist", {"a": 2}, out=out, resume=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "config.json"]
    config = json.loads((out / "config.json").read_text())
    assert (config["experiment"], config["a"]) == ("mnist", 2)


def test_a_write_that_was_killed_leaves_nothing_in_the_end(tmp_path, kill_at):
    out = tmp_path / "run"
    begun = record.RunRecord.create("mnist", {}, out=out, resume=False)
    begun.add([{"epoch": 0}])
    with kill_at(1), pytest.raises(Killed):
        begun.add([{"epoch": 1}])
    assert len(list(out.iterdir())) == 3
    resumed = record.RunRecord.create("mnist", {}, out=out, resume=True)
    assert resumed.lines == [{"epoch": 0}]
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "metrics.jsonl"]
