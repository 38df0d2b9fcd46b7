"""Redraw the figures of finished runs from their records: python -m experiments.redraw RUN ..."""

import dataclasses
from pathlib import Path

import tyro

from experiments.run.cli import UserError, run
from experiments.run.record import RunRecord
from experiments.run.reports import REPORTS, report_of


@dataclasses.dataclass(frozen=True)
class Config:
    """Redraw the figures of finished runs from their records, without training anything."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, as in runs/<experiment>/<run>."""


def main(config: Config) -> None:
    """Draw each run with the experiment that its record names."""
    if not config.runs:
        raise UserError("name at least one run directory, as in runs/<experiment>/<run>")
    for directory in config.runs:
        record = RunRecord(directory)
        experiment = record.read("config.json").get("experiment")
        if not isinstance(experiment, str) or experiment not in REPORTS:
            raise UserError(f"{directory} names no experiment that is known here: {experiment!r}")
        try:
            report_of(experiment).draw(record)
        except KeyError as error:
            raise UserError(f"the record in {directory} is damaged: it lacks {error}") from None
        print(f"redrew {directory}")


if __name__ == "__main__":
    run(main, Config, prog="experiments.redraw", device=False)
