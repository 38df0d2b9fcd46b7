"""Keep run records, and set them beside what the papers print: python -m experiments.report."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from experiments.report import keep
from experiments.run.cli import UserError, run


@dataclasses.dataclass(frozen=True)
class Config:
    """Keep the record of a run among the committed ones, small and without checkpoints."""

    keep: Path | None = None
    """Directory of a run: its record is copied to figures/records/NAME, its figures to
    figures/."""
    name: Annotated[str | None, tyro.conf.arg(name="as")] = None
    """NAME of what is kept; the experiment's by default."""
    replace: bool = False
    """Take the place of a record that was kept by this name."""
    note: str = ""
    """What a reader of the record should know of it."""


def main(config: Config) -> None:
    """Keep a run."""
    if config.keep is None:
        raise UserError("name a run with --keep RUN, as in runs/<experiment>/<run>")
    kept = keep.keep(config.keep, config.name, replace=config.replace, note=config.note)
    size = sum(path.stat().st_size for path in kept.iterdir())
    print(f"kept {config.keep} as {kept.relative_to(keep.ROOT)}, {size / 1000:.0f} kB")


if __name__ == "__main__":
    run(main, Config, prog="experiments.report", device=False)
