"""Train the transformer of paper B on one function, all seeds together, and measure them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from experiments.length.options import Trained
from experiments.length.targets import Target
from experiments.run.measure import Measure
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, finals, train_and_measure
from jaxsens import boolean
from jaxsens.data.batches import Fresh
from jaxsens.data.split import Split
from jaxsens.losses import plain, squared_error, within_half
from jaxsens.measures.bits import average_sensitivity, zero_one
from jaxsens.measures.blowup import layer_norm_blowup
from jaxsens.measures.parameters import not_positions, parameter_norm
from jaxsens.measures.theorem_4 import theorem_4
from jaxsens.measures.weight_noise import weight_noise
from jaxsens.models.length import LengthTransformer
from jaxsens.training import Trainer

NORM = Measure("norm", lambda model, key: parameter_norm(model, not_positions))
METRICS = {"loss": squared_error, "accuracy": within_half}


def adamw(learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
    """AdamW on all parameters as one vector: one kernel in place of dozens, the same numbers."""
    return optax.flatten(optax.adamw(learning_rate, weight_decay=weight_decay))


# The optimizer is part of what a program is compiled for: one object, so one program.
ADAMW = optax.inject_hyperparams(adamw)(learning_rate=3e-4, weight_decay=0.1)


def build(config: Trained, n: int, seed: int) -> LengthTransformer:
    """The network of one seed."""
    return LengthTransformer(
        bits=n,
        dim=config.width,
        heads=config.heads,
        depth=config.depth,
        independent=config.independent,
        rngs=nnx.Rngs(seed),
    )


def trainer_of(
    config: Trained,
    n: int,
    seeds: Sequence[int],
    hyperparameters: Mapping[str, Sequence[float]] | None = None,
) -> Trainer:
    """A trainer of all seeds; ``hyperparameters`` by name are one number for each.

    The names are "learning_rate" and "weight_decay"; those that are missing are the options'.
    """
    trainer = Trainer(
        [build(config, n, seed) for seed in seeds],
        ADAMW,
        loss=plain(squared_error),
        metrics=METRICS,
    )
    given = {
        name: jnp.broadcast_to(jnp.asarray(value, jnp.float32), (len(seeds),))
        for name, value in {
            "learning_rate": config.learning_rate,
            "weight_decay": config.weight_decay,
            **(hyperparameters or {}),
        }.items()
    }
    optimizer = trainer.initial.optimizer
    optimizer = optimizer._replace(hyperparams={**optimizer.hyperparams, **given})
    trainer.initial = trainer.initial._replace(optimizer=optimizer)
    return trainer


def train(
    config: Trained,
    name: str,
    n: int,
    source: Fresh,
    test: Split,
    *,
    seeds: Sequence[int],
    record: RunRecord,
    hyperparameters: Mapping[str, Sequence[float]] | None = None,
    during: Sequence[Measure] = (),
) -> list[nnx.Module]:
    """Train until all seeds have fitted, or the steps are over; the networks."""
    return train_and_measure(
        name,
        trainer_of(config, n, seeds, hyperparameters),
        {"test": test},
        data=source,
        seeds=seeds,
        schedule=Schedule(config.steps, config.every, 1, config.save_every),
        measures=during,
        record=record,
        until=functools.partial(stops, config),
    )


def stops(config: Trained, lines: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the training ends early: all seeds have fitted."""
    return config.stop and all(line["test_loss"] < config.fitted for line in lines)


def train_target(
    config: Trained,
    target: Target,
    record: RunRecord,
    *,
    seeds: Sequence[int],
    hyperparameters: Mapping[str, Sequence[float]] | None = None,
) -> list[dict[str, Any]]:
    """Train on a function and measure: a line for each seed, whether it has fitted among it."""
    name = f"{target.word}-{target.n}".replace("/", "_")
    models = train(
        config,
        name,
        target.n,
        target.source(config.batch_size),
        target.test(config.test, config.seed),
        seeds=seeds,
        record=record,
        hyperparameters=hyperparameters,
    )
    lines = finals(name, models, seeds=seeds, measures=measures(config, target), record=record)
    return [
        {
            **line,
            "function": target.word,
            "bits": target.n,
            "fitted": line["test_loss"] < config.fitted,
            **{key: values[i] for key, values in (hyperparameters or {}).items()},
        }
        for i, line in enumerate(lines)
    ]


def measures(config: Trained, target: Target) -> list[Measure]:
    """The quantities of paper B, of a trained network."""
    n, strings = target.n, points(config, target.n)

    def blowup(model: Any, key: Any) -> dict[str, Any]:
        found = layer_norm_blowup(model, strings)
        layers = {f"layer_{i}": v.mean() for i, v in enumerate(found.layers.values())}
        return {"": found.value, "stderr": found.stderr, **layers}

    return [
        sharpness(config, target.labels, n),
        Measure("blowup", blowup),
        NORM,
        Measure(
            "average_sensitivity",
            lambda model, key: average_sensitivity(
                model, n, key=key, read=zero_one, exact=config.exact, samples=config.samples
            ),
            ("exact",),
        ),
        Measure("theorem_4", lambda model, key: theorem_4(model, strings, read=zero_one).max()),
    ]


def sharpness(
    config: Trained, labels: Callable[[Array], Array], n: int, *, key: Array | None = None
) -> Measure:
    """What noise on the weights does, on labels 0 and 1 of n bits; with ``key`` always the same."""

    def compute(model: Any, drawn: Array) -> dict[str, float]:
        return weight_noise(
            model, labels, n, key=drawn if key is None else key, size=config.noise,
            kind=config.noise_kind, draws=config.draws, batches=config.batches,
            reuse=config.reuse_draws,
        ).recorded()  # fmt: skip

    return Measure("sharpness", compute)


def points(config: Trained, n: int) -> np.ndarray:
    """The strings on which networks of n bits are compared: all, or a sample."""
    if 2**n <= config.samples:
        return np.asarray(boolean.cube(n))
    key = jax.random.key(config.seed + 2**16)
    return np.asarray(jax.random.rademacher(key, (config.samples, n), jnp.float32))
