"""The networks of finished runs, from their records and checkpoints."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments import cifar, fashion_mnist, svhn
from experiments.run.cli import UserError
from experiments.run.record import RunRecord
from experiments.vision import options
from experiments.vision.options import Task, Training, Variant
from experiments.vision.run import Images, load_images, trainer_of

TASKS = {"cifar": cifar.TASK, "fashion_mnist": fashion_mnist.TASK, "svhn": svhn.TASK}


@dataclasses.dataclass(frozen=True)
class Trained:
    """One seed of a network in inference mode, and its last line of evaluations."""

    variant: Variant
    model: nnx.Module
    line: Mapping[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        """The fields of a result that say which network it is."""
        names = ("arch", "intervention", "level", "label")
        return {name: getattr(self.variant, name) for name in names}


def trained_in(runs: Sequence[Path]) -> tuple[Images, list[Trained]]:
    """The images of the first run, and the networks of all of them.

    Raises UserError where a run is none of these experiments, has no checkpoint of a network, or
    was made of other images; two runs may not hold networks of one name and seed.
    """
    found: list[Trained] = []
    images: Images | None = None
    for path in runs:
        record, config, task = _read(path)
        mine, _ = load_images(config, task)
        if images is None:
            images = mine
        if not _same(images, mine):
            raise UserError(f"{path} is about other images than {runs[0]}; measure it by itself")
        lines = record.read_metrics()
        for variant in mine.variants:
            if not any(line.get("model") == variant.name for line in lines):
                continue  # an intervention that was not for this network
            record.lines = list(lines)
            trainer, _ = trainer_of(config, mine, variant)
            restored = record.restore(variant.name, trainer.initial)
            if restored is None:
                raise UserError(f"{path} has no checkpoint of {variant.name}; train it again")
            for seed, model in zip(config.all_seeds(), trainer.models(restored[1]), strict=True):
                line = record.last(variant.name, seed)
                found.append(Trained(variant, model, line))
    names = [(one.variant.name, one.line["seed"]) for one in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two runs have the network {name[0]} of seed {name[1]}; name one")
    if images is None or not found:
        raise UserError("--runs names no network that was trained")
    return images, found


def _read(path: Path) -> tuple[RunRecord, Training, Task]:
    """The record of a run with its configuration and task."""
    record = RunRecord(path)
    said = record.read("config.json")
    name = said.get("task") if said.get("experiment") == "robustness" else said.get("experiment")
    if name not in TASKS:
        raise UserError(
            f"{path} is a run of {said.get('experiment')!r}; expected one of cifar, "
            "fashion_mnist, svhn, robustness"
        )
    if not (path / "result.json").exists():
        raise UserError(f"{path} has not finished; go on with it by --resume, then measure it")
    if not (path / "checkpoints").is_dir():
        raise UserError(f"{path} has no checkpoints; its networks cannot be had from it")
    settings: dict[str, Any] = {}
    for field in dataclasses.fields(options.Config):
        value = said.get(field.name, field.default)
        settings[field.name] = tuple(value) if isinstance(value, list) else value
    settings |= {"out": None, "smoke": False, "resume": False}
    try:
        config = options.Config(**settings)
        config.check()
    except (TypeError, UserError) as error:
        raise UserError(f"{path}/config.json is not of this version: {error}") from None
    return record, config, TASKS[name]


def _same(one: Images, other: Images) -> bool:
    pairs = zip(jax.tree.leaves(one.splits), jax.tree.leaves(other.splits), strict=True)
    return one.name == other.name and all(
        np.shape(a) == np.shape(b) and bool(np.all(a == b)) for a, b in pairs
    )
