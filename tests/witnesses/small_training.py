"""Softmax regression and a noisy variant, small data, and trainers that are made once."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxsens.training import Split, Trainer

EXAMPLES, FEATURES, CLASSES, BATCH = 23, 6, 3, 5
SGD = optax.sgd(0.1, momentum=0.9)


class Linear(nnx.Module):
    """Softmax regression, whose gradients NumPy can write down; counts its traces."""

    traces = 0

    def __init__(self, *, rngs, features=FEATURES):
        self.dense = nnx.Linear(features, CLASSES, rngs=rngs)

    def __call__(self, x, *, rngs=None):
        type(self).traces += 1
        return self.dense(x)


class Noisy(nnx.Module):
    """BatchNorm and Dropout, both of which act differently in training."""

    def __init__(self, *, rngs):
        self.norm = nnx.BatchNorm(FEATURES, momentum=0.9, rngs=rngs)
        self.drop = nnx.Dropout(0.5)
        self.dense = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

    def __call__(self, x, *, rngs=None):
        return self.dense(self.drop(self.norm(x), rngs=rngs))


def data(examples=EXAMPLES, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, 1.5, (examples, FEATURES)).astype(np.float32)
    return Split(x, rng.integers(0, CLASSES, examples).astype(np.int32))


def keys(*seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


@functools.cache  # a trainer keeps its compiled programs
def trainer(model=Linear, seeds=(0, 1), batch_size=BATCH, optimizer=SGD, **settings):
    models = [model(rngs=nnx.Rngs(seed)) for seed in seeds]
    return Trainer(models, optimizer, batch_size=batch_size, **settings)


def last(states):
    return collections.deque(states, maxlen=1).pop()


def identical(a, b):
    return all(
        (np.asarray(x) == np.asarray(y)).all()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def visited(key, epoch, examples, steps, size):
    """The documented order: the permutation of the epoch's key, without the remainder."""
    order_key, _ = jax.random.split(jax.random.fold_in(key, epoch))
    order = np.asarray(jax.random.permutation(order_key, examples))
    return order[: steps * size].reshape(steps, size)
