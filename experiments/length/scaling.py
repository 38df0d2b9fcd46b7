"""Sharpness of trained networks as strings grow longer (paper B, Fig. 1 and 5 to 8)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from experiments.length.networks import train_target
from experiments.length.options import Functions, Many, Trained
from experiments.length.targets import Target, targets
from experiments.run.experiment import conduct
from experiments.run.record import RunRecord


@dataclasses.dataclass(frozen=True)
class Config(Trained, Functions):
    """Train on functions of more and more bits; sharpness, blow-up, norm, sensitivity of each."""

    seeds: Many = 10
    """How many seeds to train together: seed, seed + 1, ..."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        **Trained.SMALLEST,
        "functions": ("parity", "first"),
        "lengths": (3, 5),
        "seeds": 2,
        "exact": 4,
    }

    def check(self) -> None:
        super().check()
        self.check_lengths(self.lengths)


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figure."""
    conduct("length_scaling", config, load=load, work=work, arrays=tables)


def load(config: Config) -> tuple[list[Target], str]:
    """The functions at every length, from short to long, and how many networks that makes."""
    found = targets(config.functions, config.lengths, seed=config.function_seed)
    found.sort(key=lambda target: target.n)
    return found, f"training {len(found) * config.seeds} networks"


def tables(found: list[Target]) -> list[Any]:
    """What a resumed run must find as it was."""
    return [target.table for target in found]


def work(config: Config, found: list[Target], record: RunRecord) -> dict[str, Any]:
    """Train one function and length after the other, all seeds of it together."""
    final = [
        line
        for target in found
        for line in train_target(config, target, record, seeds=config.all_seeds())
    ]
    reference = [
        {"function": t.word, "bits": t.n, "average_sensitivity": t.average_sensitivity}
        for t in found
    ]
    return {"final": final, "reference": reference}
