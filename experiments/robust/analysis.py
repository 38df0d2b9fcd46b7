"""Does accuracy under corruptions go with sensitivity, and does it follow where that is set?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsens.measures.association import Interval, bootstrap, partial_spearman, slope, spearman

Lines = Sequence[Mapping[str, Any]]

OUTCOMES = ("corruption_accuracy", "noise_accuracy", "other_accuracy")


def associations(lines: Lines) -> dict[str, dict[str, Any]]:
    """Spearman's rho of sensitivity and each outcome over all trained models.

    Intervals are of a bootstrap over networks, seeds of one staying together. ``partial`` holds
    clean accuracy fixed.
    """
    clusters = [line["model"] for line in lines]
    x, clean = (np.array([line[name] for line in lines]) for name in ("sensitivity", "clean"))
    found = {}
    for name in OUTCOMES:
        y = outcome(lines, name)
        if y is None:
            continue
        found[name] = {
            "models": len(lines),
            "networks": len(set(clusters)),
            "rho": _named(bootstrap(spearman, x, y, clusters=clusters)),
            "partial": _named(bootstrap(partial_spearman, x, y, clean, clusters=clusters)),
        }
    return found


def sweeps(lines: Lines) -> dict[str, dict[str, Any]]:
    """Slopes of accuracy on sensitivity where the strength of the regularisation was set.

    For each architecture that was regularised at three strengths or more, and for all of these
    together with an intercept for each: what one unit of sensitivity is worth, for each outcome and
    for the outcome minus clean accuracy ("beyond clean"). Intervals are of a bootstrap over
    strengths, seeds of one staying together. Sensitivity is that of the network's own patches, and
    of every other size that was measured.
    """
    chosen = [line for line in lines if line["intervention"] == "regularisation"]
    levels: dict[str, set[Any]] = {}
    for line in chosen:
        levels.setdefault(line["arch"], set()).add(line["level"])
    names = [arch for arch, found in levels.items() if len(found) >= 3]
    together = {"together": names} if len(names) > 1 else {}
    sets = {name: [name] for name in names} | together
    return {
        title: {
            field: _slopes([line for line in chosen if line["arch"] in members], field)
            for field in chosen[0]
            if field == "sensitivity" or field.startswith("sensitivity_size")
            if not field.endswith("_stderr")
        }
        for title, members in sets.items()
    }


def _slopes(lines: Lines, field: str) -> dict[str, Any]:
    x, clean = (np.array([line[name] for line in lines]) for name in (field, "clean"))
    groups = np.array([line["arch"] for line in lines])
    clusters = [(line["arch"], line["level"]) for line in lines]

    def fitted(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
        return slope(x, y, groups.tolist())

    found: dict[str, Any] = {"range": [float(x.min()), float(x.max())], "models": len(lines)}
    levels = np.array([line["level"] for line in lines])
    found["set"] = _named(bootstrap(spearman, levels, x, clusters=clusters))
    for name in OUTCOMES:
        y = outcome(lines, name)
        if y is not None:
            found[name] = _named(bootstrap(fitted, x, y, groups, clusters=clusters))
            found[f"{name}_beyond_clean"] = _named(
                bootstrap(fitted, x, y - clean, groups, clusters=clusters)
            )
    found["clean"] = _named(bootstrap(fitted, x, clean, groups, clusters=clusters))
    return found


def outcome(lines: Lines, name: str) -> np.ndarray | None:
    """A value for each line; None where it was not measured."""
    values = [line.get(name) for line in lines]
    return None if any(value is None for value in values) else np.array(values, float)


def _named(found: Interval) -> dict[str, float]:
    return found._asdict()
