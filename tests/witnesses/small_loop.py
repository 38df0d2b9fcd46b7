"""A small network trained, measured and recorded by the loop of every experiment, in seconds."""

import dataclasses

import numpy as np
import optax
from flax import nnx

from experiments.run.measure import sensitivity
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, train_and_measure
from jaxsens import Gaussian, Patches
from jaxsens.training import Split, Trainer

SEEDS, EPOCHS = (3, 8), 7


class Net(nnx.Module):
    """An MLP on 8 x 8 images with the statistics and randomness that a resumed run must repeat."""

    def __init__(self, *, rngs):
        self.first, self.second = nnx.Linear(64, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.2)

    def __call__(self, x, *, rngs=None):
        hidden = nnx.relu(self.norm(self.first(x.reshape(len(x), -1))))
        return self.second(self.drop(hidden, rngs=rngs))


@dataclasses.dataclass(frozen=True)
class Config:
    epochs: int = EPOCHS


def split(examples, seed):
    x = np.random.default_rng(seed).normal(size=(examples, 8, 8, 1)).astype(np.float32)
    return Split(x, (x[:, 2, 2, 0] > 0).astype(np.int32))


TRAIN, TEST = split(40, 0), split(17, 1)
TRAINER = Trainer(
    [Net(rngs=nnx.Rngs(seed)) for seed in SEEDS], optax.sgd(0.1, momentum=0.9), batch_size=10
)
MEASURE = sensitivity(
    "sensitivity", TRAIN.inputs[:6], tokens=Patches(4), noise=Gaussian(1.0), repeats=1
)


def train(directory, *, resume=False, every=2, save_every=None, **settings):
    record = RunRecord.create("task", Config(), out=directory, resume=resume)
    models = train_and_measure(
        "net",
        TRAINER,
        {"train": TRAIN, "test": TEST},
        seeds=SEEDS,
        record=record,
        **{
            "schedule": Schedule.epochs(EPOCHS, every, 4, save_every),
            "measures": [MEASURE],
            **settings,
        },
    )
    return record, models


def without_time(record):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in record.read_metrics()]
