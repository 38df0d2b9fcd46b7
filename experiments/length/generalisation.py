"""What is learned of a random function from some of its strings (paper B, Fig. 4).

First, networks see random functions on part of the cube alone. What they learn of the rest is a
completion; how sensitive is it, beside one drawn at random? Then networks are trained on the whole
cube to each completion: how sharp is fitting it?
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from command.line import UserError
from command.options import Count, Each
from experiments.length.networks import NORM, sharpness, trainer_of
from experiments.length.options import Fitted, Many, Trained
from experiments.run.experiment import conduct
from experiments.run.measure import Measure
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, finals, train_and_measure
from jaxsens import boolean
from jaxsens.data.batches import Fresh, Shuffled
from jaxsens.data.bit_functions import FromTable, rows_of
from jaxsens.data.split import Split
from jaxsens.measures.bits import table
from jaxsens.measures.parameters import not_positions
from jaxsens.sharpness import average_direction

LONGEST = 12  # bits of a cube that every network is evaluated on


@dataclasses.dataclass(frozen=True)
class Config(Trained):
    """Train on part of random functions; the sensitivity of what is learned, and its sharpness."""

    bits: Annotated[int, Count(most=LONGEST, why="whole cubes are evaluated")] = 10
    """Bits n."""
    strings: Annotated[tuple[int, ...], Each(least=1), Count(most=2**LONGEST)] = (
        128,
        256,
        512,
        1024,
    )
    """How many strings are seen."""
    seeds: Many = 10
    """How many random functions, each seen on strings of its own: seed, seed + 1, ..."""
    complete: Annotated[tuple[int, ...], Each(), Count()] = (256,)
    """Numbers of strings, among --strings, whose completions are then learned on the whole cube."""
    fitted: Fitted = 1e-2
    """A run has fitted when every training label is right; completions also need a loss below
    this."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        **Trained.SMALLEST,
        "bits": 4,
        "strings": (4, 8),
        "complete": (8,),
        "seeds": 2,
        "steps": 60,
        "batch_size": 8,
    }

    def check(self) -> None:
        super().check()
        for count in self.strings:
            if count > 2**self.bits:
                raise UserError(
                    f"--strings must be at most 2^{self.bits} = {2**self.bits}, got {count}"
                )
        for count in self.complete:
            if count not in self.strings:
                raise UserError(f"--complete must be among --strings {self.strings}, got {count}")
        self.check_lengths((self.bits,))


@dataclasses.dataclass(frozen=True)
class Task:
    """Random functions (S, 2^n) and, of each, the order in which its strings are taken."""

    tables: np.ndarray
    orders: np.ndarray

    def seen(self, count: int) -> np.ndarray:
        """Which strings are among the first ``count``, (S, 2^n)."""
        found = np.zeros(self.orders.shape, bool)
        np.put_along_axis(found, self.orders[:, :count], True, axis=1)
        return found


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figure."""
    conduct("length_generalisation", config, load=load, work=work)


def load(config: Config) -> tuple[Task, str]:
    """The functions and their orders, one for each seed."""
    size = 2**config.bits
    keys = [jax.random.split(jax.random.fold_in(jax.random.key(s), 1)) for s in config.all_seeds()]
    tables = [np.asarray(jax.random.bernoulli(k[0], 0.5, (size,)), np.float32) for k in keys]
    orders = [np.asarray(jax.random.permutation(k[1], size), np.int32) for k in keys]
    first = len(config.strings) * config.seeds
    then = 2 * len(config.complete) * config.seeds
    line = f"training {first} networks on parts of random functions and {then} on completions"
    return Task(np.stack(tables), np.stack(orders)), line


def work(config: Config, task: Task, record: RunRecord) -> dict[str, Any]:
    """Learn from some strings, for each number of them; then learn the completions."""
    learned, final = {}, []
    for count in config.strings:
        lines, learned[count] = from_some(config, task, count, record)
        final += lines
    completed = [
        line for count in config.complete for line in whole(config, task, count, learned, record)
    ]
    return {"final": final, "completed": completed}


def from_some(
    config: Config, task: Task, count: int, record: RunRecord
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Train on ``count`` strings of every function; the lines, and what was learned (S, 2^n)."""
    seeds, name = config.all_seeds(), f"seen-{count}"
    models = _train(config, name, task.tables, task.orders, count, seeds, record, loss=None)
    lines = finals(name, models, seeds=seeds, measures=[NORM], record=record)
    seen = task.seen(count)
    learned = np.stack([(table(model, config.bits, read=_same) > 0.5) for model in models])
    random = random_completions(config, task, count)
    for i, line in enumerate(lines):
        rest = ~seen[i]
        line |= {
            "strings": count,
            "fitted": bool((learned[i] == task.tables[i])[seen[i]].all()),
            "elsewhere": float((learned[i] == task.tables[i])[rest].mean()) if rest.any() else None,
            "sensitivity_learned": _sensitivity(learned[i]),
            "sensitivity_random": _sensitivity(random[i]),
            "sensitivity_target": _sensitivity(task.tables[i]),
        }
    return lines, learned.astype(np.float32)


