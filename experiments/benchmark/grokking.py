"""Epochs a second of grokking: one seed, and five seeds in one program, against PyTorch.

An epoch is one full-batch AdamW step of the network of paper A, Section 7, on 3830 pairs; with S
seeds it counts S times. PyTorch trains the same network from the same weights, once as one writes
it (every position, then the last) and once for the last position alone; several seeds it trains
one after another. Target: five seeds in total twice as fast as PyTorch.
"""

import dataclasses
import importlib.util
import runpy
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx

from experiments.benchmark import record
from experiments.benchmark.timing import Contender, beside, onward, rates
from experiments.run.cli import UserError
from experiments.run.report import table
from jaxsens.data.algorithmic import modular_addition
from jaxsens.losses import plain, precise_cross_entropy
from jaxsens.models.one_layer import OneLayerTransformer
from jaxsens.training import Split, Trainer

SEEDS, TARGET = 5, 2.0
WITNESS = Path(__file__).parents[2] / "tests" / "witnesses" / "torch_one_layer.py"


@dataclasses.dataclass(frozen=True)
class Config:
    """Epochs a second of training on modular addition, here and in PyTorch."""

    rounds: int = 7
    """Times each contender is measured, in turn; medians are reported."""
    epochs: int = 20
    """Epochs a contender trains in a round."""
    out: Path | None = None
    """JSON file for the record; must not exist."""
    smoke: bool = False
    """The same code at the smallest size, in under a minute on two CPU cores."""


def main(config: Config) -> None:
    """Measure, print a table, write the record."""
    for name in ("rounds", "epochs"):
        if getattr(config, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(config, name)}")
    record.check_new(config.out)
    modulus = 113
    if config.smoke:
        config, modulus = dataclasses.replace(config, rounds=1, epochs=2), 23
    train, _ = modular_addition(modulus, train_fraction=0.3, key=jax.random.key(0))
    models = [OneLayerTransformer(modulus=modulus, rngs=nnx.Rngs(seed)) for seed in range(SEEDS)]
    contenders = {
        "jaxsens, 1 seed": Contender(ours(models[:1], train, config.epochs), config.epochs),
        "jaxsens, 5 seeds": Contender(ours(models, train, config.epochs), SEEDS * config.epochs),
    }
    if importlib.util.find_spec("torch") is not None:
        for name, kind in (
            ("PyTorch, every position", "OneLayerTransformer"),
            ("PyTorch, last position", "LastPosition"),
        ):
            contenders[name] = Contender(
                theirs(kind, models[0], train, config.epochs), config.epochs
            )
    measured = rates(contenders, config.rounds)
    rows = beside(measured, "jaxsens, 5 seeds")
    print(table(["contender", "epochs x seeds / s", "five seeds in total are"], rows))
    record.write(config.out, "grokking", config, target=TARGET, rates=measured)


def ours(models: list[OneLayerTransformer], train: Split, epochs: int) -> Callable[[], None]:
    """Train the models together for some epochs, from where the last call stopped."""
    trainer = Trainer(
        models,
        optax.adamw(1e-3, weight_decay=1.0),
        batch_size=None,
        loss=plain(precise_cross_entropy),
    )
    keys = jax.random.split(jax.random.key(0), len(models))
    data = jax.device_put(train)
    return onward(
        trainer.initial, lambda state: trainer.epochs(state, data, keys, epochs=epochs)[0]
    )


def theirs(
    kind: str, model: OneLayerTransformer, train: Split, epochs: int
) -> Callable[[], list[float]]:
    """The same in PyTorch, from the same weights; afresh on every call."""
    import torch

    # By path, because an installed package may be called "tests" too.
    witness = runpy.run_path(str(WITNESS))
    arrays = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    network = witness[kind](model.modulus).load(arrays)
    pairs, labels = (torch.tensor(np.asarray(part), dtype=torch.long) for part in train)
    return lambda: witness["train"](network, pairs, labels, epochs, beta2=0.999)
