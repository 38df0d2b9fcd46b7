"""What low sensitivity is good for: accuracy under corruptions (paper A, Section 7).

Trains networks of a vision task, some of them with an intervention against sensitivity, or takes
those of finished runs; measures each one's sensitivity, flatness, and accuracy under the common
corruptions at five severities; and asks whether sensitivity and robustness go together over all of
them. With several strengths of the regularisation sensitivity is set, and the slopes say whether
robustness follows.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import numpy as np
from flax import nnx

import jaxsens
from command.options import Count, Each
from experiments.robust import analysis
from experiments.robust.finished import Trained
from experiments.robust.networks import (
    Found,
    Networks,
    find,
    flat_fields,
    flat_part,
    smallest_networks,
    train_all,
)
from experiments.run.cli import UserError, run
from experiments.run.data import subset
from experiments.run.experiment import conduct
from experiments.run.measure import sensitivity
from experiments.run.paired import Pairs
from experiments.run.progress import Progress
from experiments.run.record import RunRecord
from experiments.vision import options
from experiments.vision.run import Images
from jaxsens import sharpness
from jaxsens.corruptions import COMMON, NAMES, applicable
from jaxsens.data.dataset import as_bytes
from jaxsens.data.images import corrupted_cifar
from jaxsens.measures import robustness


@dataclasses.dataclass(frozen=True)
class Config(Networks):
    """Sensitivity, flatness and accuracy under corruptions of the networks of a vision task."""

    corruptions: tuple[str, ...] = ("all",)
    """Which: all that the images can have (19; 18 for grey ones), common (the 15 of the benchmark),
    or names."""
    severity: Annotated[tuple[int, ...], Each(least=1), Count(most=5)] = (1, 2, 3, 4, 5)
    """Severities of the corruptions."""
    corrupted_examples: Annotated[int | None, Count()] = None
    """Corrupt this many of the test images; None for all of them."""
    published: Path | None = None
    """CIFAR-10-C as published, in place of corruptions that are made here: its folder or tar (the
    word tfds: by tensorflow-datasets). The test images must be those of CIFAR-10."""
    published_block: Annotated[int, Count()] = 10_000
    """Test images in each block of --published, where it is no published file but a smaller set in
    the same layout."""
    token_size: Annotated[tuple[int, ...], Each(), Count(most=1024)] = ()
    """Measure sensitivity to patches of these sizes too, beside that of the networks' own."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        **options.Config.SMALLEST,
        "severity": (1, 5),
        "corrupted_examples": 40,
        "flat_examples": 20,
        "flat_draws": 2,
    }

    def check(self) -> None:
        super().check()
        self.require_distinct("corruptions")
        if self.published is not None:
            if self.task != "cifar":
                raise UserError("--published is for --task cifar alone: it is CIFAR-10-C")
            if self.corrupted_examples is not None or self.test_examples is not None:
                raise UserError(
                    "--published has all test images; leave out --corrupted-examples and "
                    "--test-examples"
                )
        if self.corruptions not in (("all",), ("common",)):
            wrong = [name for name in self.corruptions if name not in NAMES]
            if wrong or not self.corruptions:
                raise UserError(
                    f"--corruptions must be all, common, or some of {', '.join(NAMES)}, got "
                    f"{' '.join(self.corruptions)}"
                )

    def smallest(self) -> Mapping[str, Any]:
        """One architecture with its interventions shows everything at work."""
        return self.SMALLEST | smallest_networks(self)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a run is about: networks, and the test images that are corrupted, as bytes."""

    found: Found
    names: Sequence[str]
    test: np.ndarray
    labels: np.ndarray
    sets: Callable[[], Iterator[Any]]  # the corrupted images, one corruption after the other


def main(config: Config) -> None:
    """Train or take networks, measure them, and leave a run record with its figures."""
    conduct(
        "robustness", config, load=load, work=work, arrays=lambda data: data.found.images.splits
    )


def load(config: Config) -> tuple[Subject, str]:
    """The images, the corruptions and the networks that the options ask for."""
    found, line = find(config)
    test = found.images.test
    possible, names = applicable(test.inputs.shape[-1]), config.corruptions
    if names in (("all",), ("common",)):
        names = tuple(n for n in possible if names == ("all",) or n in COMMON)
    elif wrong := [name for name in names if name not in possible]:
        raise UserError(f"--corruptions {wrong[0]} needs images in colour; these are grey")
    part = subset(test, config.corrupted_examples, "--corrupted-examples")
    for size in config.token_size:
        try:
            jaxsens.Patches(size).count(test.inputs.shape)
        except ValueError as error:
            raise UserError(f"--token-size {size}: {error}") from None
    images, labels = as_bytes(part.inputs), np.asarray(part.labels)
    if config.published is None:
        sets = functools.partial(
            robustness.corrupted, images, labels, key=jax.random.key(0), names=names,
            severities=config.severity,
        )  # fmt: skip
    else:
        every = config.corruptions == ("all",)
        sets = functools.partial(
            corrupted_cifar.read, config.published, names=None if every else names,
            severities=config.severity, labels=labels, clean=images, block=config.published_block,
        )  # fmt: skip
        sets()  # refuses what cannot be, before anything is trained
    return Subject(found, names, images, labels, sets), line


def work(config: Config, subject: Subject, record: RunRecord) -> dict[str, Any]:
    """Train, measure each network, and look at all of them under every corruption."""
    images, pairs = subject.found.images, Pairs()
    networks = train_all(config, subject.found, record)
    finals = [measured(config, images, network, pairs) for network in networks]
    measure_corruptions(config, subject, [network.model for network in networks], finals)
    return {
        "data": {**images.described(), "corrupted": len(subject.labels)},
        "severities": list(config.severity),
        "final": finals,
        "paired": [] if config.runs else pairs.differences(config.all_seeds()),
        "associations": analysis.associations(finals),
        "sweeps": analysis.sweeps(finals),
    }


def measured(config: Config, images: Images, network: Trained, pairs: Pairs) -> dict[str, Any]:
    """The line of a network with its sensitivities and flatness."""
    size = images.task.patch_size
    sizes = [other for other in config.token_size if other != size]
    noise = next(iter(images.noises.values()))
    few = flat_part(config, images).inputs

    measures = [
        sensitivity(
            "sensitivity" if one == size else f"sensitivity_size{one}",
            images.measured,
            tokens=jaxsens.Patches(one),
            noise=noise,
            repeats=config.repeats,
        )
        for one in (size, *sizes)
    ]
    if not config.runs:
        measures[0] = pairs.watched(network.variant.name, measures[0])
    line: dict[str, Any] = dict(network.line)
    key = jax.random.key(line["seed"])
    for measure in measures:
        line |= measure(network.model, key)
    flat = sharpness.outputs(
        network.model,
        few,
        key=key,
        size=config.flat_size,
        draws=config.flat_draws,
        decision="argmax",
    )
    line |= flat_fields(flat)
    return line | network.about


def measure_corruptions(
    config: Config, subject: Subject, models: Sequence[nnx.Module], finals: list[dict[str, Any]]
) -> None:
    """Accuracy of every network under every corruption, written into its line."""
    progress = Progress("corruptions", len(subject.names) * len(config.severity), "images changed")
    count = 0

    def done(one: Any) -> None:
        nonlocal count
        count += 1
        progress.update(count, f"{one.name} {one.severity}")

    try:
        clean = robustness.accuracies(
            models, [robustness.Corrupted("clean", 0, subject.test, subject.labels)]
        )["clean"][0]
        found = robustness.accuracies(models, subject.sets(), done=done)
    finally:
        progress.close()
    groups = {
        "corruption": list(found),
        "noise": [name for name in found if name in robustness.NOISE],
        "other": [name for name in found if name not in robustness.NOISE],
    }
    means = {
        f"{group}_accuracy": robustness.mean_accuracy(found, names) if names else None
        for group, names in groups.items()
    }
    errors = robustness.mean_corruption_error(found)
    for i, line in enumerate(finals):
        line["clean"] = float(clean[i])
        line["accuracy"] = {
            name: [float(values[i]) for values in by.values()] for name, by in found.items()
        }
        line |= {name: None if m is None else float(m[i]) for name, m in means.items()}
        line["mce"] = float(errors[i])
        line["relative"] = line["corruption_accuracy"] / line["clean"] if line["clean"] else None


if __name__ == "__main__":
    run(main, Config, prog="experiments.robustness")
