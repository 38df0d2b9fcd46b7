"""The Boolean functions that finite networks compute: drawn at random, and while they are trained.

A network f on {±1}^d is read as the table of sign f (0 counts as -1) in the order of
`jaxsens.boolean`, so that everything said of Boolean functions can be asked of it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int8, Key

from jaxsens import boolean

from .architecture import Architecture
from .finite_width import Network


@dataclass(frozen=True)
class Family:
    """A network on d bits: its `architecture` at finite `width`, softmax or linear attention."""

    architecture: Architecture
    d: int
    width: int = 32
    heads: int = 4
    softmax: bool = True

    def network(self, key: Key[Array, ""]) -> Network:
        """One draw of the network."""
        attends = self.architecture.attention != "none"
        sizes = {"heads": self.heads, "head_width": self.width // self.heads} if attends else {}
        softmax = self.softmax and attends
        rngs = nnx.Rngs(params=key)
        return Network(self.architecture, self.d, self.width, softmax=softmax, rngs=rngs, **sizes)


def transformer(d: int, *, softmax: bool = True, width: int = 32) -> Family:
    """One pre-LN block with residuals and positions, a token for each bit, read out flattened."""
    block = {"mlp": "relu", "positions": 1.0, "residual": True, "layer_norm": "pre"}
    return Family(Architecture(tokens=d, **block), d, width, softmax=softmax)


def mlp(d: int, *, width: int = 32) -> Family:
    """Two hidden layers of ReLU with biases."""
    return Family(Architecture(attention="none", mlp="relu", depth=2, bias=0.5), d, width)


def _table(outputs: Float[Array, "*batch N"]) -> Int8[np.ndarray, "*batch N"]:
    f = np.asarray(outputs)
    if np.isnan(f).any():
        raise ValueError(
            "outputs of the networks are NaN, and have no sign: lower the rate they are trained "
            "with, or the depth, the bias or the positions"
        )
    return np.where(f > 0, 1, -1).astype(np.int8)


def random_functions(family: Family, *, draws: int, seed: int = 0) -> Int8[np.ndarray, "draws N"]:
    """Tables of `draws` networks as they are initialised."""
    return _table(_drawn(family, jax.random.split(jax.random.key(seed), draws)))


@partial(jax.jit, static_argnums=0)
def _drawn(family: Family, keys: Key[Array, " draws"]) -> Float[Array, "draws N"]:
    return jax.lax.map(lambda key: family.network(key)(boolean.cube(family.d)), keys)


@dataclass(frozen=True)
class Trained:
    """Networks on the way to a target: tables, and how often they are right on the other half.

    `steps` (records,); `tables` (seeds, records, 2^d); `accuracy` (seeds, records), on the half of
    the cube that was not trained on.
    """

    steps: np.ndarray
    tables: Int8[np.ndarray, "seeds records N"]
    accuracy: np.ndarray


def trained_functions(
    family: Family,
    target: Int8[np.ndarray, " N"],
    *,
    seeds: int,
    steps: int = 200,
    every: int = 20,
    rate: float = 0.02,
    share: float = 0.5,
    seed: int = 0,
) -> Trained:
    """Train on a random `share` of the cube for `target`, a table of ±1, and record the tables.

    Adam at `rate` on the mean of (f - target)², every step on all points trained on. Each seed has
    its own points and weights. Raises ValueError for sizes that do not fit.
    """
    n = 2**family.d
    if np.shape(target) != (n,):
        raise ValueError(f"the target must be a table of {n} values, got {np.shape(target)}")
    if seeds < 1 or every < 1 or steps < 1 or steps % every:
        raise ValueError(
            "seeds must be positive and steps a positive multiple of every, "
            f"got {seeds}, {steps} and {every}"
        )
    count = round(share * n)
    if not 0 < count < n:
        raise ValueError(f"share must leave points on both sides, got {share} of {n}")
    keys = jax.random.split(jax.random.key(seed), seeds)
    goal, records = jnp.asarray(target, jnp.float32), steps // every
    outputs, chosen = _trained(family, keys, goal, count, records, every, rate)
    tables, chosen = _table(outputs), np.asarray(chosen)
    other = np.ones((seeds, n), bool)
    np.put_along_axis(other, chosen, False, axis=1)
    right = tables == np.asarray(target)
    accuracy = np.stack([r[:, o].mean(axis=1) for r, o in zip(right, other, strict=True)])
    return Trained(np.arange(steps // every + 1) * every, tables, accuracy)


@partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _trained(
    family: Family,
    keys: Key[Array, " seeds"],
    target: Float[Array, " N"],
    count: int,
    records: int,
    every: int,
    rate: float,
) -> tuple[Float[Array, "seeds records N"], Array]:
    cube = boolean.cube(family.d)
    optimiser = optax.adam(rate)

    def one(key: Key[Array, ""]) -> tuple[Array, Array]:
        weights, points = jax.random.split(key)
        graph, start = nnx.split(family.network(weights))
        chosen = jax.random.permutation(points, len(cube))[:count]
        x, y = cube[chosen], target[chosen]

        def loss(parameters: nnx.State) -> Float[Array, ""]:
            return jnp.mean((nnx.merge(graph, parameters)(x) - y) ** 2)

        def step(state: tuple, _: None) -> tuple[tuple, None]:
            parameters, moments = state
            updates, moments = optimiser.update(jax.grad(loss)(parameters), moments)
            return (optax.apply_updates(parameters, updates), moments), None

        def record(state: tuple, _: None) -> tuple[tuple, Array]:
            state, _ = jax.lax.scan(step, state, None, every)
            return state, nnx.merge(graph, state[0])(cube)

        first = nnx.merge(graph, start)(cube)
        _, later = jax.lax.scan(record, (start, optimiser.init(start)), None, records)
        return jnp.concatenate([first[None], later]), chosen

    return jax.lax.map(one, keys)
