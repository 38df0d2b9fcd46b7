"""Groups of options: an experiment's configuration is composed of those that it has."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from command import options as constraints
from command.line import UserError
from command.options import Count


@dataclasses.dataclass(frozen=True)
class Options:
    """What every group has: checks that raise UserError, and how a smoke run is made.

    What one option may be stands beside it (`command.options`). A group overrides ``check`` for the
    rest, calling ``super().check()`` first, so that the groups of a configuration are all checked.
    """

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        constraints.check(self)

    def require_multiples(self, of: str, *names: str) -> None:
        """Raise UserError unless each of these options is a multiple, from 1, of another one."""
        for name in names:
            value, unit = getattr(self, name), getattr(self, of)
            if value < 1 or value % unit:
                raise UserError(
                    f"{option(name)} must be a multiple of {option(of)} ({unit}), got {value}"
                )


def option(name: str) -> str:
    """A field as it is typed."""
    return f"--{name.replace('_', '-')}"


@dataclasses.dataclass(frozen=True)
class Run(Options):
    """Where the record goes, and whether a run is small or goes on with another."""

    out: Path | None = None
    """Directory of the run record; must not exist. Default: runs/<experiment>/<date-time>."""
    smoke: bool = False
    """The same code at the smallest size, in under a minute on two CPU cores."""
    resume: bool = False
    """Go on with the run in --out from its last checkpoint."""
    accept_changes: bool = False
    """With --resume: go on although code, package versions or platform are not those that the run
    was begun with. The record says so."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {}  # the options of a smoke run

    def check(self) -> None:
        super().check()
        if self.accept_changes and not self.resume:
            raise UserError("--accept-changes is for a run that --resume takes up again")

    def settled(self) -> Self:
        """The options, checked; those of a smoke run with --smoke, whatever was given."""
        self.check()
        return dataclasses.replace(self, **self.smallest()) if self.smoke else self

    def smallest(self) -> Mapping[str, Any]:
        """What a smoke run changes."""
        return self.SMALLEST


@dataclasses.dataclass(frozen=True)
class Seeds(Options):
    """Which seeds are trained."""

    seed: int = 0
    """First seed."""
    seeds: Annotated[int, Count(most=4096, why="they are trained side by side")] = 1
    """How many seeds to train together: seed, seed + 1, ..."""

    def check(self) -> None:
        super().check()
        check_seed(self.seed, self.seeds)

    def all_seeds(self) -> range:
        """The seeds themselves."""
        return range(self.seed, self.seed + self.seeds)


def check_seed(seed: int, seeds: int = 1) -> None:
    """Raise UserError for a seed that JAX would cut: it drops the bits above 32."""
    if not 0 <= seed <= 2**32 - seeds:
        raise UserError(f"--seed must lie between 0 and {2**32 - seeds}, got {seed}")


@dataclasses.dataclass(frozen=True)
class DataSource(Options):
    """Where the data come from."""

    data: str = "tfds"
    """Where the data come from: tfds, embedded (what an installed package carries), or a path."""


@dataclasses.dataclass(frozen=True)
class Common(Run, Seeds, DataSource):
    """Options of an experiment that trains on data from elsewhere."""
