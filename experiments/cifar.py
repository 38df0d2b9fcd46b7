"""CIFAR-10: two vision transformers, two convolutional networks and ConvMixer (paper A, Section 5).

All are trained by SGD, batch 100, each at its own rate; a token is a patch of 4 x 4 pixels and the
noise has variance 1. The paper finds the transformers an order of magnitude less sensitive at equal
training accuracy (Fig. 4); the last column of the table is what it prints.
"""

import dataclasses

from experiments.run.cli import run
from experiments.vision import options, sweep
from experiments.vision import run as vision
from experiments.vision.options import Architecture, Task

TASK = Task(
    experiment="cifar",
    data="cifar10",
    patch_size=4,
    variance=1.0,
    places=("Fig. 4", "Table 4"),
    architectures={
        "vit": Architecture("ViT-small", "vit", 0.1),
        "vit-simple": Architecture("ViT-simple", "vit-simple", 0.2),
        "convmixer": Architecture("ConvMixer", "convmixer", 0.06),
        "resnet18": Architecture("ResNet-18", "resnet18", 0.001),
        "densenet121": Architecture("DenseNet-121", "densenet121", 0.005),
    },
    whole_variance=0.025,
)


@dataclasses.dataclass(frozen=True)
class Config(options.Config):
    """Train the paper's five networks on CIFAR-10 and measure their sensitivity.

    With --data embedded it trains them on photo-crops instead: which of ten photographs is a 32 x
    32 crop from.
    """

    arch: tuple[str, ...] = ("all",)
    """Which networks, one after the other: all, or some of vit, vit-simple, convmixer, resnet18,
    densenet121."""
    whole_input: bool = False
    """Also measure with noise of variance 0.025 on the whole image (Table 4)."""


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figures."""
    vision.main(config, TASK, final=sweep.final)


if __name__ == "__main__":
    run(main, Config, prog="experiments.cifar")
