"""The vision experiments of paper A, Section 5: what CIFAR-10, Fashion-MNIST, SVHN, MNIST share.

A `Task` is the paper's table of networks for one data set. Every network is trained alone by
SGD (or Adam) and measured every few epochs; at the end comes the paper's protocol, every patch of
each measured training image replaced ``repeats`` times.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from flax import nnx

import jaxsens
from experiments import paper
from experiments.run import training
from experiments.run.cli import UserError
from experiments.run.data import check_batch, part_to_measure, subset
from experiments.run.experiment import conduct
from experiments.run.measure import Measure, sensitivity
from experiments.run.paired import Pairs
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, train_and_measure
from experiments.vision.interventions import INTERVENTIONS, METRICS
from experiments.vision.options import Task, Training, Variant, variants
from jaxsens import augment, models
from jaxsens.data import load
from jaxsens.data.batches import Batches, Shuffled
from jaxsens.data.split import Split
from jaxsens.training import Trainer

AUGMENTATIONS: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "crop": augment.crop,
    "crop-flip": augment.crop_and_flip,
}


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of a run, what of them is measured and how, and the networks that learn them."""

    task: Task
    variants: Sequence[Variant]
    name: str
    source: str
    classes: int
    train: Split
    test: Split
    measured: Any
    noises: Mapping[str, jaxsens.Noise]

    @property
    def splits(self) -> dict[str, Split]:
        """What is evaluated, by name."""
        return {"train": self.train, "test": self.test}

    def printed(self, config: Any, variant: Variant, quantity: str = "sensitivity") -> float | None:
        """The paper's number, for its own network, noise and data alone."""
        task, level = self.task, getattr(config, "sigma2", None) or (self.task.variance,)
        own = (variant.name, level[0], self.name) == (variant.arch, task.variance, task.data)
        label = task.architectures[variant.arch].label
        return paper.printed(task.places, label, quantity) if own else None

    def described(self) -> dict[str, Any]:
        """What the record says of them."""
        return {
            "name": self.name,
            "source": self.source,
            "train": len(self.train.labels),
            "test": len(self.test.labels),
            "measured": len(self.measured),
            "classes": self.classes,
        }


# final(config, images, variant, pairs) -> measures for the end of a network's training, whose
# estimates `pairs` keeps
Final = Callable[[Any, Images, Variant, Pairs], Sequence[Measure]]
# extra(config, images) -> further parts of result.json
Extra = Callable[[Any, Images], Mapping[str, Any]]


def main(
    config: Training, task: Task, *, final: Final, extra: Extra = lambda config, images: {}
) -> None:
    """Train, measure, and leave a run record with its figures."""

    def work(config: Training, images: Images, record: RunRecord) -> dict[str, Any]:
        pairs = Pairs()
        finals = [
            line
            for variant in images.variants
            for line in train(
                config, images, variant, record, final(config, images, variant, pairs)
            )
        ]
        return {
            "data": images.described(),
            "final": finals,
            "paired": pairs.differences(config.all_seeds()),
            **extra(config, images),
        }

    conduct(
        task.experiment,
        config,
        load=lambda config: load_images(config, task),
        work=work,
        arrays=lambda images: {"train": images.train, "test": images.test},
    )


