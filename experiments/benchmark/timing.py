"""Timing on a machine that does other things as well: contenders take turns, medians count."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

State = TypeVar("State")


@dataclasses.dataclass(frozen=True)
class Contender:
    """Something that makes ``passes`` forward passes a call of ``run`` and waits for the last."""

    run: Callable[[], Any]
    passes: int


def rates(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Forward passes a second, contender by contender, a number for each round.

    Every contender is called once before, so that nothing is compiled within the timing. A round
    times each once, in an order that turns from round to round.
    """
    for contender in contenders.values():
        contender.run()
    names = list(contenders)
    measured: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            begun = time.perf_counter()
            contenders[name].run()
            measured[name].append(contenders[name].passes / (time.perf_counter() - begun))
    return measured


def against(measured: Mapping[str, list[float]], name: str, reference: str) -> float:
    """Median over rounds of the ratio of two rates; what slows a round slows both."""
    pairs = zip(measured[name], measured[reference], strict=True)
    return statistics.median(rate / other for rate, other in pairs)


def beside(measured: Mapping[str, list[float]], name: str, *, digits: int = 1) -> list[list[str]]:
    """Rows of a table: each contender, its median rate, and how many times as fast ``name`` is."""
    return [
        [other, f"{statistics.median(found):.{digits}f}", f"{against(measured, name, other):.2f}"]
        for other, found in measured.items()
    ]


def onward(initial: State, step: Callable[[State], State]) -> Callable[[], None]:
    """A contender's ``run``: ``step`` from where the last call stopped, to its end.

    It begins with a copy of ``initial``, because a step may give its argument's memory away.
    """
    state = jax.tree.map(jax.numpy.copy, initial)

    def run() -> None:
        nonlocal state
        state = step(state)
        jax.block_until_ready(state)

    return run
