"""One-line errors for arguments that cannot be right."""

import math
import operator
from typing import Any


def positive_int(name: str, value: Any) -> int:
    """``value`` as an int >= 1. Raises TypeError for no integer, ValueError for one below 1."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be an integer, got {value!r} ({type(value).__name__})"
        ) from None
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def positive_float(name: str, value: Any) -> float:
    """``value`` as a finite float > 0; TypeError when it is no number, ValueError otherwise."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be finite and greater than 0, got {number}")
    return number
