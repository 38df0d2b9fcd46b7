"""Fashion-MNIST: a small vision transformer, a CNN and two MLPs (paper A, Section 5, Fig. 18).

All are trained by SGD, batch 100, each at its own rate; a token is a patch of 4 x 4 pixels and the
noise has variance 5. The paper finds the transformer the least sensitive of the four.
"""

import dataclasses

from experiments.run.cli import run
from experiments.vision import options, sweep
from experiments.vision import run as vision
from experiments.vision.options import Architecture, Task

TASK = Task(
    experiment="fashion_mnist",
    data="fashion-mnist",
    patch_size=4,
    variance=5.0,
    places=("Fig. 18",),
    architectures={
        "vit": Architecture("ViT-small", "vit", 0.1, {"depth": 2, "heads": 8, "mlp_dim": 256}),
        "cnn": Architecture("CNN", "cnn", 0.005),
        "mlp": Architecture("MLP, LeakyReLU", "mlp", 0.1),
        "mlp-sigmoid": Architecture("MLP, sigmoid", "mlp", 0.5, {"activation": "sigmoid"}),
    },
)


@dataclasses.dataclass(frozen=True)
class Config(options.Config):
    """Train the paper's four networks on Fashion-MNIST and measure their sensitivity.

    --data embedded reads the files of Debian's package dataset-fashion-mnist.
    """

    arch: tuple[str, ...] = ("all",)
    """Which networks, one after the other: all, or some of vit, cnn, mlp, mlp-sigmoid."""


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figures."""
    vision.main(config, TASK, final=sweep.final)


if __name__ == "__main__":
    run(main, Config, prog="experiments.fashion_mnist")
