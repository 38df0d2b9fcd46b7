"""Sensitivity while random functions are learned (paper B's question; Bhattamishra et al. 2023).

Labels drawn at random leave no pattern to find: on strings that were not seen, what a network
answers is its own bias. An LSTM and a transformer learn the same labels of the same strings, and
their sensitivity is followed on fresh ones.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxsens
from command.line import UserError
from command.options import POSITIVE, Choice, Count, Each, check_memory
from experiments.length.options import Batch, Depth, Many, Samples, Width
from experiments.run.experiment import conduct
from experiments.run.measure import Measure, sensitivity
from experiments.run.options import Run, Seeds
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, finals, train_and_measure
from jaxsens import boolean
from jaxsens.data.batches import Shuffled
from jaxsens.data.split import Split
from jaxsens.losses import logistic, plain
from jaxsens.models.random_start import ReadLSTM, ReadTransformer
from jaxsens.training import Trainer

NETWORKS = ("transformer", "lstm")


@dataclasses.dataclass(frozen=True)
class Config(Run, Seeds):
    """Train an LSTM and a transformer on random labels and measure sensitivity all along."""

    network: Annotated[tuple[str, ...], Each(least=1), Choice(NETWORKS)] = NETWORKS
    """transformer (pre-norm, read at a token behind the string), lstm."""
    bits: Annotated[int, Count(most=512)] = 20
    """Bits n of a string."""
    strings: Annotated[int, Count(most=10**6)] = 1000
    """Strings of each random function that are seen; at most 2^n."""
    seeds: Many = 3
    """Random functions, each with a network of either kind: seed, seed + 1, ..."""
    width: Width = 64
    """Width of a token and of an LSTM's state."""
    heads: Annotated[int, Count()] = 8
    """Heads of the transformer; must divide the width."""
    depth: Depth = 2
    """Layers."""
    epochs: Annotated[int, Count()] = 2000
    """Epochs of training."""
    batch_size: Batch = 100
    """Strings a step."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Step size of Adam."""
    every: Annotated[int, Count()] = 20
    """Measure after this many epochs."""
    save_every: Annotated[int, Count()] = 100
    """Save a checkpoint after this many epochs; a multiple of --every."""
    until: Annotated[float, POSITIVE] = 2.0
    """Stop when all networks of a kind have this training accuracy (2: never)."""
    samples: Samples = 500
    """Fresh uniform strings that sensitivity is measured on, the same for all networks."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        "bits": 5,
        "strings": 16,
        "width": 8,
        "heads": 2,
        "depth": 1,
        "epochs": 20,
        "batch_size": 8,
        "every": 10,
        "save_every": 10,
        "samples": 16,
    }

    def check(self) -> None:
        super().check()
        self.require_multiples("every", "save_every")
        if self.strings > 2.0**self.bits:
            raise UserError(
                f"--strings must be at most 2^{self.bits} = {2**self.bits}, got {self.strings}"
            )
        if self.width % self.heads:
            raise UserError(f"--width {self.width} does not divide into --heads {self.heads}")
        rows = 4.0 * max(self.batch_size, 512) * self.seeds * (self.bits + 1) * self.width * 8
        what = f"strings of {self.bits} bits at --width {self.width} and --seeds {self.seeds}"
        check_memory(rows, "--batch-size", self.batch_size, what)
        check_memory(4.0 * self.seeds * self.strings * self.bits, "--strings", self.strings, what)


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figure."""
    conduct("length_memorisation", config, load=load, work=work)


def load(config: Config) -> tuple[Split, str]:
    """The strings (S, N, n) that are seen of each function and their labels (S, N), ±1."""
    parts = [_seen(config, seed) for seed in config.all_seeds()]
    together = Split(*(np.stack(arrays) for arrays in zip(*parts, strict=True)))
    count = len(config.network) * config.seeds
    return together, f"training {count} networks on {config.strings} random labels each"


def _seen(config: Config, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Different strings and their labels, drawn by the seed of the function."""
    points, labels = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    if 2**config.bits <= 4 * config.strings:
        chosen = jax.random.permutation(points, 2**config.bits)[: config.strings]
        found = np.asarray(boolean.cube(config.bits))[np.asarray(chosen)]
    else:  # drawn until there are as many different ones
        found = np.empty((0, config.bits), np.float32)
        while len(found) < config.strings:
            points, key = jax.random.split(points)
            more = jax.random.rademacher(key, (config.strings, config.bits), jnp.float32)
            found = np.concatenate([found, np.asarray(more)])
            _, first = np.unique(found, axis=0, return_index=True)
            found = found[np.sort(first)][: config.strings]
    drawn = jax.random.rademacher(labels, (config.strings,), jnp.float32)
    return found, np.asarray(drawn)


def work(config: Config, task: Split, record: RunRecord) -> dict[str, Any]:
    """Train one kind of network after the other, all functions of it together."""
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    fresh = np.asarray(jax.random.rademacher(key, (config.samples, config.bits), jnp.float32))
    lines = [
        line for network in config.network for line in train(config, network, task, fresh, record)
    ]
    return {"final": lines}


def train(
    config: Config, network: str, task: Split, fresh: np.ndarray, record: RunRecord
) -> list[dict[str, Any]]:
    """The final lines of one kind of network, with the sensitivity on the strings seen."""
    seeds = config.all_seeds()
    batches = Shuffled(task, config.batch_size, per_seed=True)
    trainer = Trainer(
        [build(config, network, seed) for seed in seeds],
        optax.adam(config.learning_rate),
        loss=plain(logistic),
    )
    models = train_and_measure(
        network,
        trainer,
        {"train": batches},
        data=batches,
        seeds=seeds,
        schedule=Schedule.epochs(
            config.epochs, config.every, batches.steps_per_epoch, config.save_every
        ),
        measures=[flipped("sensitivity", fresh)],
        record=record,
        until=lambda lines: all(line["train_accuracy"] >= config.until for line in lines),
    )
    found = []
    for i, (seed, model) in enumerate(zip(seeds, models, strict=True)):
        seen = flipped("sensitivity_seen", task.inputs[i][: config.samples])
        found += finals(network, [model], seeds=[seed], measures=[seen], record=record)
    return found


def flipped(name: str, points: np.ndarray) -> Measure:
    """s(f, x) / n: the mean over strings of the share of bits whose flip changes the sign."""
    return sensitivity(name, points, tokens=jaxsens.Bits(), noise=jaxsens.Flip(), decision="sign")


def build(config: Config, network: str, seed: int) -> nnx.Module:
    """The network of one seed, from the models' own initial weights."""
    sizes: dict[str, Any] = {"dim": config.width, "depth": config.depth, "rngs": nnx.Rngs(seed)}
    if network == "lstm":
        return ReadLSTM(**sizes)
    return ReadTransformer(bits=config.bits, heads=config.heads, **sizes)