def random_completions(config: Config, task: Task, count: int) -> np.ndarray:
    """Fresh random functions with the training labels written over them, (S, 2^n)."""
    fresh = [
        np.asarray(jax.random.bernoulli(key, 0.5, (2**config.bits,)), np.float32)
        for key in (jax.random.fold_in(jax.random.key(s), 2) for s in config.all_seeds())
    ]
    return np.where(task.seen(count), task.tables, np.stack(fresh))


def whole(
    config: Config,
    task: Task,
    count: int,
    learned: Mapping[int, np.ndarray],
    record: RunRecord,
) -> list[dict[str, Any]]:
    """Train anew on the whole cube, to both completions of every function, all side by side."""
    kinds = {"learned": learned[count], "random": random_completions(config, task, count)}
    tables = np.concatenate(list(kinds.values()))
    of = [(kind, seed, i) for kind in kinds for i, seed in enumerate(config.all_seeds())]
    seeds = [config.seed + i for i in range(len(of))]
    name = f"completion-{count}"
    orders = np.tile(np.arange(2**config.bits, dtype=np.int32), (len(of), 1))
    models = _train(
        config, name, tables, orders, 2**config.bits, seeds, record, loss=config.fitted,
        starts=[seed for _, seed, _ in of],
    )  # fmt: skip
    found = []
    seen = task.seen(count)
    for model, number, labels, (kind, seed, i) in zip(models, seeds, tables, of, strict=True):
        measures = [
            sharpness(config, functools.partial(_looked_up, jnp.asarray(labels)), config.bits),
            _on_seen(config, labels, seen[i]),
            NORM,
        ]
        (line,) = finals(name, [model], seeds=[number], measures=measures, record=record)
        fitted = line["train_accuracy"] == 1 and line["train_loss"] < config.fitted
        known = {"kind": kind, "function": seed, "strings": count, "fitted": bool(fitted)}
        found.append({**line, **known, "sensitivity": _sensitivity(labels)})
    return found


def _train(
    config: Config,
    name: str,
    tables: np.ndarray,
    orders: np.ndarray,
    count: int,
    seeds: Sequence[int],
    record: RunRecord,
    *,
    loss: float | None,
    starts: Sequence[int] | None = None,
) -> list[nnx.Module]:
    """Networks of as many tables, each on the first ``count`` strings of its order.

    They stop when every label is right and, where it is given, the loss below ``loss``.
    """
    counts = np.full(len(tables), count, np.int32)
    given = {"table": tables, "order": orders, "count": counts}
    source = Fresh(FromTable(config.bits, config.batch_size), given, per_seed=True)
    points = np.asarray(boolean.cube(config.bits))
    rows = orders[:, np.arange(2**config.bits) % count]
    # Of the whole cube, some strings may count once more than others: one program for all counts.
    train = Split(points[rows], np.take_along_axis(tables, rows, axis=1))

    def until(lines: Sequence[Mapping[str, Any]]) -> bool:
        return config.stop and all(
            line["train_accuracy"] == 1 and (loss is None or line["train_loss"] < loss)
            for line in lines
        )

    return train_and_measure(
        name,
        trainer_of(config, config.bits, seeds if starts is None else starts),
        {"train": Shuffled(train, per_seed=True)},
        data=source,
        seeds=seeds,
        schedule=Schedule(config.steps, config.every, 1, config.save_every),
        measures=[],
        record=record,
        until=until,
    )


def _on_seen(config: Config, labels: np.ndarray, seen: np.ndarray) -> Measure:
    """The sharpness on the strings of the training set alone."""
    points = np.asarray(boolean.cube(config.bits))[seen]

    def compute(model: Any, key: Any) -> Any:
        return average_direction(
            _loss, model, points, labels[seen], key=key, size=config.noise,
            kind=config.noise_kind, draws=config.draws, where=not_positions,
        )  # fmt: skip

    return Measure("sharpness_seen", compute)


def _loss(model: Any, inputs: Any, labels: Any) -> Any:
    return 4 * jnp.square(model(inputs) - labels)


def _looked_up(labels: Array, points: Array) -> Array:
    return labels[rows_of(points)]


def _same(outputs: Any) -> Any:
    return outputs


def _sensitivity(labels: np.ndarray) -> float:
    return float(boolean.average_sensitivity(np.where(labels > 0.5, 1, -1).astype(np.int8)))
