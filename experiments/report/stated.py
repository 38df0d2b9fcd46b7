"""Records that were written by hand: what a text states of runs whose own records are gone.

``result.json`` holds a list ``evidence`` of objects with ``place``, ``model``, ``quantity`` (and
``setting``, ``paper``), which name the claim, and ``value``, ``stderr``, ``holds``, ``differs``,
``measured``, ``size``; ``meta.json`` says in its note where the numbers stood.
"""

from typing import Any

from command.line import UserError
from experiments.paper import claim
from experiments.run.evidence import Evidence
from experiments.run.record import RunRecord

EXPERIMENT = "stated"
CLAIM = {"place", "model", "quantity", "setting", "paper"}
REST = {"value", "stderr", "holds", "differs", "measured", "size"}


def evidence(record: RunRecord) -> list[Evidence]:
    """Raises UserError for an entry that is not as above."""
    return [_one(entry) for entry in record.read("result.json")["evidence"]]


def _one(entry: Any) -> Evidence:
    if not isinstance(entry, dict) or not {"place", "model", "quantity", "value"} <= set(entry):
        raise UserError(f"an entry needs place, model, quantity and value, got {entry!r:.100}")
    if unknown := set(entry) - CLAIM - REST:
        raise UserError(f"an entry has no {sorted(unknown)[0]!r}")
    numbers = [entry["value"], entry.get("stderr")]
    if any(isinstance(x, bool) or not isinstance(x, int | float | str | None) for x in numbers):
        raise UserError(f"value and stderr must be numbers or words, got {numbers!r:.100}")
    asked = {key: entry[key] for key in CLAIM & set(entry)}
    try:
        asked_for = claim(asked.pop("place"), asked.pop("model"), asked.pop("quantity"), **asked)
    except KeyError as error:
        raise UserError(f"no paper claims that: {error}") from None
    return Evidence(asked_for, **{key: entry[key] for key in REST & set(entry)})
