"""SVHN: a small vision transformer against ResNet-18 (paper A, Section 5, Fig. 19).

Both are trained by SGD, batch 100, each at its own rate; a token is a patch of 4 x 4 pixels and the
noise has variance 1. The paper finds the transformer less sensitive.
"""

import dataclasses

from experiments.run.cli import run
from experiments.vision import options, sweep
from experiments.vision import run as vision
from experiments.vision.options import Architecture, Task

TASK = Task(
    experiment="svhn",
    data="svhn",
    patch_size=4,
    variance=1.0,
    places=("Fig. 19",),
    architectures={
        "vit": Architecture("ViT-small", "vit", 0.1, {"mlp_dim": 512}),
        "resnet18": Architecture("ResNet-18", "resnet18", 0.0015),
    },
)


@dataclasses.dataclass(frozen=True)
class Config(options.Config):
    """Train ViT-small and ResNet-18 on SVHN and measure their sensitivity.

    With --data embedded it trains them on photo-crops instead: which of ten photographs is a 32 x
    32 crop from.
    """

    arch: tuple[str, ...] = ("all",)
    """Which networks, one after the other: all, or some of vit, resnet18."""


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figures."""
    vision.main(config, TASK, final=sweep.final)


if __name__ == "__main__":
    run(main, Config, prog="experiments.svhn")
