"""Steps a second of paper B's transformer: one seed, and ten in one program, against PyTorch.

A step is one of AdamW on PARITY of fresh uniform strings; with S seeds it counts S times. PyTorch
trains the same network as one writes it, with its own encoder, one seed after another. Target: ten
seeds in total 1.5 times as fast as PyTorch.
"""

import dataclasses
import importlib.util
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import optax
from flax import nnx

from command import options
from command.options import Count
from experiments.benchmark import record
from experiments.benchmark.timing import Contender, beside, onward, rates
from experiments.run.cli import UserError
from experiments.run.report import table
from jaxsens.data.bit_functions import BUILT_IN, fresh
from jaxsens.losses import plain, squared_error
from jaxsens.models.length import LengthTransformer
from jaxsens.training import Trainer

SEEDS, TARGET = 10, 1.5
WITNESS = Path(__file__).parents[2] / "tests" / "witnesses" / "torch_length.py"


@dataclasses.dataclass(frozen=True)
class Config:
    """Steps a second of paper B's transformer on PARITY, here and in PyTorch."""

    bits: Annotated[int, Count(most=4096)] = 20
    """Bits n."""
    width: Annotated[int, Count(most=2**14)] = 128
    """Width of the network."""
    batch_size: Annotated[int, Count(most=2**24)] = 256
    """Strings a step; the paper has 1024."""
    rounds: Annotated[int, Count()] = 5
    """Times each contender is measured, in turn; medians are reported."""
    steps: Annotated[int, Count()] = 4
    """Steps a contender trains in a round; of ten seeds, each."""
    out: Path | None = None
    """JSON file for the record; must not exist."""
    smoke: bool = False
    """The same code at the smallest size, in under a minute on two CPU cores."""


def main(config: Config) -> None:
    """Measure, print a table, write the record."""
    options.check(config)
    if config.width % 4:
        raise UserError(
            f"--width must be a multiple of 4 (two heads, two halves), got {config.width}"
        )
    record.check_new(config.out)
    if config.smoke:
        config = dataclasses.replace(config, bits=6, width=16, batch_size=16, rounds=1, steps=2)
    contenders = {
        "jaxsens, 1 seed": Contender(ours(config, 1), config.steps),
        f"jaxsens, {SEEDS} seeds": Contender(ours(config, SEEDS), SEEDS * config.steps),
    }
    if importlib.util.find_spec("torch") is not None:
        contenders["PyTorch"] = Contender(theirs(config), config.steps)
    measured = rates(contenders, config.rounds)
    rows = beside(measured, f"jaxsens, {SEEDS} seeds", digits=2)
    print(table(["contender", "steps x seeds / s", "ten seeds in total are"], rows))
    record.write(config.out, "length", config, target=TARGET, rates=measured)


def ours(config: Config, seeds: int) -> Callable[[], None]:
    """Train the seeds together for some steps, from where the last call stopped."""
    trainer = Trainer(
        [
            LengthTransformer(bits=config.bits, dim=config.width, rngs=nnx.Rngs(seed))
            for seed in range(seeds)
        ],
        optax.adamw(3e-4, weight_decay=0.1),
        loss=plain(squared_error),
        metrics={"loss": squared_error},
    )
    source = fresh(BUILT_IN, "parity", n=config.bits, batch=config.batch_size)
    keys = jax.random.split(jax.random.key(0), seeds)
    return onward(
        trainer.initial, lambda state: trainer.train(state, source, keys, steps=config.steps)[0]
    )


def theirs(config: Config) -> Callable[[], list[float]]:
    """The same in PyTorch, with its own initial weights, which have the same distribution."""
    import torch

    torch.manual_seed(0)
    # By path, because an installed package may be called "tests" too.
    witness = runpy.run_path(str(WITNESS))
    network = witness["LengthTransformer"](config.bits, config.width)
    return lambda: witness["train"](network, config.steps, config.batch_size)
