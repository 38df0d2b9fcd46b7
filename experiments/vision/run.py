"""The vision experiments of paper A, Section 5: what CIFAR-10, Fashion-MNIST and SVHN share.

A `Task` is the paper's table of networks for one data set. Every network is trained alone by
SGD (or Adam) and measured every few epochs; at the end comes the paper's protocol, every patch of
each measured training image replaced ``repeats`` times.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jaxsens
from experiments.run.cli import UserError
from experiments.run.data import check_batch, part_to_measure, subset
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, sensitivity_measure, train_and_measure
from experiments.vision import report as vision_report
from experiments.vision.options import Config, Task, Variant, variants
from jaxsens import augment, models
from jaxsens.data import load
from jaxsens.training import Trainer

AUGMENTATIONS: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "crop": augment.crop,
    "crop-flip": augment.crop_and_flip,
}


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
    check_batch(config.batch_size, train)
    if config.curve_tokens > patches:
        raise UserError(f"--curve-tokens must be at most {patches}, got {config.curve_tokens}")
    measured = part_to_measure(train, config.sensitivity_examples)
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
        "measured": len(measured),
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
        # The paper's number stands beside its own network, noise and data alone.
        as_in_paper = (variant.name, sigma2[0], data.name) == (
            variant.arch,
            task.variance,
            task.data,
        )
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
                "paper": task.architectures[variant.arch].paper if as_in_paper else None,
            }
            if whole_input and task.whole_variance is not None:
                noise = jaxsens.Gaussian(task.whole_variance)
                final["whole"] = {
                    "sigma2": task.whole_variance,
                    **measure(model, measured, seed, jaxsens.Whole(), noise, config),
                    "paper": task.paper_whole.get(variant.arch) if as_in_paper else None,
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
