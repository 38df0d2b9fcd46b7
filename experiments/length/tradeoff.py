"""Layer-norm blow-up against the parameters' norm over many trainings (paper B, Fig. 2).

Every network has a weight decay and a learning rate of its own, drawn at random; those of one
function and length train side by side in one program.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import numpy as np

from command.line import UserError
from command.options import NOT_NEGATIVE, POSITIVE
from experiments.length.networks import train_target
from experiments.length.options import Functions, Lengths, Many, Trained
from experiments.length.scaling import load as load_targets
from experiments.length.scaling import tables
from experiments.length.targets import Target
from experiments.run.experiment import conduct
from experiments.run.record import RunRecord


@dataclasses.dataclass(frozen=True)
class Config(Trained, Functions):
    """Train with many weight decays and learning rates; blow-up against parameter norm."""

    lengths: Lengths = (5, 10, 15, 20)
    """Numbers of bits n."""
    seeds: Many = 125
    """Networks of each function and length, a decay and a rate each."""
    decay: Annotated[tuple[float, ...], NOT_NEGATIVE] = (0.0, 0.4)
    """Weight decays are uniform between these; --weight-decay is not used."""
    rate: Annotated[tuple[float, ...], POSITIVE] = (1e-4, 5e-4)
    """Learning rates are uniform between these; --learning-rate is not used."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        **Trained.SMALLEST,
        "functions": ("parity", "mean"),
        "lengths": (3,),
        "seeds": 3,
        "exact": 4,
    }

    def check(self) -> None:
        super().check()
        for name in ("decay", "rate"):
            ends = getattr(self, name)
            if len(ends) != 2 or ends[0] > ends[1]:
                said = " ".join(map(str, ends))
                raise UserError(f"--{name} must be two numbers, the lower first, got {said}")
        self.check_lengths(self.lengths)


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figure."""
    conduct("length_tradeoff", config, load=load_targets, work=work, arrays=tables)


def drawn(config: Config, target: Target) -> dict[str, list[float]]:
    """A decay and a rate for every network of a function and length."""
    found: dict[str, list[float]] = {"weight_decay": [], "learning_rate": []}
    for seed in config.all_seeds():
        key = jax.random.fold_in(jax.random.key(seed), 3 + target.n)
        pair = np.asarray(jax.random.uniform(key, (2,)), float)
        for (low, high), share, values in zip(
            (config.decay, config.rate), pair, found.values(), strict=True
        ):
            values.append(float(low + (high - low) * share))
    return found


def work(config: Config, found: list[Target], record: RunRecord) -> dict[str, Any]:
    """Train one function and length after the other, all networks of it together."""
    final = [
        line
        for target in found
        for line in train_target(
            config,
            target,
            record,
            seeds=config.all_seeds(),
            hyperparameters=drawn(config, target),
        )
    ]
    return {"final": final}
