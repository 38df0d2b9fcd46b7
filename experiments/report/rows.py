"""A row for every claim of both papers and every record that speaks of it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from command.line import UserError
from experiments.paper import CLAIMS, Claim
from experiments.report import commands, stated
from experiments.report.keep import FIGURES
from experiments.run.evidence import NO_CLAIM, NOT_RUN, UNUSABLE, Evidence, verdict
from experiments.run.record import RunRecord
from experiments.run.reports import REPORTS, report_of

# What reading values of a record that is not what it should be may raise.
MISFITS = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError)
PICTURE = ".png"


@dataclasses.dataclass(frozen=True)
class Kept:
    """A record, as far as it can be read: what made it, its size and figures, or why it cannot."""

    name: str
    directory: Path
    command: str = ""
    hardware: str = ""
    size: str = ""
    note: str = ""
    figures: tuple[Path, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    trouble: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One claim, what one record says of it, and the verdict; or a record without a claim."""

    claim: Claim | None
    verdict: str
    evidence: Evidence | None = None
    record: Kept | None = None

    @property
    def size(self) -> str:
        """What was run, and on what."""
        if self.record is None:
            return ""
        own = self.evidence.size if self.evidence is not None else ""
        return "; ".join(filter(None, (own or self.record.size, self.record.hardware)))

    @property
    def command(self) -> str:
        """What made the record, or what would make one."""
        if self.record is not None:
            return self.record.command
        return "" if self.claim is None else commands.command(self.claim)


def rows(records: Sequence[Kept]) -> list[Row]:
    """In the order of the claims; then what neither paper asks, then what cannot be read."""
    found = []
    for claim in CLAIMS:
        mine = [
            Row(claim, verdict(evidence), evidence, kept)
            for kept in records
            for evidence in kept.evidence
            if evidence.claim == claim
        ]
        found += mine or [Row(claim, NOT_RUN)]
    rest = [kept for kept in records if not kept.evidence]
    found += [Row(None, NO_CLAIM, None, kept) for kept in rest if not kept.trouble]
    return found + [Row(None, UNUSABLE, None, kept) for kept in rest if kept.trouble]


def kept(directory: Path) -> Kept:
    """Read a record, a run's own or one that was kept small. Damage is told, never raised."""
    name = directory.name
    try:
        return _kept(directory)
    except UserError as error:
        trouble = str(error).replace(f"{directory}/", "").replace(str(directory), name)
    except MISFITS as error:
        trouble = f"it holds something other than a run's record does: {error!r}"
    return Kept(name, directory, trouble=trouble)


def _kept(directory: Path) -> Kept:
    record = RunRecord(directory)
    config = record.read("config.json")
    experiment = config.get("experiment")
    meta = record.read("meta.json") if (directory / "meta.json").exists() else {}
    result = record.read("result.json") if (directory / "result.json").exists() else {}
    beyond = False
    if experiment == stated.EXPERIMENT:
        evidence = stated.evidence(record)
    elif isinstance(experiment, str) and experiment in REPORTS:
        report = report_of(experiment)
        beyond = getattr(report, "BEYOND", False)  # it also asks what neither paper does
        if not hasattr(report, "evidence"):
            raise UserError(f"nothing sets records of {experiment} beside the papers yet")
        evidence = report.evidence(record)
    else:
        raise UserError(f"it names no experiment that is known here: {experiment!r}")
    lines = record.read_metrics()
    if not evidence and not (beyond and (result or lines)):
        raise UserError("nothing in it speaks of a claim of either paper")
    for one in evidence:
        verdict(one)  # a value that no verdict can be given on is damage of this record
    notes = [str(meta.get("note") or "")]
    if not result and experiment != stated.EXPERIMENT:
        counted = [unit for unit in ("epoch", "step") if any(unit in line for line in lines)]
        latest = [f", at {u} {max(line.get(u, 0) for line in lines):,}" for u in counted[:1]]
        notes.insert(0, "".join(["unfinished", *latest]))
    return Kept(
        directory.name,
        directory,
        command=str(meta.get("command") or result.get("command") or ""),
        hardware=hardware(meta or result),
        size=size(config, result, lines),
        note="; ".join(filter(None, notes)),
        figures=figures(meta, directory),
        evidence=tuple(evidence),
    )


def size(config: dict[str, Any], result: dict[str, Any], lines: list[dict[str, Any]]) -> str:
    """Data, epochs and seeds of a run, as far as its record says."""
    said = []
    data = result.get("data")
    if isinstance(data, dict) and "train" in data:
        said.append(f"{data.get('name', 'data')}, {data['train']:,} training examples")
    elif "examples" in config and config["examples"] is not None:
        said.append(f"{config['examples']:,} examples")
    final = result.get("final")
    ends = [x for x in (final if isinstance(final, list) else lines) if isinstance(x, dict)]
    epochs = sorted({x["epoch"] for x in ends if "epoch" in x})
    if epochs:
        last = epochs if final else epochs[-1:]
        span = f"{last[0]:,}" if last[0] == last[-1] else f"{last[0]:,} to {last[-1]:,}"
        said.append(f"{span} epoch{'' if last == [1] else 's'}")
    seeds = {x["seed"] for x in ends if "seed" in x}
    if seeds:
        said.append(f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'}")
    return ", ".join(said)


def hardware(about: dict[str, Any]) -> str:
    """Device and cores, as the record has them."""
    device, cores, seconds = (about.get(key) for key in ("device", "cpu_cores", "seconds"))
    said = [str(device)] if device else []
    if cores:
        said.append(f"{cores} cores")
    if seconds and isinstance(seconds, int | float):  # 0 where a run did not say
        said.append(f"{seconds:,.0f} s")
    return ", ".join(said)


def figures(meta: dict[str, Any], directory: Path) -> tuple[Path, ...]:
    """The pictures of a record: its own, or those in figures/ that it names."""
    own = sorted(directory.glob(f"*{PICTURE}"))
    if own:
        return tuple(own)
    named = meta.get("figures")
    told = named if isinstance(named, list) else [f"{directory.name}{PICTURE}"]
    names = [one for one in told if isinstance(one, str) and one.endswith(PICTURE)]
    return tuple(FIGURES / one for one in names if Path(one).name == one)


def read_all(folder: Path) -> list[Kept]:
    """Every record in a folder, by name."""
    return [
        kept(path) for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."
    ]
