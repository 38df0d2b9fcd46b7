"""What every experiment does: check, load, record, run, finish, draw, print."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from experiments.run.options import Run
from experiments.run.record import RunRecord
from experiments.run.reports import report_of

Config = TypeVar("Config", bound=Run)
Data = TypeVar("Data")


def conduct(
    name: str,
    config: Config,
    *,
    load: Callable[[Config], tuple[Data, str]],
    work: Callable[[Config, Data, RunRecord], Mapping[str, Any]],
    arrays: Callable[[Data], Any] = lambda data: None,
) -> None:
    """Run the experiment ``name``, and leave its record with the figures.

    ``load(config)`` gives the data and a line that says what is about to be done; whatever cannot
    be right it refuses with UserError, for afterwards the record exists. ``arrays(data)`` are those
    that a resumed run must find as they were: nothing for data that are generated. ``work`` trains
    and measures and returns what ``result.json`` holds. The report of the experiment, which is
    registered in `experiments.run.reports`, draws and prints from the record alone.
    """
    config = config.settled()
    data, line = load(config)
    record = RunRecord.create(name, config, out=config.out, resume=config.resume, data=arrays(data))
    print(f"{line}; record in {record.directory}", flush=True)
    started = time.monotonic()
    result = work(config, data, record)
    record.finish(result, seconds=time.monotonic() - started)
    report = report_of(name)
    report.draw(record)
    print(report.summary(record))
