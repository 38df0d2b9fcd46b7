"""Timing on a machine that does other things as well: contenders take turns, medians count."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


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
