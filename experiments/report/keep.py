"""Keep a run: its record made small enough to commit, without checkpoints and machine paths.

What is kept, by rule:

- of the evaluations of each network evenly spaced ones, the first and the last among them, all
  seeds of an evaluation together, at most `LINES` lines in all (fewer where the record would
  be larger than `LARGEST`); lists of evaluations in ``result.json`` likewise;
- numbers to six digits; of arrays of more than `LONG` numbers shape, mean and range;
- of an absolute path the last part.

What an experiment reads from the whole curves it may keep beside: ``condense(record)`` of its
report, a mapping, becomes ``condensed.json``. ``meta.json`` says where the rest comes from:
command, device, versions, commit, seconds and date, and whether the run had finished.
"""

import datetime
import json
import math
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from command.line import UserError
from experiments.run.folder import to_json
from experiments.run.record import RunRecord
from experiments.run.reports import REPORTS, report_of

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "figures" / "records"
FIGURES = ROOT / "figures"
LINES = 400
LONG = 64
LARGEST = 150_000  # bytes of a record
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,60}")
PATH = re.compile(r"""(?:^|(?<=[\s='"(,]))(?:~|\.{0,2})/(?:[^\s'",)]*/)*([^\s'",)/]+)/*""")


def keep(run: Path, name: str | None, *, replace: bool = False, note: str = "") -> Path:
    """Copy the record of a run to ``figures/records/NAME`` and its figures to ``figures/``.

    A run that has not finished is kept as far as it is, and says so. Raises UserError when there
    is no record, it is damaged, or the name is taken.
    """
    record = RunRecord(run)
    config = record.read("config.json")
    experiment = config.get("experiment")
    if not isinstance(experiment, str) or experiment not in REPORTS:
        raise UserError(f"{run} names no experiment that is known here: {experiment!r}")
    name = name or experiment
    if not NAME.fullmatch(name):
        raise UserError(f"--as must be a-z, 0-9, - and _ alone, got {name!r}")
    finished = (run / "result.json").exists()
    lines = record.read_metrics()
    if not lines and not finished:
        raise UserError(f"{run} has neither a result nor evaluations yet; there is nothing to keep")
    result = record.read("result.json") if finished else {}
    if finished:
        result["command"] = command(result, experiment)
    target = RECORDS / name
    if target.exists() and not replace:
        raise UserError(f"{target} exists; choose another name with --as, or give --replace")
    files, kept = small(config, result, lines)
    condense = getattr(report_of(experiment), "condense", None)
    if condense is not None:
        files["condensed.json"] = _text(shortened(condense(record)))
    made_of = config.get("made_of") or {}
    pictures = sorted(run.glob("*.png"))
    single = len(pictures) == 1
    figures = {f"{name}.png" if single else f"{name}_{p.stem}.png": p for p in pictures}
    latest = record.directory / ("result.json" if finished else "metrics.jsonl")
    files["meta.json"] = _text(
        {
            "name": name,
            "experiment": experiment,
            "finished": finished,
            "note": note,
            "command": result.get("command") or command(result, experiment),
            "device": result.get("device") or made_of.get("platform"),
            "cpu_cores": result.get("cpu_cores"),
            "versions": result.get("versions") or made_of.get("versions"),
            "commit": result.get("commit") or made_of.get("commit"),
            "seconds": result.get("seconds")
            or max((x.get("seconds", 0) for x in lines), default=0),
            "date": datetime.date.fromtimestamp(latest.stat().st_mtime).isoformat(),
            "figures": list(figures),
            "lines": {"kept": kept, "of": len(lines)},
        }
    )
    partial = target.with_name(f".{name}.new")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file, text in files.items():
        (partial / file).write_text(text)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    for figure, picture in figures.items():
        shutil.copy(picture, FIGURES / figure)
    return target


