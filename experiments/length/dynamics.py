"""Sharpness while a network learns PARITY, with several weight decays (paper B, Fig. 3)."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax

from command.options import NOT_NEGATIVE, SEED, Count, Each
from experiments.length.networks import NORM, sharpness, train
from experiments.length.options import Draws, Many, Steps, Trained
from experiments.length.targets import Target, targets
from experiments.run.experiment import conduct
from experiments.run.measure import Measure
from experiments.run.record import RunRecord
from jaxsens.measures.blowup import layer_norm_blowup


@dataclasses.dataclass(frozen=True)
class Config(Trained):
    """Train on one function and measure sharpness, blow-up and norm all along."""

    function: str = "parity"
    """What is learned: a word that --functions of `scaling` takes."""
    function_seed: Annotated[int, SEED] = 0
    """Seed of a random function."""
    bits: Annotated[int, Count(most=4096)] = 25
    """Bits n."""
    decays: Annotated[tuple[float, ...], Each(least=1), NOT_NEGATIVE] = (0.0, 0.1, 0.2, 0.3)
    """Weight decays, side by side in one program; --weight-decay is not used."""
    seeds: Many = 100
    """Networks of each decay."""
    steps: Steps = 20000
    """Steps of training."""
    batches: Draws = 4
    """Batches of 2^8 strings that sharpness is measured on: the same ones, and the same draws of
    noise, at every measurement."""
    draws: Draws = 100
    """Draws of the noise for each batch of strings."""
    stop: bool = False
    """Stop when all networks have fitted."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        **Trained.SMALLEST,
        "bits": 4,
        "decays": (0.0, 0.3),
        "seeds": 1,
        "steps": 60,
    }

    def check(self) -> None:
        super().check()
        self.check_lengths((self.bits,))


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figure."""
    conduct("length_dynamics", config, load=load, work=work, arrays=lambda target: target.table)


def load(config: Config) -> tuple[Target, str]:
    """The function, and how many networks learn it."""
    (target,) = targets([config.function], [config.bits], seed=config.function_seed)
    return target, f"training {len(config.decays) * config.seeds} networks"


def work(config: Config, target: Target, record: RunRecord) -> dict[str, Any]:
    """Train all decays and seeds together."""
    numbers = [config.seed + i for i in range(len(config.decays) * config.seeds)]
    decays = [config.decays[i // config.seeds] for i in range(len(numbers))]
    train(
        config,
        "transformer",
        target.n,
        target.source(config.batch_size),
        target.test(config.test, config.seed),
        seeds=numbers,
        record=record,
        hyperparameters={"weight_decay": decays},
        during=measures(config, target),
    )
    return {"decays": dict(zip(map(str, numbers), decays, strict=True))}


def measures(config: Config, target: Target) -> list[Measure]:
    """With the same strings and the same noise at every step, so that curves are smooth."""
    strings = target.test(config.samples, config.seed + 1).inputs

    return [
        sharpness(config, target.labels, target.n, key=jax.random.key(config.seed)),
        Measure("blowup", lambda model, _: layer_norm_blowup(model, strings).value),
        NORM,
    ]
