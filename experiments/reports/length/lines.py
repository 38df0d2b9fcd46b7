"""The final lines of a record: one for each network, with its function and number of bits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Lines = Sequence[Mapping[str, Any]]
CHANGE = 0.1  # of sharpness over all lengths, in ±1 units, that counts as hardly any


def groups(lines: Lines) -> dict[tuple[str, int], Lines]:
    """The networks of each function and number of bits."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for line in lines:
        found.setdefault((line["function"], line["bits"]), []).append(line)
    functions = list(dict.fromkeys(name for name, _ in found))
    return dict(sorted(found.items(), key=lambda item: (functions.index(item[0][0]), item[0][1])))


def values(lines: Lines, field: str) -> np.ndarray:
    """A field of some networks; NaN where the record has null."""
    return np.array([np.nan if line[field] is None else line[field] for line in lines], float)


def slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Of a least-squares line through points, and its standard error; NaN where there is none."""
    if len(x) < 3 or np.ptp(x) == 0:
        return np.nan, np.nan
    centred = x - x.mean()
    value = (centred * y).sum() / (centred**2).sum()
    rest = y - y.mean() - value * centred
    return float(value), float(np.sqrt((rest**2).sum() / (len(x) - 2) / (centred**2).sum()))


def fitted_slope(
    lines: Lines, function: str | None, field: str, *, log: bool = False
) -> tuple[float, float]:
    """Slope with n of a field over the networks of a function (None for all) that fitted."""
    chosen = [
        line
        for line in lines
        if line["fitted"] and (function is None or line["function"] == function)
    ]
    y = values(chosen, field)
    kept = np.isfinite(y)
    return slope(values(chosen, "bits")[kept], np.log(y[kept]) if log else y[kept])


def hardly_changes(slope: float, error: float, span: int) -> bool:
    """Whether sharpness changes by at most 0.1, or two standard errors, over ``span`` bits."""
    return bool(abs(slope) * span <= max(CHANGE, 2 * error * span))


def mean_and_error(found: Sequence[float] | np.ndarray) -> tuple[float, float | None]:
    """Mean and its standard error, None of a single value."""
    several = len(found) > 1
    error = float(np.std(found, ddof=1) / np.sqrt(len(found))) if several else None
    return float(np.mean(found)), error
