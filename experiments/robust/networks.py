"""The networks that robustness and flatness are measured of: trained here, or in finished runs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from command.options import POSITIVE, Count
from experiments.robust.finished import TASKS, Trained, trained_in
from experiments.run.cli import UserError
from experiments.run.data import part_to_measure, subset
from experiments.run.record import RunRecord
from experiments.vision import options
from experiments.vision import run as vision
from experiments.vision.run import Images
from jaxsens.data.split import Split
from jaxsens.sharpness import OutputSharpness


@dataclasses.dataclass(frozen=True)
class Networks(options.Config):
    """Options that say which networks are measured."""

    task: Literal["cifar", "fashion_mnist", "svhn"] = "cifar"
    """Whose networks and data. cifar with --data embedded has the crops of photographs."""
    runs: tuple[Path, ...] = ()
    """Finished runs of experiments.cifar, fashion_mnist, svhn or robustness with checkpoints: their
    networks are measured, with their data, and nothing is trained."""
    intervention: tuple[str, ...] = ("none", "augmentation", "regularisation")
    """What is done in training against sensitivity."""
    intervened: tuple[str, ...] = ("vit",)
    """Which networks are also trained with the interventions: all, or some of --arch. The others
    are trained plainly."""
    flat_examples: Annotated[int, Count(least=2)] = 500
    """Training images on which flatness is measured, at most."""
    flat_draws: Annotated[int, Count(least=2, most=10**4)] = 5
    """Nudges of the weights."""
    flat_size: Annotated[float, POSITIVE] = 0.005
    """Standard deviation of the nudges for ShOp and ShPred."""

    def check(self) -> None:
        super().check()
        names = (*TASKS[self.task].architectures, "all")
        if not set(self.intervened) <= set(names):
            raise UserError(
                f"--intervened must be among {', '.join(names)}, got {' '.join(self.intervened)}"
            )
        self.require_distinct("intervened", "runs")


def smallest_networks(config: Networks) -> dict[str, Any]:
    """A transformer of one block, where nothing else was asked for."""
    if config.arch != ("all",) or config.runs:
        return {}
    return {"arch": ("vit",), "depth": config.depth or (1,)}


@dataclasses.dataclass(frozen=True)
class Found:
    """The images, the networks that are to be trained on them, and those that are already."""

    images: Images
    variants: Sequence[options.Variant]
    trained: Sequence[Trained]


def find(config: Networks) -> tuple[Found, str]:
    """What the options name, and the line that announces it. Raises UserError."""
    if config.runs:
        images, trained = trained_in(config.runs)
        images = dataclasses.replace(
            images,
            measured=part_to_measure(images.train, config.sensitivity_examples),
            noises=images.task.named_noises(config, images.train),
        )
        said = f"measuring {len(trained)} networks of {len(config.runs)} runs on {images.name}"
        return Found(images, [], trained), said
    images, line = vision.load_images(config, TASKS[config.task])
    everywhere = "all" in config.intervened
    chosen = [
        one
        for one in images.variants
        if one.intervention == "none" or everywhere or one.arch in config.intervened
    ]
    if not chosen:
        raise UserError(
            f"--intervened {' '.join(config.intervened)} names none of --arch "
            f"{' '.join(config.arch)}, and without --intervention none no network is left"
        )
    return Found(dataclasses.replace(images, variants=chosen), chosen, []), line


def train_all(config: Networks, found: Found, record: RunRecord) -> list[Trained]:
    """Every network, one for each seed."""
    networks = list(found.trained)
    for variant in found.variants:
        models = vision.trained_models(config, found.images, variant, record)
        networks += [
            Trained(variant, model, record.last(variant.name, seed))
            for seed, model in zip(config.all_seeds(), models, strict=True)
        ]
    return networks


def flat_part(config: Networks, images: Images) -> Split:
    """The training images that flatness is measured on, drawn at random: some lie by class."""
    count = min(config.flat_examples, len(images.train.labels))
    return subset(images.train, count, "--flat-examples")


def flat_fields(found: OutputSharpness, end: str = "") -> dict[str, float]:
    """ShOp and ShPred as fields of a record, with their standard errors."""
    return {
        f"{name}{end}{part}": getattr(found, f"{name}{part}")
        for name in ("shop", "shpred")
        for part in ("", "_stderr")
    }
