"""The files of a run record: damage is one line, writing is whole and by one process."""

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from command.files import write_whole
from command.line import UserError
from experiments.run.lock import Lock


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


class Folder:
    """The directory of a record; ``lock`` is held by the process that writes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock: Lock | None = None
        self.writer = is_writer()

    def file(self, name: str) -> Path:
        """A file that must be there."""
        path = self.directory / name
        if not path.is_file():
            raise UserError(
                f"there is no {path}; {self.directory} holds no run, or an unfinished one"
            )
        return path

    def read(self, name: str) -> dict[str, Any]:
        """One of the JSON files. Raises UserError when it is missing or damaged."""
        path = self.file(name)
        try:
            value = json.loads(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
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
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is damaged: {error}") from None
        if not all(isinstance(line, dict) for line in lines):
            raise UserError(f"{path} is damaged: expected an object in every line")
        return lines

    def still_there(self) -> None:
        """Raise FileNotFoundError when somebody removed or replaced the directory meanwhile."""
        path = self.directory / "config.json"
        if self.lock is not None:
            try:
                found = path.stat()
                same = self.lock.identity == (found.st_dev, found.st_ino)
            except FileNotFoundError:
                same = False
            if not same:
                raise FileNotFoundError(
                    f"{self.directory} was removed or replaced while the run went on"
                )

    def write_json(self, name: str, value: Any, *, make_folder: bool = False) -> None:
        """Write ``name`` whole or not at all."""
        text = json.dumps(to_json(value), indent=2, ensure_ascii=False) + "\n"
        # A name of a file that is no text keeps its bytes as escapes, which JSON has.
        self.write(name, text.encode(errors="backslashreplace"), make_folder=make_folder)

    def write(self, name: str, content: bytes, *, make_folder: bool = False) -> None:
        """Write ``name`` whole or not at all, where this is the process that writes.

        Raises FileNotFoundError when the directory is no longer there.
        """
        if self.writer:
            self.still_there()
            write_whole(self.directory / name, content, make_folder=make_folder)


def several_processes() -> bool:
    """Whether `jax.distributed` runs this experiment in several processes.

    Who only reads records has not imported JAX, and need not.
    """
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def is_writer() -> bool:
    """Whether this is the process that writes: the only one, or that of index 0."""
    return not several_processes() or sys.modules["jax"].process_index() == 0
