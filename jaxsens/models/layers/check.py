"""One line for an argument that a model cannot be built with."""

from collections.abc import Iterable
from typing import Any


def check_sizes(**sizes: Any) -> None:
    """Hold each to a positive integer. Raises TypeError or ValueError."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}: expected a positive integer")
        if value <= 0:
            raise ValueError(f"{name} is {value!r}: expected a positive integer")


def check_size_lists(**lists: Any) -> None:
    """Hold each to a tuple or list of positive integers. Raises TypeError or ValueError."""
    for name, value in lists.items():
        if not isinstance(value, tuple | list):
            raise TypeError(f"{name} is {value!r}: expected a tuple of positive integers")
        for item in value:
            check_sizes(**{name: item})


def check_rates(**rates: Any) -> None:
    """Hold each to a number in [0, 1). Raises TypeError or ValueError."""
    for name, value in rates.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} is {value!r}: expected a number in [0, 1)")
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value!r}: expected a number in [0, 1)")


def check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise ValueError unless ``value`` is among those known."""
    if value not in (known := tuple(known)):
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(known)}")