def load_images(config: Training, task: Task) -> tuple[Images, str]:
    """The images as the options ask, and the line that announces them. Raises UserError."""
    chosen = variants(config, task)
    data = load(task.data, config.data)
    parts = [data.train, data.test]
    if task.relabel is not None:
        parts = [part._replace(labels=task.relabel(part.labels)) for part in parts]
    train = subset(parts[0], config.examples, "--examples")
    test = subset(parts[1], config.test_examples, "--test-examples")
    patches = (train.inputs.shape[1] // task.patch_size) ** 2
    check_batch(config.batch_size, train)
    if config.curve_tokens > patches:
        raise UserError(f"--curve-tokens must be at most {patches}, got {config.curve_tokens}")
    images = Images(
        task,
        chosen,
        data.name,
        data.source,
        task.classes or len(data.classes),
        train,
        test,
        part_to_measure(train, config.sensitivity_examples),
        task.named_noises(config, train),
    )
    line = f"training on {len(train.labels)} images of {data.name} from {data.source}"
    return images, line


def train(
    config: Training,
    images: Images,
    variant: Variant,
    record: RunRecord,
    final: Sequence[Measure],
) -> list[dict[str, Any]]:
    """Train all seeds of one network; their last lines with the final measures."""
    seeds = config.all_seeds()
    trained = trained_models(config, images, variant, record)
    found = training.finals(variant.name, trained, seeds=seeds, measures=final, record=record)
    printed = images.printed(config, variant)
    return [{**line, "label": variant.label, "paper": printed} for line in found]


def trained_models(
    config: Training, images: Images, variant: Variant, record: RunRecord
) -> list[nnx.Module]:
    """The networks of all seeds, trained, in inference mode."""
    trainer, data = trainer_of(config, images, variant)
    return train_and_measure(
        variant.name,
        trainer,
        images.splits,
        data=data,
        seeds=config.all_seeds(),
        schedule=Schedule.epochs(config.epochs, config.every, data.steps_per_epoch),
        measures=during(config, images),
        record=record,
        until=lambda lines: all(line["train_accuracy"] >= config.until for line in lines),
    )


def trainer_of(config: Training, images: Images, variant: Variant) -> tuple[Trainer, Batches]:
    """What trains a network, and the batches that it is trained on."""
    task, intervention = images.task, INTERVENTIONS[variant.intervention]
    data = intervention.data(config, task, images.train, variant.level)
    if isinstance(data, Split):
        data = Shuffled(data, config.batch_size)
    rate = task.architectures[variant.arch].learning_rate * intervention.rate
    trainer = Trainer(
        [build(config, images, variant, seed) for seed in config.all_seeds()],
        optimizer(
            variant.optimizer,
            config.learning_rate,
            rate,
            halved_after=config.halve_every * data.steps_per_epoch,
        ),
        batch_size=config.batch_size,
        loss=intervention.loss(config, task, variant.level),
        metrics=METRICS,
        augment=AUGMENTATIONS[config.augmentation],
    )
    return trainer, data


def build(config: Training, images: Images, variant: Variant, seed: int) -> nnx.Module:
    """A network of the paper's table, in training mode."""
    height, _, channels = images.train.inputs.shape[1:]
    return models.create(
        images.task.architectures[variant.arch].model,
        rngs=nnx.Rngs(seed),
        image_size=height,
        patch_size=images.task.patch_size,
        channels=channels,
        classes=images.classes,
        dtype=jnp.dtype(config.dtype),
        **variant.widths,
    )


def during(config: Any, images: Images) -> list[Measure]:
    """What is measured in training.

    A few random patches an image give the smallest error for the passes they cost; the final
    measurement is the paper's protocol.
    """
    settings = {"repeats": 1, "tokens_per_example": config.curve_tokens}
    tokens = jaxsens.Patches(images.task.patch_size)
    found = [
        sensitivity(name, images.measured, tokens=tokens, noise=noise, **settings)
        for name, noise in images.noises.items()
    ]
    if getattr(config, "tokens", "patches") == "scatter":
        scatter, noise = scattered(images, (config.sigma2 or (images.task.variance,))[0])
        found.append(
            sensitivity(
                "sensitivity_scatter", images.measured, tokens=scatter, noise=noise, **settings
            )
        )
    return found


def scattered(images: Images, level: float) -> tuple[jaxsens.Scatter, jaxsens.Gaussian]:
    """Token and noise of the published code, which takes its level as a standard deviation."""
    return jaxsens.Scatter(images.task.patch_size), jaxsens.Gaussian(level**2)


def optimizer(
    name: str, learning_rate: float | None, paper: float, *, halved_after: int
) -> optax.GradientTransformation:
    """SGD at a constant rate, or Adam from 0.002, halved whenever so many steps are done."""
    if name == "sgd":
        return optax.inject_hyperparams(optax.sgd)(learning_rate=learning_rate or paper)
    schedule = optax.exponential_decay(learning_rate or 0.002, halved_after, 0.5, staircase=True)
    return optax.inject_hyperparams(optax.adam)(learning_rate=schedule)