def small(
    config: Mapping[str, Any], result: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, str], int]:
    """The files of a kept record as text, and how many lines of evaluations are among them."""
    limit = LINES
    while True:
        chosen = thinned(lines, limit)
        files = {
            "config.json": _text(shortened(config)),
            "metrics.jsonl": "".join(
                json.dumps(shortened(line), ensure_ascii=False) + "\n" for line in chosen
            ),
        }
        if result:
            files["result.json"] = _text(shortened(result, limit))
        size = sum(len(text.encode()) for text in files.values())
        if size <= LARGEST:
            return files, len(chosen)
        if limit < 8:
            raise UserError(f"the record takes {size} bytes, more than {LARGEST}, however thinned")
        limit //= 2


def thinned(lines: Sequence[Mapping[str, Any]], limit: int) -> list[Mapping[str, Any]]:
    """Evenly spaced evaluations of each network, the first and the last among them."""
    if len(lines) <= limit:
        return list(lines)
    places: dict[Any, list[Any]] = {}
    for line in lines:
        at = places.setdefault(line.get("model"), [])
        if _place(line) not in at[-1:] and _place(line) not in at:
            at.append(_place(line))
    rows = {model: max(1, _seeds(lines, model)) for model in places}
    share = max(2, limit // sum(rows.values()))
    wanted = {
        model: {at[round(i * (len(at) - 1) / (share - 1))] for i in range(share)}
        for model, at in places.items()
    }
    return [line for line in lines if _place(line) in wanted[line.get("model")]]


def _place(line: Mapping[str, Any]) -> Any:
    return line.get("step", line.get("epoch"))


def _seeds(lines: Sequence[Mapping[str, Any]], model: Any) -> int:
    return len({line.get("seed") for line in lines if line.get("model") == model})


def shortened(value: Any, limit: int = LINES) -> Any:
    """A value of a record without machine paths, long arrays and needless digits."""
    if isinstance(value, Mapping):
        return {shortened(key): shortened(item, limit) for key, item in value.items()}
    if isinstance(value, list | tuple):
        numbers = _numbers(value)
        if numbers is not None and len(numbers) > LONG:
            return {"shape": _shape(value), **_summary(numbers)}
        if len(value) > limit and all(isinstance(x, Mapping) and "seed" in x for x in value):
            value = thinned(value, limit)
        return [shortened(item, limit) for item in value]
    if isinstance(value, bool) or not isinstance(value, float | str):
        return value
    if isinstance(value, str):
        return PATH.sub(r".../\1", value)
    return float(f"{value:.6g}") if math.isfinite(value) else None


def command(result: Mapping[str, Any], experiment: str) -> str:
    """The command of a run, without where its record went."""
    given = result.get("command")
    if not isinstance(given, str):
        module = experiment.replace("length_", "length ")  # whose parts are subcommands
        return f"python -m experiments.{module} (its options are in config.json)"
    try:
        words = iter(shlex.split(given))
    except ValueError:
        return shortened(given)
    kept: list[str] = []
    for word in words:
        if word == "--out":
            next(words, None)
        elif not re.match(r"--(out=|resume$|accept[-_]changes$)", word):
            option, equals, value = word.rpartition("=")
            if re.match(r"(~|\.{0,2})/", value):
                value = f".../{Path(value).name}"
            kept.append(f"{option}{equals}{value}")
    return shlex.join(kept)


def _numbers(value: Any) -> list[float] | None:
    """All numbers in nested lists; None where there is anything else."""
    if isinstance(value, list | tuple):
        found: list[float] = []
        for item in value:
            inner = _numbers(item)
            if inner is None:
                return None
            found += inner
        return found
    if value is None or isinstance(value, bool | str | Mapping):
        return None
    return [float(value)]


def _shape(value: Any) -> list[int]:
    return [len(value), *_shape(value[0])] if isinstance(value, list | tuple) and value else []


def _summary(numbers: Sequence[float]) -> dict[str, float]:
    values = {"mean": math.fsum(numbers) / len(numbers), "min": min(numbers), "max": max(numbers)}
    return {key: float(f"{number:.6g}") for key, number in values.items()}


def _text(value: Any) -> str:
    return json.dumps(to_json(value), indent=1, ensure_ascii=False) + "\n"
