"""Curves over a training, read from the lines of a record."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from command.line import UserError

Lines = Sequence[Mapping[str, Any]]


def curve(
    lines: Lines, field: str, *, at: str = "epoch", **where: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Where (E,) and the field's values (S, E) of the lines that match ``where``, a row a seed.

    ``at`` is what the values are set against: "epoch" or "step". Raises UserError when no line
    matches.
    """
    chosen = [line for line in lines if all(line[k] == v for k, v in where.items())]
    if not chosen:
        raise UserError(f"the record has no evaluations with {where or 'any values'}")
    seeds = sorted({line["seed"] for line in chosen})
    by_seed = [{line[at]: line[field] for line in chosen if line["seed"] == s} for s in seeds]
    places = sorted(set.intersection(*(set(values) for values in by_seed)))
    values = [[np.nan if v[e] is None else v[e] for e in places] for v in by_seed]
    return np.array(places), np.array(values, float)


def by_model(lines: Lines) -> dict[str, list[Mapping[str, Any]]]:
    """The lines of each network, in the order in which they were trained."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        found.setdefault(line["model"], []).append(line)
    return found
