"""What an option may be, said where it is declared, and checked in one walk over the options.

    variance: Annotated[float, VARIANCE] = 1.0
    repeats: Annotated[int, Count(most=10**6)] = 5

A constraint is on each value of a tuple; None passes, where a type allows it. Numbers are judged by
what they will become: floats are float32 on a device, where a number below its smallest normal one
is 0.
"""

import dataclasses
import math
import os
import struct
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from command.line import UserError

SMALLEST, LARGEST = 2.0**-126, 2.0**128 * (1 - 2.0**-24)  # normal numbers of float32
INT32 = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Count:
    """A whole number from ``least`` to ``most``; JAX counts in int32."""

    least: int = 1
    most: int = INT32
    why: str = ""  # said after the upper bound

    def wrong(self, value: Any) -> str | None:
        """What is wrong with the value, after "must be"; None for nothing."""
        if value < self.least:
            return f"at least {self.least}"
        if value > self.most:
            return f"at most {self.most}{f' ({self.why})' if self.why else ''}"
        return None


@dataclasses.dataclass(frozen=True)
class Number:
    """A float in an interval, finite in float32; ``above`` and ``below`` are excluded."""

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float = LARGEST
    why: str = ""

    def wrong(self, value: Any) -> str | None:
        """What is wrong with the value, after "must be"; None for nothing."""
        low = self.least if self.above is None else self.above
        if self.below is not None and not (low is None or low < value < self.below):
            if self.above is None and value == low:
                return None
            return (
                f"{'at least' if self.above is None else 'above'} {low:g} and below {self.below:g}"
            )
        if not math.isfinite(value) or self._below(value):
            return " and ".join(["finite", *self._lower()])
        if value > self.most:
            why = self.why or "it is a float32 number"
            return f"at most {self.most:.3g} ({why})"
        if value and self.above == 0 and abs(as_float32(value)) < SMALLEST:
            return f"at least {SMALLEST:.3g} (less is 0 in float32)"
        return None

    def _below(self, value: float) -> bool:
        return (self.above is not None and not value > self.above) or (
            self.least is not None and not value >= self.least
        )

    def _lower(self) -> list[str]:
        if self.above is not None:
            return [f"greater than {self.above:g}"]
        return [] if self.least is None else [f"{self.least:g} or more"]


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some words."""

    names: Sequence[str]

    def wrong(self, value: Any) -> str | None:
        """What is wrong with the value, after "must be"; None for nothing."""
        if value in self.names:
            return None
        *others, last = self.names
        return f"{', '.join(others)} or {last}" if others else last


@dataclasses.dataclass(frozen=True)
class Each:
    """A tuple in which no value stands twice, nor two that print alike: ``least`` of them."""

    least: int = 0

    def wrong_all(self, values: Sequence[Any]) -> str | None:
        """What is wrong with the values, after the option's name; None for nothing."""
        if len(values) < self.least:
            return f"needs at least {'one value' if self.least == 1 else f'{self.least} values'}"
        printed = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
        twice = [text for i, text in enumerate(printed) if text in printed[:i]]
        return f"names a value twice: {' '.join(map(str, values))}" if twice else None


@dataclasses.dataclass(frozen=True)
class Named:
    """A word that is not empty."""

    def wrong(self, value: Any) -> str | None:
        """What is wrong with the value, after "must be"; None for nothing."""
        return None if value.strip() else "a word, not empty"


POSITIVE = Number(above=0)
NOT_NEGATIVE = Number(least=0)
SHARE = Number(above=0, below=1)
VARIANCE = Number(above=0, most=1e30, why="noise that large overflows float32 when it is squared")
DRAWS = Count(most=10**6, why="each is a forward pass for every token of every example")
SEED = Count(least=0, most=2**32 - 1, why="JAX drops the bits above 32")


def as_float32(value: float) -> float:
    """The value as a float32 has it; infinite where it has none."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def check(options: Any) -> None:
    """Raise UserError for the first option that breaks its constraints, in the order declared."""
    for name, constraints, value in _constrained(options):
        option = f"--{name.replace('_', '-')}"
        many = isinstance(value, tuple)
        for constraint in constraints:
            if isinstance(constraint, Each):
                said = constraint.wrong_all(value)
                if said:
                    raise UserError(f"{option} {said}")
                continue
            for one in value if many else (value,):
                said = None if one is None else constraint.wrong(one)
                if said:
                    raise UserError(f"{option} must be {said}, got {one!r}"[:300])


def _constrained(options: Any) -> Iterator[tuple[str, list[Any], Any]]:
    hints = typing.get_type_hints(type(options), include_extras=True)
    for field in dataclasses.fields(options):
        extras = getattr(hints[field.name], "__metadata__", ())
        found = [extra for extra in extras if isinstance(extra, KINDS)]
        if found:
            yield field.name, found, getattr(options, field.name)


KINDS = (Count, Number, Choice, Each, Named)


def check_memory(needed: float, option: str, value: Any, what: str) -> None:
    """Raise UserError when ``what`` would take more bytes than this machine has."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise UserError(
            f"{option} {value} would take {size(needed)} for {what}; this machine has {size(there)}"
        )


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} EiB"
