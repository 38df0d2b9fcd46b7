"""Networks that other runs trained on the same pairs: taken into a record, and compared."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.run.cli import UserError
from experiments.run.record import RunRecord

# Options that must be the same, for the sentences, their tokens and the noise to be.
SAME = (
    "task",
    "vocabulary",
    "max_length",
    "buckets",
    "examples",
    "validation_examples",
    "sensitivity_examples",
    "sigma2",
    "draws",
    "tokens",
    "seed",
    "seeds",
    "batch_size",
)


@dataclasses.dataclass(frozen=True)
class Other:
    """A finished run: its evaluations, and the final lines of its networks."""

    path: Path
    lines: list[dict[str, Any]]
    final: list[dict[str, Any]]


def read(paths: Sequence[Path], config: Any) -> list[Other]:
    """Finished runs of the language experiment.

    With no network of its own a record may set vocabularies side by side; their networks are then
    told apart by it, in name and label. Raises UserError for other runs, and for a network that is
    trained here or named twice.
    """
    others: list[Other] = []
    names = set(config.arch)
    configs = [RunRecord(path).read("config.json") for path in paths]
    several = "none" in config.arch and len({x.get("vocabulary") for x in configs}) > 1
    for path, theirs in zip(paths, configs, strict=True):
        if theirs.get("experiment") != "language":
            raise UserError(f"--beside {path} is no run of the language experiment")
        for name in SAME:
            if several and name == "vocabulary":
                continue
            mine = getattr(config, name)
            mine = list(mine) if isinstance(mine, tuple) else mine
            if theirs.get(name) != mine:
                raise UserError(
                    f"--beside {path} was made with {name} = {theirs.get(name)}; here it is {mine}"
                )
        record = RunRecord(path)
        result, lines = record.read("result.json"), record.read_metrics()
        final = result["final"]
        if several:
            lines, final = (
                [_told_apart(line, result["data"]) for line in some] for some in (lines, final)
            )
        own = {line["model"] for line in final}
        if own & names:
            raise UserError(f"--beside {path} has {', '.join(sorted(own & names))} too")
        names |= own
        others.append(Other(path, lines, final))
    return others


def _told_apart(line: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """A line of a run whose tokens are not those of the others."""
    size = data["vocabulary"]
    own = {"model": f"{line['model']} {size}", "vocabulary": size, "tokens": data["tokens a pair"]}
    if "label" in line:
        own["label"] = f"{line['label']}, {size} sub-words"
    return {**line, **own}


def take_in(record: RunRecord, others: Sequence[Other]) -> None:
    """Their evaluations among this record's; those that a resumed run finds are left."""
    there = {line["model"] for line in record.lines}
    for other in others:
        record.add([line for line in other.lines if line["model"] not in there])


def paired(final: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every network against the first, for each field and seed: difference and paired error.

    Of fields whose estimates are of the same texts, tokens and noise; the error is that of the
    mean of the texts' differences.
    """
    found = []
    first = final[0]["model"] if final else None
    base = {line["seed"]: line for line in final if line["model"] == first}
    for line in final:
        against = base.get(line["seed"])
        if against is None or line["model"] == first:
            continue
        for name in line:
            field = name.removesuffix("_fingerprint")
            if field == name or against.get(name) != line[name]:
                continue
            both = [np.asarray(x[f"{field}_per_example"], float) for x in (line, against)]
            difference = both[0] - both[1]
            found.append(
                {
                    "field": field,
                    "model": line["model"],
                    "against": first,
                    "seed": line["seed"],
                    "difference": float(difference.mean()),
                    "stderr": float(difference.std(ddof=1) / np.sqrt(len(difference))),
                }
            )
    return found
