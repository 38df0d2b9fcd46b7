"""What is done in training against sensitivity, by the names that --intervention takes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from command.options import VARIANCE, Each, Number
from experiments.run.options import Options
from jaxsens import Gaussian, Patches
from jaxsens.data.noisy_copies import NoisyCopies
from jaxsens.data.split import Split
from jaxsens.losses import Loss, Metric, accuracy, cross_entropy, plain
from jaxsens.regularised import Regularised, Squares
from jaxsens.training import Data

METRICS: dict[str, Metric] = {"loss": cross_entropy, "accuracy": accuracy}


@dataclasses.dataclass(frozen=True)
class Settings(Options):
    """How strong the interventions are. The defaults are the paper's; several make a network of
    each."""

    regularisation_strength: Annotated[
        tuple[float, ...], Each(least=1), Number(least=0, below=1)
    ] = (0.25,)
    """Weight p of the squared change of the logits, beside 1 - p of the cross-entropy."""
    regularisation_variance: Annotated[float, VARIANCE] = 1.0
    """Variance of the noise on one random patch, on pixels in [-1, 1]."""
    regularisation_patch: Literal["grid", "anywhere"] = "grid"
    """grid: one of the patches that sensitivity perturbs; anywhere: a square at a random corner,
    never on the last row or column, as in the published code."""
    copy_variance: Annotated[tuple[float, ...], Each(least=1), VARIANCE] = (0.1,)
    """Variance of the noise on the copies of --intervention augmentation, on pixels in [-1, 1]. The
    paper's 0.1 may be meant for pixels in [0, 1]: that is 0.4 here."""
    copies: Literal["added", "instead"] = "added"
    """added: an epoch has every image and a noisy copy of it, and twice the steps; instead: the
    copies alone. Their noise is drawn afresh in every epoch."""


@dataclasses.dataclass(frozen=True)
class Intervention:
    """How training differs from plain cross-entropy on the data as they are.

    ``levels(config)`` are how strong it is, a network for each. ``loss(config, task, level)`` makes
    the loss, ``data(config, task, train, level)`` the training data. ``rate`` multiplies the
    paper's step size of SGD: it prints 0.2 and 0.16 for ViT-small, which is trained at 0.1
    otherwise, and says nothing of other networks. Evaluation and measures always see the data and
    metrics of every other network.
    """

    levels: Callable[[Any], Sequence[float | None]] = lambda config: (None,)
    loss: Callable[[Any, Any, Any], Loss] = lambda config, task, level: plain(cross_entropy)
    data: Callable[[Any, Any, Split, Any], Data] = lambda config, task, train, level: train
    rate: float = 1.0


def regularised(config: Any, task: Any, level: float) -> Regularised:
    """The loss of --intervention regularisation."""
    kind = Patches if config.regularisation_patch == "grid" else Squares
    return Regularised(
        kind(task.patch_size), Gaussian(config.regularisation_variance), strength=level
    )


def copied(config: Any, task: Any, train: Split, level: float) -> NoisyCopies:
    """The training data of --intervention augmentation."""
    return NoisyCopies(train, Gaussian(level), config.batch_size, added=config.copies == "added")


INTERVENTIONS: dict[str, Intervention] = {
    "none": Intervention(),
    "augmentation": Intervention(lambda config: config.copy_variance, data=copied, rate=2.0),
    "regularisation": Intervention(
        lambda config: config.regularisation_strength, loss=regularised, rate=1.6
    ),
}
