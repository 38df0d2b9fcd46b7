"""Train, measure, record and checkpoint: the loop of every experiment that trains a network."""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array

import jaxsens
from experiments.run.progress import Progress
from experiments.run.record import RunRecord
from jaxsens import checkpoints
from jaxsens.training import Split, State, Trainer, fit

# measure(model, key) -> named numbers; the model of one seed, in inference mode
Measure = Callable[[nnx.Module, Array], Mapping[str, float]]
# observe(epoch, models), the models of all seeds in inference mode
Observe = Callable[[int, Sequence[nnx.Module]], None]
# until(lines), the named numbers of all seeds at one epoch
Until = Callable[[Sequence[Mapping[str, Any]]], bool]


def sensitivity_measure(name: str, inputs: np.ndarray, **settings: Any) -> Measure:
    """``jaxsens.sensitivity`` on fixed inputs, as ``name`` and ``name_stderr``."""

    def measure(model: nnx.Module, key: Array) -> dict[str, float]:
        estimate = jaxsens.sensitivity(model, inputs, key=key, **settings)
        return {name: estimate.value, f"{name}_stderr": estimate.stderr}

    return measure


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long to train, and after how many epochs to measure and to save.

    ``save_every`` is a multiple of ``every``, None for every measurement: where an epoch takes
    milliseconds, a checkpoint costs more than what it protects.
    """

    epochs: int
    every: int
    steps_per_epoch: int
    save_every: int | None = None


def train_and_measure(
    name: str,
    trainer: Trainer,
    train: Split,
    test: Split,
    *,
    seeds: Sequence[int],
    schedule: Schedule,
    measures: Sequence[Measure],
    record: RunRecord,
    observe: Observe | None = None,
    until: Until | None = None,
) -> list[nnx.Module]:
    """Train the seeds together; write a line for each seed and evaluation, and checkpoints.

    ``observe`` sees every measured epoch and may keep what it likes; ``until`` ends the training
    early, when it returns true for the lines of all seeds at one evaluation. A record that already
    has checkpoints of ``name`` is taken up where they end. Returns the final models, one a seed, in
    inference mode.
    """
    directory = record.directory / "checkpoints" / name
    step = checkpoints.latest(directory)
    state = None if step is None else checkpoints.restore(directory, trainer.initial, step=step)
    record.keep(lambda line: line["model"] != name or (step is not None and line["epoch"] <= step))
    before = [line for line in record.lines if line["model"] == name]
    spent = before[-1]["seconds"] if before else 0.0
    root_keys = [jax.random.key(seed) for seed in seeds]
    train_keys, measure_keys = (
        jax.numpy.stack([jax.random.fold_in(k, i) for k in root_keys]) for i in (1, 2)
    )
    train, test = jax.device_put((train, test))
    progress = Progress(name, schedule.epochs, "epochs")
    started = time.monotonic() - spent
    save_every = schedule.save_every or schedule.every
    done = saved = step or 0
    pending: list[dict[str, Any]] = []
    try:
        for current in fit(
            trainer,
            train,
            keys=train_keys,
            epochs=schedule.epochs,
            every=schedule.every,
            state=state,
        ):
            done = int(current.epoch[0])
            if step is None or done > step:
                lines = _evaluate(trainer, current, train, test, measures, measure_keys)
                seconds = round(time.monotonic() - started, 2)
                where = {"epoch": done, "step": done * schedule.steps_per_epoch, "seconds": seconds}
                pending += [
                    {"model": name, "seed": seed, **where, **line}
                    for seed, line in zip(seeds, lines, strict=True)
                ]
                if observe is not None:
                    observe(done, trainer.models(current))
                ended = until is not None and until(lines)
                if done % save_every == 0 or done == schedule.epochs or ended:
                    with _uninterrupted():
                        record.add(pending)
                        checkpoints.save(directory, current, step=done)
                        pending, saved = [], done
                progress.update(done, _note(lines))
                if ended:
                    break
            else:  # where the run that is taken up again had stopped
                progress.update(done)
                if until is not None and until(before[-len(seeds) :]):
                    break
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; saved up to epoch {saved} of {name}: go on with --resume --out "
            f"{record.directory}"
        ) from None
    finally:
        progress.close()
    return trainer.models(current)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end: a save cut short leaves threads that fill the terminal."""
    usual, asked = signal.getsignal(signal.SIGINT), []
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    signal.signal(signal.SIGINT, lambda *details: asked.append(details))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if asked:
        usual(*asked[0])


def _evaluate(
    trainer: Trainer,
    state: State,
    train: Split,
    test: Split,
    measures: Sequence[Measure],
    keys: Array,
) -> list[dict[str, float]]:
    """Losses, metrics and measures of each seed."""
    parts = {"train": trainer.evaluate(state, train), "test": trainer.evaluate(state, test)}
    lines: list[dict[str, float]] = []
    for seed, model in enumerate(trainer.models(state)):
        line = {
            f"{part}_{metric}": float(values[seed])
            for part, metrics in parts.items()
            for metric, values in metrics.items()
        }
        key = jax.random.fold_in(keys[seed], int(state.epoch[seed]))
        for number, measure in enumerate(measures):
            line.update(measure(model, jax.random.fold_in(key, number)))
        lines.append(line)
    return lines


def _note(lines: Sequence[Mapping[str, float]]) -> str:
    shown = [k for k in ("train_accuracy", "test_accuracy", "sensitivity") if k in lines[0]]
    return "  ".join(f"{k} {np.mean([line[k] for line in lines]):.4g}" for k in shown)
