"""A training whose every number is exact: what it leaves cannot depend on where it was computed.

Squared errors of a linear map of signs, on dyadic numbers: four steps at a rate of 1/4 need less
than the 24 bits of a float, so that no sum is ever rounded, in whatever order it is taken.
"""

import dataclasses

import jax
import numpy as np
import optax
from flax import nnx

from experiments.run.measure import sensitivity
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, train_and_measure
from jaxsens import Bits, Flip
from jaxsens.losses import plain
from jaxsens.training import Split, Trainer

STEPS = 4


class Exact(nnx.Module):
    def __init__(self, seed):
        start = np.random.default_rng(seed).integers(-1, 2, (4, 2)).astype(np.float32)
        self.weights = nnx.Param(jax.numpy.asarray(start))

    def __call__(self, x, *, rngs=None):
        return x @ self.weights[...]


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = STEPS


def squares(outputs, labels):
    return ((outputs - labels) ** 2).sum(-1)


def data():
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], size=(16, 4)).astype(np.float32)
    return Split(x, rng.integers(-2, 3, (16, 2)).astype(np.float32))


def trainer(seeds, mesh=None):
    models = [Exact(seed) for seed in seeds]
    return Trainer(
        models, optax.sgd(0.25), batch_size=8, loss=plain(squares), metrics={"loss": squares},
        mesh=mesh,
    )  # fmt: skip


def train(directory, seeds, mesh=None, *, resume=False, observe=None):
    """By the loop of every experiment; its lines without the time."""
    record = RunRecord.create("task", Config(), out=directory, resume=resume)
    subject = trainer(seeds, mesh)
    flips = sensitivity("sensitivity", data().inputs, tokens=Bits(), noise=Flip(), repeats=1)
    train_and_measure(
        "exact", subject, {"train": data()}, seeds=seeds, schedule=Schedule(STEPS, 1, 2),
        measures=[flips], record=record, observe=observe,
    )  # fmt: skip
    record.finish({"writer": record.writer}, seconds=0)
    return [{k: v for k, v in line.items() if k != "seconds"} for line in record.read_metrics()]
