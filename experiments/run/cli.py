"""The command line: frozen dataclasses as options, errors on one line with exit code 2."""

import contextlib
import dataclasses
import io
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tyro

Config = TypeVar("Config")


class UserError(Exception):
    """Something the user can put right; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Common:
    """Options every experiment has."""

    data: str = "tfds"
    """Where the data come from: tfds, embedded (what an installed package carries), or a path."""
    out: Path | None = None
    """Directory of the run record; must not exist. Default: runs/<experiment>/<date-time>."""
    seed: int = 0
    """First seed."""
    seeds: int = 1
    """How many seeds to train together: seed, seed + 1, ..."""
    smoke: bool = False
    """The same code at the smallest size, in under a minute on two CPU cores."""
    resume: bool = False
    """Go on with the run in --out from its last checkpoint."""

    def require_counts(self, *names: str) -> None:
        """Raise UserError unless each of these options is at least 1, or None."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")

    def require_positive(self, *names: str) -> None:
        """Raise UserError unless each of these options, or each of its values, is in (0, inf)."""
        for name in names:
            given = getattr(self, name)
            for value in given if isinstance(given, tuple) else (given,):
                if value is not None and not 0 < value < math.inf:
                    option = f"--{name.replace('_', '-')}"
                    raise UserError(f"{option} must be finite and greater than 0, got {value}")

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        if self.seeds < 1:
            raise UserError(f"--seeds must be at least 1, got {self.seeds}")
        # JAX drops the bits above 32, and would repeat the first seeds.
        if not 0 <= self.seed <= 2**32 - self.seeds:
            limit = 2**32 - self.seeds
            raise UserError(f"--seed must lie between 0 and {limit}, got {self.seed}")


def parse(config: type[Config], *, prog: str, args: list[str] | None = None) -> Config:
    """The options as an instance of ``config``; one line on standard error and exit 2 if wrong."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(config, prog=f"python -m {prog}", args=args)
    except SystemExit as stop:
        if stop.code:
            _fail(f"{_one_line(errors.getvalue())} (see python -m {prog} --help)")
        raise


def run(
    main: Callable[[Any], None], config: Any, *, prog: str, args: list[str] | None = None
) -> None:
    """Parse the options and call ``main``; what the user can put right is one line and exit 2.

    That includes what the file system refuses. An interrupt is one line too, and exit 130. Anything
    else is a bug and shows its traceback.
    """
    from jaxsens.checkpoints import CheckpointError
    from jaxsens.data import DataError

    options = parse(config, prog=prog, args=args)
    try:
        main(options)
    except (UserError, CheckpointError, DataError, FloatingPointError, OSError) as error:
        _fail(str(error))
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> None:
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def _one_line(box: str) -> str:
    """The first statement of an error that the parser drew in a box."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│ ").strip() for line in text.splitlines() if line.startswith("│")]
    statement = []
    for line in lines:
        if not line or set(line) <= {"─"}:
            break
        statement.append(line)
    return " ".join(statement) or " ".join(text.split())
