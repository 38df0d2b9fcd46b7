"""Scaling to long strings, with a narrow network and without PARITY (paper B, Fig. 6 to 8)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from experiments.length import scaling
from experiments.length.options import Batch, Lengths, Samples, Width, Words
from experiments.run.experiment import conduct

LENGTHS = tuple(round(4 + i * 508 / 19) for i in range(20))  # 4, 31, 57, ..., 512


@dataclasses.dataclass(frozen=True)
class Config(scaling.Config):
    """The same as `scaling` to 512 bits: width 4, batch 128, no PARITY."""

    functions: Words = ("majority", "first", "mean")
    """As in `scaling`."""
    lengths: Lengths = LENGTHS
    """Numbers of bits n."""
    width: Width = 4
    """Width: half of it is the token, half the position."""
    batch_size: Batch = 128
    """Strings a step, drawn afresh."""
    samples: Samples = 200
    """Strings that sensitivity is sampled on, and that it and blow-up are compared on."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        **scaling.Config.SMALLEST,
        "functions": ("first", "mean"),
        "lengths": (300,),
        "width": 4,
    }


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figure."""
    conduct("length_long", config, load=scaling.load, work=scaling.work, arrays=scaling.tables)
