"""Stopped at every operation on a file in turn, a run is taken up again to the same record.

What stops it is the end of the process, at which nothing is tidied away; one operation that fails;
or a disk on which, from then on, every operation fails.
"""

import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from command.line import UserError
from experiments.run.record import RunRecord
from jaxsens import checkpoints
from jaxsens.checkpoints import CheckpointError

OPERATIONS = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir")
STEPS = {"first": 3, "second": 1}


class Killed(BaseException):
    """The end of the process."""


@pytest.fixture(autouse=True)
def plain_arrays(monkeypatch):
    """A file an array in place of orbax's, which other tests write: many runs in few seconds."""

    def write(path, leaves):
        path.mkdir(parents=True)
        for name, leaf in leaves.items():
            np.save(path / f"{name}.npy", np.asarray(leaf))

    def read(path, like):
        return {name: jnp.asarray(np.load(path / f"{name}.npy")) for name in like}

    monkeypatch.setattr(checkpoints, "_write", write)
    monkeypatch.setattr(checkpoints, "_read", read)
    monkeypatch.setattr("experiments.run.record.provenance", dict)


def work(out):
    """Two models, trained one after the other from where each was saved."""
    run = RunRecord.create("task", {"a": 1}, out=out, resume=out.exists(), data=np.arange(3))
    for model, steps in STEPS.items():
        found = run.restore(model, {"w": jnp.zeros(2)})
        step, state = (0, {"w": jnp.zeros(2)}) if found is None else found
        while step < steps:
            step, state = step + 1, {"w": state["w"] + step}
            lines = [{"model": model, "step": step, "w": float(state["w"][0])}]
            run.save(model, lines, state, step=step)
    run.finish({"final": [line["w"] for line in run.lines]}, seconds=0)


def everything(out):
    """Names of all files, and what the readable ones say."""
    names = sorted(str(path.relative_to(out.parent)) for path in out.parent.rglob("*"))
    return names, (out / "metrics.jsonl").read_text(), json.loads((out / "result.json").read_text())


@pytest.fixture
def stop(monkeypatch):
    """``stop(number, kind)``: what happens at the n-th operation; how many there were so far."""

    class Stop:
        count = 0
        number: int | None = None
        kind = ""

        def wrap(self, original):
            def operation(*args, **settings):
                self.count += 1
                reached = self.number is not None and self.count >= self.number
                if reached and self.kind == "killed":
                    raise Killed
                if reached and (self.kind == "full" or self.count == self.number):
                    raise OSError(28, "No space left on device")
                return original(*args, **settings)

            return operation

    stop = Stop()
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the disk may take its time
    for name in OPERATIONS:
        monkeypatch.setattr(os, name, stop.wrap(getattr(os, name)))
    return stop


@pytest.mark.parametrize("kind", ["killed", "failed", "full"])
def test_stopped_at_every_operation(tmp_path, stop, kind, capfd):
    (tmp_path / "whole").mkdir()
    work(tmp_path / "whole" / "run")
    operations, expected = stop.count, everything(tmp_path / "whole" / "run")
    assert operations > 30
    stop.kind, said = kind, set()
    for number in range(1, operations + 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        stop.count, stop.number = 0, number
        told = {"killed": (Killed,)}.get(kind, (OSError, UserError, CheckpointError))
        try:
            work(folder / "run")
        except told as error:
            said.add("No space left on device" in str(error))
        stop.number = None
        work(folder / "run")
        names, *contents = everything(folder / "run")
        assert (names, *contents) == expected, f"operation {number}"
    assert said == {kind != "killed"}
    assert capfd.readouterr().err == ""
