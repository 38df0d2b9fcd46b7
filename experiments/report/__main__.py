"""Set run records beside what both papers print: python -m experiments.report [RUNS...].

With --keep, copy a run's record among the committed ones instead.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from command.files import write_whole
from experiments.report import html, keep, markdown, rows
from experiments.run.cli import UserError, run


@dataclasses.dataclass(frozen=True)
class Config:
    """Every number and curve of both papers beside what records say: report.html and report.md.

    With --keep RUN, copy the record of a run among the committed ones instead, small and without
    checkpoints.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Directories of runs or of kept records; none for all of figures/records."""
    out: Path | None = None
    """Directory of both files; docs/ of the clone for the committed records, else this one."""
    keep: Path | None = None
    """Directory of a run: its record is copied to figures/records/NAME, its figures to
    figures/, and the report in docs/ is made anew."""
    name: Annotated[str | None, tyro.conf.arg(name="as")] = None
    """NAME of what is kept; the experiment's by default."""
    replace: bool = False
    """Take the place of a record that was kept by this name."""
    note: str = ""
    """What a reader of the record should know of it."""


def main(config: Config) -> None:
    """Keep a run, or make the report."""
    if config.keep is not None:
        if config.runs or config.out:
            raise UserError("--keep takes one run and makes no report; give RUNS or --out without")
        _keep(config, config.keep)
    elif config.name is not None or config.replace or config.note:
        raise UserError("--as, --replace and --note go with --keep RUN")
    else:
        _report(config)


def _keep(config: Config, directory: Path) -> None:
    kept = keep.keep(directory, config.name, replace=config.replace, note=config.note)
    size = sum(path.stat().st_size for path in kept.iterdir())
    print(f"kept {directory} as {kept.relative_to(keep.ROOT)}, {size / 1000:.0f} kB")
    _report(Config())  # which is committed with its records


def _report(config: Config) -> None:
    for directory in config.runs:
        if not directory.is_dir():
            raise UserError(f"there is no directory {directory}")
    if config.runs:
        found = [rows.kept(directory) for directory in config.runs]
    elif keep.RECORDS.is_dir():
        found = rows.read_all(keep.RECORDS)
    else:
        raise UserError(f"there is no {keep.RECORDS}; name run directories")
    out = config.out or (Path() if config.runs else keep.ROOT / "docs")
    told = rows.rows(found)
    write_whole(out / "report.html", html.page(told).encode())
    write_whole(out / "report.md", markdown.page(told).encode())
    for kept in found:
        if kept.trouble:
            print(f"{kept.name}: {kept.trouble}")
    print(f"{len(told)} rows from {len(found)} records in {out / 'report.html'} and report.md")


if __name__ == "__main__":
    run(main, Config, prog="experiments.report", device=False)
