"""Train, measure, record and checkpoint: the loop of every experiment that trains a network."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np
from flax import nnx
from jax import Array

from command import stops
from command.options import INT32
from experiments.run.cli import UserError
from experiments.run.measure import Measure, measured
from experiments.run.progress import Progress
from experiments.run.record import RunRecord
from jaxsens import placement
from jaxsens.training import Data, Evaluated, State, Trainer, fit

# observe(step, models), the models of all seeds in inference mode
Observe = Callable[[int, Sequence[nnx.Module]], None]
# until(lines), the named numbers of all seeds at one evaluation
Until = Callable[[Sequence[Mapping[str, Any]]], bool]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How many steps to train, and after how many to measure and to save.

    ``save_every`` is a multiple of ``every``, None for every measurement: where an epoch takes
    milliseconds, a checkpoint costs more than what it protects.
    """

    steps: int
    every: int
    steps_per_epoch: int
    save_every: int | None = None

    @classmethod
    def epochs(
        cls, epochs: int, every: int, steps_per_epoch: int, save_every: int | None = None
    ) -> Self:
        """The same, counted in epochs."""
        saved = None if save_every is None else save_every * steps_per_epoch
        return cls(epochs * steps_per_epoch, every * steps_per_epoch, steps_per_epoch, saved)

    @property
    def unit(self) -> str:
        """What is counted aloud: epochs, or steps where it is measured within an epoch."""
        whole = self.every % self.steps_per_epoch == self.steps % self.steps_per_epoch == 0
        return "epoch" if whole else "step"

    def count(self, step: int) -> int:
        """How many units a number of steps is."""
        return step // self.steps_per_epoch if self.unit == "epoch" else step

    def epoch(self, step: int) -> int | float:
        """The epoch after so many steps, a fraction where that is within one."""
        whole, rest = divmod(step, self.steps_per_epoch)
        return whole if rest == 0 else round(step / self.steps_per_epoch, 6)


def train_and_measure(
    name: str,
    trainer: Trainer,
    splits: Mapping[str, Evaluated],
    *,
    seeds: Sequence[int],
    schedule: Schedule,
    measures: Sequence[Measure],
    record: RunRecord,
    data: Data | None = None,
    observe: Observe | None = None,
    until: Until | None = None,
) -> list[nnx.Module]:
    """Train the seeds together; write a line for each seed and evaluation, and checkpoints.

    A line holds the trainer's metrics on every one of ``splits`` (:data:`Evaluated`), as
    ``train_loss`` for instance, and the fields of ``measures``. A split of its own for each seed is
    ``Shuffled(split, per_seed=True)``. ``data`` is what is trained on, where that is not the split
    called train: any source of batches. ``observe`` sees every evaluation and may keep what it
    likes; ``until`` ends the training early, when it returns true for the lines of all seeds. A
    record that already has checkpoints of ``name`` is taken up where they end. Returns the final
    models, one a seed, in inference mode.
    """
    step, state = record.restore(name, trainer.initial) or (None, None)
    before = record.of_model(name)
    spent = before[-1]["seconds"] if before else 0.0
    root_keys = [jax.random.key(seed) for seed in seeds]
    train_keys, measure_keys = (
        jax.numpy.stack([jax.random.fold_in(k, i) for k in root_keys]) for i in (1, 2)
    )
    splits = {
        part: (placement.by_seed if getattr(split, "per_seed", False) else placement.shared)(
            split, trainer.mesh
        )
        for part, split in splits.items()
    }
    if schedule.steps > INT32:
        raise UserError(
            f"training would take {schedule.steps} steps, which are counted up to {INT32}; lower "
            "--epochs"
        )
    progress = Progress(name, schedule.count(schedule.steps), f"{schedule.unit}s")
    started = time.monotonic() - spent
    save_every = schedule.save_every or schedule.every
    saved = step or 0
    pending: list[dict[str, Any]] = []
    try:
        for current in fit(
            trainer,
            splits["train"] if data is None else data,
            keys=train_keys,
            steps=schedule.steps,
            every=schedule.every,
            state=state,
        ):
            done = int(placement.read(current.step)[0])
            if step is None or done > step:
                keys = [_key_at(schedule, key, done) for key in measure_keys]
                lines = evaluate(trainer, current, splits, measures, keys)
                seconds = round(time.monotonic() - started, 2)
                where = {"epoch": schedule.epoch(done), "step": done, "seconds": seconds}
                pending += [
                    {"model": name, "seed": seed, **where, **line}
                    for seed, line in zip(seeds, lines, strict=True)
                ]
                if observe is not None:
                    observe(done, trainer.models(current))
                ended = until is not None and until(lines)
                if done % save_every == 0 or done == schedule.steps or ended:
                    with stops.deferred():
                        record.save(name, pending, current, step=done)
                        pending, saved = [], done
                progress.update(schedule.count(done), _note(lines, splits, measures))
                if ended:
                    break
            else:  # where the run that is taken up again had stopped
                progress.update(schedule.count(done))
                if until is not None and until(before[-len(seeds) :]):
                    break
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; saved up to {schedule.unit} {schedule.count(saved)} of {name}: go on "
            f"with --resume --out {record.directory}"
        ) from None
    finally:
        progress.close()
    return trainer.models(current)


