"""The vision experiments of paper A, Section 5: what CIFAR-10, Fashion-MNIST and SVHN share.

A `Task` is the paper's table of architectures for one data set. Every network is trained alone by
SGD (or Adam) and measured every few epochs; at the end comes the paper's protocol, every patch of
each measured training image replaced ``repeats`` times.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jaxsens
from experiments.common import vision_report
from experiments.common.cli import Common, UserError
from experiments.common.data import subset
from experiments.common.record import RunRecord
from experiments.common.training import Schedule, sensitivity_measure, train_and_measure
from jaxsens import augment, models
from jaxsens.data import load
from jaxsens.training import Trainer

AUGMENTATIONS: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "crop": augment.crop,
    "crop-flip": augment.crop_and_flip,
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One row of the paper's table: a model, its widths, the rate of SGD and what was measured."""

    label: str
    model: str
    learning_rate: float
    widths: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    paper: float | None = None  # final train sensitivity


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set with the paper's networks for it. ``variance`` is on pixels in [-1, 1]."""

    experiment: str
    data: str
    patch_size: int
    variance: float
    architectures: Mapping[str, Architecture]
    whole_variance: float | None = None  # Table 4: noise on the whole image
    paper_whole: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Config(Common):
    """Options of the vision experiments; each experiment adds its own architectures."""

    arch: tuple[str, ...] = ("all",)
    """Which networks; all for every one of them."""
    optimizer: tuple[Literal["sgd", "adam"], ...] = ("sgd",)
    """sgd, adam, or both to compare them. SGD has no momentum; Adam halves its rate every 8
    epochs."""
    learning_rate: float | None = None
    """Step size; None for the paper's (SGD: one for each network; Adam: 0.002)."""
    epochs: int = 100
    """Epochs of training, at most."""
    until: float = 2.0
    """End when the training accuracy of every seed is at least this; above 1: never."""
    every: int = 5
    """Measure after this many epochs."""
    batch_size: int = 100
    """Images a step."""
    examples: int | None = None
    """Train on this many images; None for all of them."""
    test_examples: int | None = None
    """Test on this many images; None for all of them."""
    augmentation: Literal["none", "crop", "crop-flip"] = "none"
    """Random crops from a border of 4 pixels, and mirror images, in training. The paper does not
    say that it used any."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the networks' arithmetic; parameters, losses and logits stay float32."""
    depth: tuple[int, ...] = ()
    """Other depths for the transformers; several are trained one after the other."""
    heads: tuple[int, ...] = ()
    """Other numbers of attention heads; several are trained one after the other."""
    sigma2: tuple[float, ...] = ()
    """Variances (not standard deviations) of the noise on a patch, on pixels in [-1, 1]. The
    curve over epochs uses the first, the final measurement all. None given: the paper's."""
    sensitivity_examples: int | None = None
    """Training images to measure sensitivity on; None for 30 % of them."""
    repeats: int = 5
    """Fresh draws for each patch, in the final measurement."""
    curve_tokens: int = 4
    """During training, measure this many random patches of each image, with one draw each."""

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        super().check()
        for name in ("epochs", "every", "batch_size", "repeats", "curve_tokens"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}"
                )
        if not self.optimizer:
            raise UserError("--optimizer needs at least one of sgd and adam")
        for name in ("arch", "depth", "heads", "sigma2", "optimizer"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise UserError(f"--{name} names a value twice: {' '.join(map(str, values))}")
        for name in ("depth", "heads"):
            if any(value < 1 for value in getattr(self, name)):
                raise UserError(f"--{name} must be at least 1, got {min(getattr(self, name))}")
        for name, rates in (("learning-rate", (self.learning_rate,)), ("sigma2", self.sigma2)):
            for rate in rates:
                if rate is not None and not 0 < rate < math.inf:
                    raise UserError(f"--{name} must be finite and greater than 0, got {rate}")
        if not self.until > 0:
            raise UserError(f"--until must be greater than 0, got {self.until}")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network to train: an architecture with an optimizer and perhaps other widths."""

    name: str  # in the record: distinct for every network of a run
    label: str  # in tables and figures
    arch: str
    optimizer: str
    widths: Mapping[str, Any]


def variants(config: Config, task: Task) -> list[Variant]:
    """Every network that the options ask for. Raises UserError where they do not fit together."""
    known = task.architectures
    if config.arch != ("all",) and not (config.arch and set(config.arch) <= set(known)):
        raise UserError(
            f"--arch must be all, or some of {', '.join(known)}, got {' '.join(config.arch)}"
        )
    names = list(known) if config.arch == ("all",) else list(config.arch)
    found = []
    for option in ("depth", "heads"):
        for name in names if getattr(config, option) else ():
            if known[name].model not in ("vit", "vit-simple"):
                raise UserError(
                    f"--{option} is for transformers; {name} is none: name one with --arch"
                )
    for name, optimizer, depth, heads in itertools.product(
        names, config.optimizer, config.depth or (None,), config.heads or (None,)
    ):
        changes = {
            key: value for key, value in (("depth", depth), ("heads", heads)) if value is not None
        }
        said = [f"{key} {value}" for key, value in changes.items()]
        if optimizer != "sgd":
            said.append("Adam")
        found.append(
            Variant(
                " ".join([name, *said]),
                ", ".join([known[name].label, *said]),
                name,
                optimizer,
                {**known[name].widths, **changes},
            )
        )
    return found


def main(config: Config, task: Task, *, whole_input: bool = False) -> None:
    """Train, measure, and leave a run record with its figures."""
    config.check()
    chosen = variants(config, task)
    if config.smoke:
        config = dataclasses.replace(
            config,
            epochs=2,
            every=1,
            examples=40,
            test_examples=40,  # as many, so that one program evaluates both
            batch_size=20,
            sensitivity_examples=4,
            repeats=1,
            curve_tokens=2,
        )
    data = load(task.data, config.data)
    train = subset(data.train, config.examples, "--examples")
    test = subset(data.test, config.test_examples, "--test-examples")
    height, _, channels = train.inputs.shape[1:]
    total, patches = len(train.labels), (height // task.patch_size) ** 2
    if config.batch_size > total:
        raise UserError(
            f"--batch-size must be at most {total}, the number of training images, got "
            f"{config.batch_size}"
        )
    if config.curve_tokens > patches:
        raise UserError(f"--curve-tokens must be at most {patches}, got {config.curve_tokens}")
    share = config.sensitivity_examples
    if share is None:
        share = round(0.3 * total)
    if share < 2:
        raise UserError(
            f"sensitivity needs at least 2 images for its standard error, got {share}; raise "
            "--examples or --sensitivity-examples"
        )
    measured = subset(train, share, "--sensitivity-examples").inputs
    sigma2 = config.sigma2 or (task.variance,)
    tokens = jaxsens.Patches(task.patch_size)
    # During training a few random patches an image give the smallest error for the passes they
    # cost; the final measurement is the paper's protocol.
    curve = sensitivity_measure(
        "sensitivity",
        measured,
        tokens=tokens,
        noise=jaxsens.Gaussian(sigma2[0]),
        repeats=1,
        tokens_per_example=config.curve_tokens,
    )
    shape = {
        "image_size": height,
        "patch_size": task.patch_size,
        "channels": channels,
        "classes": len(data.classes),
        "dtype": jnp.dtype(config.dtype),
    }

    def build(variant: Variant, seed: int) -> nnx.Module:
        architecture = task.architectures[variant.arch].model
        return models.create(architecture, rngs=nnx.Rngs(seed), **shape, **variant.widths)

    record = RunRecord.create(task.experiment, config, out=config.out, resume=config.resume)
    described = {
        "name": data.name,
        "source": data.source,
        "train": total,
        "test": len(test.labels),
        "measured": share,
        "classes": len(data.classes),
    }
    print(
        f"training on {total} images of {data.name} from {data.source}; record in "
        f"{record.directory}",
        flush=True,
    )
    started = time.monotonic()
    seeds = range(config.seed, config.seed + config.seeds)
    steps = total // config.batch_size
    finals: list[dict[str, Any]] = []
    for variant in chosen:
        rate = task.architectures[variant.arch].learning_rate
        trained = train_and_measure(
            variant.name,
            Trainer(
                [build(variant, seed) for seed in seeds],
                optimizer(variant.optimizer, config.learning_rate, rate, steps=steps),
                batch_size=config.batch_size,
                augment=AUGMENTATIONS[config.augmentation],
            ),
            train,
            test,
            seeds=seeds,
            schedule=Schedule(config.epochs, config.every, steps),
            measures=[curve],
            record=record,
            until=lambda lines: all(line["train_accuracy"] >= config.until for line in lines),
        )
        for seed, model in zip(seeds, trained, strict=True):
            final = dict(record.last(variant.name, seed))
            final |= {
                "label": variant.label,
                "sweep": [
                    {
                        "sigma2": variance,
                        **measure(
                            model, measured, seed, tokens, jaxsens.Gaussian(variance), config
                        ),
                    }
                    for variance in sigma2
                ],
                "paper": task.architectures[variant.arch].paper,
            }
            if whole_input and task.whole_variance is not None:
                noise = jaxsens.Gaussian(task.whole_variance)
                final["whole"] = {
                    "sigma2": task.whole_variance,
                    **measure(model, measured, seed, jaxsens.Whole(), noise, config),
                    "paper": task.paper_whole.get(variant.arch),
                }
            finals.append(final)
    record.finish({"data": described, "final": finals}, seconds=time.monotonic() - started)
    vision_report.draw(record)
    print(vision_report.summary(record))


def measure(
    model: nnx.Module,
    images: Any,
    seed: int,
    tokens: jaxsens.Tokens,
    noise: jaxsens.Gaussian,
    config: Config,
) -> dict[str, Any]:
    """Sensitivity by the paper's protocol, with its standard error and the rate by token."""
    estimate = jaxsens.sensitivity(
        model, images, key=jax.random.key(seed), tokens=tokens, noise=noise, repeats=config.repeats
    )
    return {
        "sensitivity": estimate.value,
        "sensitivity_stderr": estimate.stderr,
        "per_token": estimate.per_token,
    }


def optimizer(
    name: str, learning_rate: float | None, paper: float, *, steps: int
) -> optax.GradientTransformation:
    """SGD at a constant rate, or Adam from 0.002, halved every 8 epochs of ``steps`` steps."""
    if name == "sgd":
        return optax.inject_hyperparams(optax.sgd)(learning_rate=learning_rate or paper)
    schedule = optax.exponential_decay(learning_rate or 0.002, 8 * steps, 0.5, staircase=True)
    return optax.inject_hyperparams(optax.adam)(learning_rate=schedule)
