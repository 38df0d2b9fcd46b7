"""Run records: the directory an experiment writes, from which every figure can be redrawn."""

import datetime
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from command import stops, streams
from command.files import write_whole as write_whole
from command.line import UserError
from experiments.run import curve as curves
from experiments.run import origin
from experiments.run.folder import Folder, several_processes
from experiments.run.folder import to_json as to_json
from experiments.run.lock import alone_in, hold
from experiments.run.origin import PACKAGES as PACKAGES
from experiments.run.origin import provenance as provenance

Tree = TypeVar("Tree")
HOW = ("out", "resume", "accept_changes")  # options that say how to record, not what to run


class RunRecord(Folder):
    """``config.json``, ``metrics.jsonl``, ``result.json``, ``checkpoints/`` and figures of one run.

    ``config.json`` is the whole configuration with fingerprints of data and code, ``metrics.jsonl``
    one line an evaluation, ``result.json`` the final values with versions, device, commit and wall
    time. A record that is written is locked (`experiments.run.lock`); where several processes run
    one experiment (`jax.distributed`), process 0 writes.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.lines: list[dict[str, Any]] = []

    @classmethod
    def create(
        cls, experiment: str, config: Any, *, out: Path | None, resume: bool, data: Any = None
    ) -> "RunRecord":
        """Start a record in ``out`` (default: ``runs/<experiment>/<time>``), or take one up again.

        ``data``, any pytree of arrays, is what the run is about; its fingerprint is kept.

        Raises UserError when ``out`` exists and is not to be resumed, cannot be made, or is being
        written by another process; when there is nothing to resume, its configuration or data were
        others, or its code, package versions or platform were and its ``accept_changes`` is not
        set.
        """
        if out is None:
            if resume:
                raise UserError("--resume needs --out, the directory of the run to take up again")
            now = datetime.datetime.fromtimestamp(_agreed(int(time.time())))
            out = Path("runs", experiment, now.strftime("%Y%m%d-%H%M%S"))
        record = cls(out)
        told = to_json(config)
        settings = {k: v for k, v in told.items() if k not in HOW}
        settings = {"experiment": experiment, **settings}
        made_of = origin.made_of(data)
        if not resume:
            if record.writer:
                record._make({**settings, "made_of": made_of})
            return record
        record.lock = hold(record.file("config.json"), name=out) if record.writer else None
        record._same_run(settings, made_of, accept=told.get("accept_changes", False))
        record._clear()
        record.lines = record.read_metrics()
        return record

    def _make(self, config: Mapping[str, Any]) -> None:
        """The directory appears with its configuration: without, it could not be resumed."""
        out = self.directory
        taken = UserError(f"{out} exists; choose another --out, or --resume to go on with it")
        if os.path.lexists(out):
            raise taken
        partial = out.with_name(f".{out.name}.new-run")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with alone_in(out.parent):
                try:
                    for left in out.parent.glob(".*.new-run"):  # by processes that were killed
                        shutil.rmtree(left, ignore_errors=True)
                    Folder(partial).write_json("config.json", config, make_folder=True)
                    self.lock = hold(partial / "config.json", name=out)
                    if os.path.lexists(out):
                        raise taken
                    partial.rename(out)
                except BaseException:
                    self.lock = None
                    shutil.rmtree(partial, ignore_errors=True)
                    raise
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:  # where folders have no locks, somebody was faster
                raise taken from None
            reason = "Not a directory" if error.errno == errno.EEXIST else error.strerror
            raise UserError(f"{out} cannot be written: {reason}") from None

    def _same_run(
        self, settings: Mapping[str, Any], made_of: Mapping[str, Any], *, accept: bool
    ) -> None:
        """Raise UserError when the run that is to be resumed was another."""
        before = self.read("config.json")
        made_before = before.pop("made_of", None)
        changed = [k for k in {*before, *settings} if before.get(k) != settings.get(k)]
        if changed:
            name = sorted(changed)[0]
            raise UserError(
                f"{self.directory} was run with {name}={before.get(name)!r}, not "
                f"{settings.get(name)!r}; resume with the same options"
            )
        if not isinstance(made_before, dict):
            raise UserError(
                f"{self.directory} does not say what code and data it was made of: it is of an "
                "earlier version; start afresh with another --out"
            )
        if made_before.get("data") != made_of["data"]:
            raise UserError(
                f"the data are not those that {self.directory} was begun with; give it the same "
                "--data, or start afresh with another --out"
            )
        changes = self._changes()
        latest = changes[-1]["to"] if changes else made_before
        difference = origin.difference(latest, made_of)
        if difference is not None:
            if not accept:
                raise UserError(
                    f"{self.directory} was begun with something else: {difference}; go back to "
                    "that, or go on all the same with --accept-changes, and the record will say so"
                )
            streams.say(f"going on although this changed: {difference}")
            at = {"lines": len(self.read_metrics()), "changed": difference, "to": made_of}
            self.write_json("changes.json", {"changes": [*changes, at]})

    def _changes(self) -> list[dict[str, Any]]:
        """What was accepted at earlier resumptions."""
        path = self.directory / "changes.json"
        return self.read("changes.json")["changes"] if path.exists() else []

    def _clear(self) -> None:
        """Remove what a killed process left."""
        if self.writer:
            for leftover in self.directory.rglob(".*.partial"):
                leftover.unlink(missing_ok=True)
            from jaxsens import checkpoints

            for folder in (self.directory / "checkpoints").glob("*/"):
                checkpoints.tidy(folder)

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append evaluations to ``metrics.jsonl``, each behind those of its model."""
        for line in map(to_json, lines):
            places = [
                i for i, old in enumerate(self.lines) if old.get("model") == line.get("model")
            ]
            self.lines.insert(places[-1] + 1 if places else len(self.lines), line)
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        self.write("metrics.jsonl", text.encode())

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Forget evaluations for which ``wanted(line)`` is false (those after a checkpoint)."""
        self.lines = [line for line in self.lines if wanted(line)]

    def of_model(self, model: str) -> list[dict[str, Any]]:
        """The evaluations of one model, in order."""
        return [line for line in self.lines if line.get("model") == model]

    def last(self, model: str, seed: int) -> dict[str, Any]:
        """The latest evaluation of one seed of a model."""
        return next(line for line in reversed(self.of_model(model)) if line["seed"] == seed)

    def curve(self, field: str, **where: Any) -> tuple[np.ndarray, np.ndarray]:
        """Epochs (E,) and a field's values (S, E) of the lines that match: `curves.curve`."""
        return curves.curve(self.read_metrics(), field, **where)

    def save(
        self, model: str, lines: Sequence[Mapping[str, Any]], state: Any, *, step: int
    ) -> None:
        """Add evaluations of a model and the checkpoint they lead up to; a stop waits for both.

        The checkpoint says to which run and model it belongs, and which evaluations it has behind
        it.
        """
        from jaxsens import checkpoints  # and JAX, which those that only read do without

        with stops.deferred():
            self.add(lines)
            self.still_there()
            about = {**self._whose(model), **_fingerprint(self.of_model(model))}
            checkpoints.save(self._checkpoints(model), state, step=step, about=about)

    def restore(self, model: str, like: Tree) -> tuple[int, Tree] | None:
        """Step and state of the newest whole checkpoint of a model; None when there is none.

        Evaluations that came after it are forgotten. Raises UserError when those before it are not
        the ones that it was saved with, or it was saved by another run or for another model;
        CheckpointError when it does not fit ``like``, or none is whole.
        """
        from jaxsens import checkpoints

        with stops.deferred():  # or orbax's threads would go on, and complain
            found = checkpoints.restore_newest(self._checkpoints(model), like)
        if found is None:
            self.keep(lambda line: line.get("model") != model)
            return None
        where = self._checkpoints(model) / str(found.step)
        for line in found.damaged:
            streams.say(f"{line.split('; start afresh')[0]}: going on from {where}")
        about = found.about
        if any(about.get(key) != value for key, value in self._whose(model).items()):
            raise UserError(
                f"the checkpoint {where} was saved by another run or for another model; put it "
                "back where it was, or start afresh with another --out"
            )
        mine = self.of_model(model)
        expected, count = about["evaluations"], about["count"]
        if len(mine) < count or _fingerprint(mine[:count])["evaluations"] != expected:
            raise UserError(
                f"{self.directory / 'metrics.jsonl'} is not what the checkpoint {where} was saved "
                f"with ({count} lines of {model}, {len(mine)} are there); put it back as it was, "
                "or start afresh with another --out"
            )
        kept = {id(line) for line in mine[:count]}
        self.keep(lambda line: line.get("model") != model or id(line) in kept)
        return found.step, found.state

    def finish(self, result: Mapping[str, Any], *, seconds: float) -> None:
        """Write ``result.json``: the final values and what produced them."""
        value = {**result, "seconds": round(seconds, 1), **provenance()}
        changes = self._changes()
        if changes:
            value["changes"] = [change["changed"] for change in changes]
        self.write_json("result.json", value)

    def _checkpoints(self, model: str) -> Path:
        return self.directory / "checkpoints" / model

    def _whose(self, model: str) -> dict[str, str]:
        config = (self.directory / "config.json").read_bytes()
        return {"run": origin.of_bytes(config), "model": model}


def _fingerprint(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many evaluations, and the fingerprint of what they say."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return {"count": len(lines), "evaluations": origin.of_bytes(text.encode())}


def _agreed(value: int) -> int:
    """Process 0's value, in every process."""
    if not several_processes():
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(value))
