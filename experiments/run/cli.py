"""Options that every experiment has; the command line itself is `command.line`."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from command import line
from command.line import UserError as UserError
from command.line import parse as parse


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


def run(
    main: Callable[[Any], None],
    config: Any,
    *,
    prog: str,
    args: list[str] | None = None,
    device: bool = True,
) -> None:
    """`command.line.run`, with the library's own errors among what the user can put right.

    ``device``: that JAX finds a device is tried before anything else is done.
    """
    from jaxsens.checkpoints import CheckpointError
    from jaxsens.data import DataError

    def started(options: Any) -> None:
        if device:
            import jax

            jax.devices()
        main(options)

    line.run(started, config, prog=prog, args=args, errors=(CheckpointError, DataError))