def finals(
    name: str,
    models: Sequence[nnx.Module],
    *,
    seeds: Sequence[int],
    measures: Sequence[Measure],
    record: RunRecord,
) -> list[dict[str, Any]]:
    """The last line of each seed with the final measures, which take the place of earlier ones.

    The key is the seed's alone, so that what is measured on the same inputs pairs across models.
    """
    return [
        {**record.last(name, seed), **measured(measures, model, jax.random.key(seed))}
        for seed, model in zip(seeds, models, strict=True)
    ]


def evaluate(
    trainer: Trainer,
    state: State,
    splits: Mapping[str, Evaluated],
    measures: Sequence[Measure],
    keys: Sequence[Array],
) -> list[dict[str, Any]]:
    """Metrics on every split, and measures, of each seed."""
    parts = {
        part: {name: np.asarray(v) for name, v in trainer.evaluate(state, split).items()}
        for part, split in splits.items()
    }
    _check_finite(parts, step=int(placement.read(state.step)[0]))
    lines: list[dict[str, Any]] = []
    for seed, (model, key) in enumerate(zip(trainer.models(state), keys, strict=True)):
        line: dict[str, Any] = {
            f"{part}_{metric}": float(values[seed])
            for part, metrics in parts.items()
            for metric, values in metrics.items()
        }
        for number, measure in enumerate(measures):
            line |= measure(model, jax.random.fold_in(key, number))
        lines.append(line)
    return lines


def _check_finite(parts: Mapping[str, Mapping[str, np.ndarray]], *, step: int) -> None:
    """Raise FloatingPointError for a metric that is not finite: JSON would have null in its place.

    The parameters may be finite after a last update that was too large, and the loss not.
    """
    for part, metrics in parts.items():
        for metric, values in metrics.items():
            for seed, value in enumerate(values):
                if not np.isfinite(value):
                    raise FloatingPointError(
                        f"{part}_{metric} is {value} after step {step}, seed number {seed}; lower "
                        "the learning rate"
                    )


def _key_at(schedule: Schedule, key: Array, step: int) -> Array:
    """A key for the measures after so many steps, by the epoch and then by the step within it."""
    epoch, within = divmod(step, schedule.steps_per_epoch)
    key = jax.random.fold_in(key, epoch)
    return key if within == 0 else jax.random.fold_in(key, 2**32 - within)  # beyond any measure's


def _note(
    lines: Sequence[Mapping[str, Any]],
    splits: Mapping[str, Evaluated],
    measures: Sequence[Measure],
) -> str:
    names = [*(f"{part}_accuracy" for part in splits), *(measure.name for measure in measures[:1])]
    shown = {name: [line[name] for line in lines] for name in names if name in lines[0]}
    return "  ".join(f"{k} {np.mean(v):.4g}" for k, v in shown.items() if np.ndim(v) == 1)
