"""MNIST, digit < 5 or not: a small vision transformer against an MLP (paper A, Section 5, A.1).

Both are trained by SGD at learning rate 0.01, batch 50, on 28 x 28 digits cut into 16 patches of
7 x 7. Sensitivity replaces a patch by one drawn from the training data (as in the paper), and
beside it adds Gaussian noise to the patch. The paper gives no numbers here; it finds the
transformer less sensitive than the MLP.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import numpy as np

import jaxsens
from command.options import POSITIVE, VARIANCE, Count
from experiments.run.cli import UserError, run
from experiments.run.measure import Measure, sensitivity
from experiments.run.paired import Pairs
from experiments.vision import run as vision
from experiments.vision.options import Architecture, Task, Training, Variant
from experiments.vision.run import Images
from jaxsens.data.split import Split

PATCH = jaxsens.Patches(7)


def noises(config: "Config", train: Split) -> dict[str, jaxsens.Noise]:
    """A patch of the training data, as in the paper, and Gaussian noise."""
    return {
        "sensitivity": jaxsens.Replacement.from_data(PATCH, train.inputs),
        "sensitivity_gaussian": jaxsens.Gaussian(config.variance),
    }


TASK = Task(
    experiment="mnist",
    data="mnist",
    patch_size=PATCH.size,
    architectures={
        "vit": Architecture("ViT-small", "vit", 0.01, {"depth": 2, "heads": 1, "mlp_dim": 128}),
        "mlp": Architecture("MLP", "mlp", 0.01, {"hidden": (100,), "activation": "leaky_relu"}),
    },
    noises=noises,
    relabel=lambda labels: (labels < 5).astype(np.int32),
    classes=2,
)


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """Train a small ViT and an MLP on MNIST (digit < 5 or not) and measure their sensitivity."""

    arch: str = "all"
    """Which model: vit, mlp or all."""
    seeds: Annotated[int, Count(most=4096)] = 3
    """How many seeds to train together: seed, seed + 1, ..."""
    every: Annotated[int, Count()] = 10
    """Measure after this many epochs."""
    batch_size: Annotated[int, Count()] = 50
    """Images a step of SGD."""
    learning_rate: Annotated[float | None, POSITIVE] = 0.01
    """Step size; that of SGD has no momentum."""
    variance: Annotated[float, VARIANCE] = 1.0
    """Variance (not standard deviation) of the Gaussian noise, on pixels in [-1, 1]."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        "epochs": 2,
        "every": 1,
        "seeds": 2,
        "examples": 200,
        "sensitivity_examples": 20,
    }

    def check(self) -> None:
        super().check()
        self.architectures(TASK)

    def architectures(self, task: Task) -> list[str]:
        if self.arch not in (*task.architectures, "all"):
            raise UserError(f"--arch must be vit, mlp or all, got {self.arch}")
        return list(task.architectures) if self.arch == "all" else [self.arch]


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figures."""
    vision.main(config, TASK, final=final, extra=picture)


def final(config: Config, images: Images, variant: Variant, pairs: Pairs) -> list[Measure]:
    """The paper's protocol for both noises, with the rate of every patch."""
    settings: dict[str, Any] = {"tokens": PATCH, "repeats": config.repeats, "keep": ("per_token",)}
    return [
        pairs.watched(variant.name, sensitivity(name, images.measured, noise=noise, **settings))
        for name, noise in images.noises.items()
    ]


def picture(config: Config, images: Images) -> dict[str, Any]:
    """An image, and what each noise makes of one of its patches."""
    image, token, key = images.measured[0], 6, jax.random.key(0)
    replaced = {
        name: PATCH.replace(
            jax.numpy.asarray(image), token, functools.partial(noise, key=key), key
        )[..., 0]
        for name, noise in images.noises.items()
    }
    return {"picture": {"token": token, "image": image[..., 0], **replaced}}


if __name__ == "__main__":
    run(main, Config, prog="experiments.mnist")
