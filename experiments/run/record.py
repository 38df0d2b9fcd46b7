"""Run records: the directory an experiment writes, from which every figure can be redrawn."""

import dataclasses
import datetime
import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from command.files import write_whole as write_whole
from experiments.run.cli import UserError

PACKAGES = ("jaxsens", "jax", "jaxlib", "flax", "optax", "numpy")


def to_json(value: Any) -> Any:
    """``value`` with dataclasses, paths, arrays and NaN (as null) in forms that JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class RunRecord:
    """``config.json``, ``metrics.jsonl``, ``result.json``, ``checkpoints/`` and figures of one run.

    ``config.json`` is the whole configuration, ``metrics.jsonl`` one line an evaluation,
    ``result.json`` the final values with versions, device, commit and wall time.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: list[dict[str, Any]] = []

    @classmethod
    def create(cls, experiment: str, config: Any, *, out: Path | None, resume: bool) -> "RunRecord":
        """Start a record in ``out`` (default: ``runs/<experiment>/<time>``), or take one up again.

        Raises UserError when ``out`` exists and is not to be resumed or cannot be made, when there
        is nothing to resume, or when its configuration was another.
        """
        if out is None:
            if resume:
                raise UserError("--resume needs --out, the directory of the run to take up again")
            out = Path("runs", experiment, datetime.datetime.now().strftime("%Y%m%d-%H%M%S"))
        record = cls(out)
        settings = {k: v for k, v in to_json(config).items() if k not in ("out", "resume")}
        settings = {"experiment": experiment, **settings}
        if resume:
            before = record.read("config.json")
            changed = [k for k in {*before, *settings} if before.get(k) != settings.get(k)]
            if changed:
                name = sorted(changed)[0]
                raise UserError(
                    f"{out} was run with {name}={before.get(name)!r}, not {settings.get(name)!r}; "
                    "resume with the same options"
                )
            for leftover in out.glob(".*.partial"):  # of a process that was killed
                leftover.unlink()
            record.lines = record.read_metrics()
        else:
            if os.path.lexists(out):
                raise UserError(f"{out} exists; choose another --out, or --resume to go on with it")
            # The directory appears with its configuration: without, it could not be resumed.
            partial = out.with_name(f".{out.name}.partial")
            try:
                shutil.rmtree(partial, ignore_errors=True)
                cls(partial)._write_json("config.json", settings)
                partial.rename(out)
            except OSError as error:
                shutil.rmtree(partial, ignore_errors=True)
                raise UserError(f"{out} cannot be written: {error.strerror}") from None
        return record

    def read(self, name: str) -> dict[str, Any]:
        """One of the JSON files. Raises UserError when it is missing or damaged."""
        path = self.directory / name
        try:
            value = json.loads(path.read_bytes())
        except OSError:
            raise UserError(
                f"there is no {path}; {self.directory} holds no run, or an unfinished one"
            ) from None
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}") from None
        if not isinstance(value, dict):
            raise UserError(f"{path} is damaged: expected an object, got {type(value).__name__}")
        return value

    def read_metrics(self) -> list[dict[str, Any]]:
        """The evaluations so far, a dictionary each; empty before the first."""
        path = self.directory / "metrics.jsonl"
        if not path.exists():
            return []
        try:
            lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}") from None
        if not all(isinstance(line, dict) for line in lines):
            raise UserError(f"{path} is damaged: expected an object in every line")
        return lines

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append evaluations to ``metrics.jsonl``."""
        self.lines += [to_json(line) for line in lines]
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        write_whole(self.directory / "metrics.jsonl", text.encode())

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Forget evaluations for which ``wanted(line)`` is false (those after a checkpoint)."""
        self.lines = [line for line in self.lines if wanted(line)]

    def last(self, model: str, seed: int) -> dict[str, Any]:
        """The latest evaluation of one seed of a model."""
        return next(
            line for line in reversed(self.lines) if line["model"] == model and line["seed"] == seed
        )

    def finish(self, result: Mapping[str, Any], *, seconds: float) -> None:
        """Write ``result.json``: the final values and what produced them."""
        self._write_json("result.json", {**result, "seconds": round(seconds, 1), **provenance()})

    def _write_json(self, name: str, value: Any) -> None:
        text = json.dumps(to_json(value), indent=2, ensure_ascii=False) + "\n"
        write_whole(self.directory / name, text.encode())


def provenance() -> dict[str, Any]:
    """Command, versions, device and commit."""
    device = jax.devices()[0]
    return {
        "command": _command(),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "device": f"{device.device_kind} x {jax.device_count()}",
        "cpu_cores": os.cpu_count(),
        "commit": _commit(),
    }


def _command() -> str:
    """What was typed: ``python -m`` puts a path in ``sys.argv`` but keeps the name in the spec."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", spec.name.removesuffix(".__main__")] if spec else sys.argv[:1]
    return shlex.join(["python", *program, *sys.argv[1:]])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout without installing it
        return None


def _commit() -> str | None:
    """The commit of the code that ran, with "+" when it was changed since; None outside git."""
    root = Path(__file__).parents[2]
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
