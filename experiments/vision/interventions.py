"""What is done in training against sensitivity, by the names that --intervention takes."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxsens.data.split import Split
from jaxsens.losses import Loss, Metric, accuracy, cross_entropy, plain

METRICS: dict[str, Metric] = {"loss": cross_entropy, "accuracy": accuracy}


@dataclasses.dataclass(frozen=True)
class Intervention:
    """How training differs from plain cross-entropy on the data as they are.

    ``loss(config, task)`` makes the loss, ``data(config, task, train)`` the training data;
    ``learning_rate`` takes the place of the paper's for the network. Evaluation and measures always
    see the data and metrics of every other network.
    """

    loss: Callable[[Any, Any], Loss] = lambda config, task: plain(cross_entropy)
    data: Callable[[Any, Any, Split], Split] = lambda config, task, train: train
    learning_rate: float | None = None


INTERVENTIONS: dict[str, Intervention] = {"none": Intervention()}
