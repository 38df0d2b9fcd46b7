"""Grokking: a one-layer transformer learns to add modulo a prime (paper A, Section 7).

Full-batch AdamW on 30 % of all pairs (a, b). The network first memorises; much later it
generalises. Sensitivity adds N(0, 0.1^2) to the embedding of one number at a time, on the training
pairs.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tyro
from flax import nnx
from jax import Array
from jax.flatten_util import ravel_pytree

import jaxsens
from experiments.common.cli import Common, UserError, run
from experiments.common.record import RunRecord
from experiments.common.training import Schedule, train_and_measure
from jaxsens.data.algorithmic import modular_addition
from jaxsens.losses import precise_cross_entropy
from jaxsens.models.one_layer import OneLayerTransformer
from jaxsens.training import Trainer


@dataclasses.dataclass(frozen=True)
class Config(Common):
    """Train on modular addition and record sensitivity beside accuracy, loss and weight norm."""

    data: tyro.conf.Suppress[tyro.conf.Fixed[str]] = "generated"
    seed: int = 42
    """First seed."""
    seeds: int = 5
    """How many seeds to train together: seed, seed + 1, ... They share the training pairs."""
    epochs: int = 20000
    """Epochs of training, each one step on all training pairs."""
    every: int = 10
    """Measure after this many epochs."""
    save_every: int = 500
    """Save a checkpoint after this many epochs; a multiple of --every."""
    snapshot_every: int = 200
    """Keep the weights after this many epochs, for the Fourier measures; a multiple of --every."""
    modulus: int = 113
    """Add modulo this prime."""
    train_fraction: float = 0.3
    """Share of all pairs that are for training."""
    split_seed: int = 0
    """Seed of the split in training and test pairs."""
    residual: bool = False
    """The usual transformer, with residual connections; without them as in the authors' code."""
    learning_rate: float = 1e-3
    """Step size of AdamW."""
    weight_decay: float = 1.0
    """Weight decay of AdamW, on every parameter."""
    beta2: float = 0.98
    """Decay of AdamW's second moment; the first moment's is 0.9."""
    variance: float = 0.01
    """Variance (not standard deviation) of the noise on a number's embedding."""
    repeats: int = 1
    """Fresh draws for each number of each training pair, at each measurement."""

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        super().check()
        for name in ("epochs", "every", "repeats"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, got {getattr(self, name)}")
        for name in ("save_every", "snapshot_every"):
            value = getattr(self, name)
            if value < 1 or value % self.every:
                raise UserError(
                    f"--{name.replace('_', '-')} must be a multiple of --every ({self.every}), "
                    f"got {value}"
                )
        factor = next((i for i in range(2, self.modulus) if self.modulus % i == 0), None)
        if self.modulus < 3 or factor is not None:
            raise UserError(
                f"--modulus must be an odd prime (the frequencies of the Fourier measures are "
                f"equivalent only then), got {self.modulus}"
                + (f" = {factor} * {self.modulus // factor}" if factor else "")
            )
        for name in ("learning_rate", "variance"):
            if not getattr(self, name) > 0:
                raise UserError(
                    f"--{name.replace('_', '-')} must be greater than 0, got {getattr(self, name)}"
                )
        if not self.weight_decay >= 0:
            raise UserError(f"--weight-decay must be 0 or more, got {self.weight_decay}")
        if not 0 < self.beta2 < 1:
            raise UserError(f"--beta2 must lie between 0 and 1, got {self.beta2}")


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figures."""
    config.check()
    if config.smoke:
        config = dataclasses.replace(
            config, epochs=60, every=10, save_every=20, snapshot_every=20, seeds=2, modulus=23
        )
    train, test = modular_addition(
        config.modulus,
        train_fraction=config.train_fraction,
        key=jax.random.key(config.split_seed),
    )
    record = RunRecord.create("grokking", config, out=config.out, resume=config.resume)
    print(f"training on {len(train.labels)} pairs; record in {record.directory}")
    started = time.monotonic()
    seeds = range(config.seed, config.seed + config.seeds)
    trainer = Trainer(
        [build(config, seed) for seed in seeds],
        optax.adamw(config.learning_rate, b2=config.beta2, weight_decay=config.weight_decay),
        batch_size=None,
        loss=precise_cross_entropy,
    )
    train_and_measure(
        "transformer",
        trainer,
        train,
        test,
        seeds=seeds,
        schedule=Schedule(config.epochs, config.every, 1, config.save_every),
        measures=[
            weight_norm,
            functools.partial(
                embedding_sensitivity,
                pairs=train.inputs,
                variance=config.variance,
                repeats=config.repeats,
            ),
        ],
        record=record,
        observe=functools.partial(
            keep_weights, directory=record.directory / "weights", every=config.snapshot_every
        ),
    )
    record.finish({}, seconds=time.monotonic() - started)


def build(config: Config, seed: int) -> OneLayerTransformer:
    """The network of this experiment."""
    return OneLayerTransformer(
        modulus=config.modulus, residual=config.residual, rngs=nnx.Rngs(seed)
    )


def weight_norm(model: nnx.Module, key: Array) -> dict[str, float]:
    """The Euclidean norm of all parameters."""
    return {"weight_norm": float(_norm(nnx.state(model, nnx.Param)))}


_norm = jax.jit(optax.global_norm)


def embedding_sensitivity(
    model: OneLayerTransformer, key: Array, *, pairs: np.ndarray, variance: float, repeats: int
) -> dict[str, float]:
    """Sensitivity to noise on the embedding of a or of b."""
    estimate = jaxsens.sensitivity(
        model.from_embeddings,
        model.embed(pairs),
        key=key,
        tokens=jaxsens.Positions(),
        noise=jaxsens.Gaussian(variance),
        repeats=repeats,
        batch_size=4096,
    )
    return {"sensitivity": estimate.value, "sensitivity_stderr": estimate.stderr}


def keep_weights(epoch: int, models: Any, *, directory: Path, every: int) -> None:
    """Write the parameters of all seeds, (S, P), as ``directory/<epoch>.npy``."""
    if epoch % every == 0:
        directory.mkdir(exist_ok=True)
        flat = [ravel_pytree(nnx.state(model, nnx.Param))[0] for model in models]
        np.save(directory / f"{epoch:06d}.npy", np.stack(flat))


def draw(record: RunRecord) -> None:
    """Redraw the figures of a run from its record."""


if __name__ == "__main__":
    run(main, Config, prog="experiments.grokking")
