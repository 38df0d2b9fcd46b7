"""Flatness: what moves in a trained network when its weights are nudged (paper A, Table 2).

Trains networks of a vision task, or takes those of finished runs, and measures on training images
ShOp and ShPred, the mean increase of the loss in a random direction (paper B), the largest found in
a ball, and the largest eigenvalue of the Hessian.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
from flax import nnx
from jax import Array

from command.options import POSITIVE, Count
from experiments.robust.finished import Trained
from experiments.robust.networks import (
    Found,
    Networks,
    find,
    flat_fields,
    flat_part,
    smallest_networks,
    train_all,
)
from experiments.run.cli import run
from experiments.run.experiment import conduct
from experiments.run.measure import sensitivity
from experiments.run.record import RunRecord
from experiments.vision import options
from jaxsens import Patches, curvature, sharpness
from jaxsens.losses import cross_entropy

CODE_SIZE = 0.05


@dataclasses.dataclass(frozen=True)
class Config(Networks):
    """ShOp, ShPred, sharpness of the loss and curvature of the networks of a vision task."""

    intervention: tuple[str, ...] = ("none", "regularisation")
    """What is done in training against sensitivity."""
    variant: Literal["text", "code", "both"] = "text"
    """text: ShOp and ShPred as defined, mean over the logits. code: as in the published code, the
    sum over the logits, nudges of standard deviation 0.05, dropout on in the nudged network."""
    direction_size: Annotated[float, POSITIVE] = 0.02
    """Standard deviation of the nudges for the mean increase of the loss."""
    radius: Annotated[float, POSITIVE] = 0.05
    """Of the ball around the weights in which the largest increase is looked for."""
    ascent_steps: Annotated[int, Count(most=10**5)] = 10
    """Steps of ascent in the ball."""
    hessian_examples: Annotated[int, Count(least=0)] = 100
    """Training images for the eigenvalue of the Hessian, at most; 0 leaves it out."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        **options.Config.SMALLEST,
        "flat_examples": 20,
        "flat_draws": 2,
        "ascent_steps": 2,
        "hessian_examples": 4,
    }

    def smallest(self) -> Mapping[str, Any]:
        """One architecture shows everything at work."""
        return self.SMALLEST | smallest_networks(self)


def main(config: Config) -> None:
    """Train or take networks, measure them, and leave a run record with its figure."""
    conduct("flatness", config, load=find, work=work, arrays=lambda found: found.images.splits)


def work(config: Config, found: Found, record: RunRecord) -> dict[str, Any]:
    """Train and measure."""
    networks = train_all(config, found, record)
    return {
        "data": found.images.described(),
        "final": [measured(config, found, network) for network in networks],
    }


def measured(config: Config, found: Found, network: Trained) -> dict[str, Any]:
    """The line of a network with everything that is measured of it."""
    model, line = network.model, dict(network.line)
    key, images = jax.random.key(line["seed"]), found.images
    few = flat_part(config, images)
    noise = next(iter(images.noises.values()))
    measure = sensitivity(
        "sensitivity",
        images.measured,
        tokens=Patches(images.task.patch_size),
        noise=noise,
        repeats=config.repeats,
    )
    line |= measure(model, key)
    settings: dict[str, Any] = {"key": key, "draws": config.flat_draws, "decision": "argmax"}
    if config.variant != "code":
        defined = sharpness.outputs(model, few.inputs, size=config.flat_size, **settings)
        line |= flat_fields(defined)
    if config.variant != "text":
        training = nnx.view(model, deterministic=False, raise_if_not_found=False)
        as_coded = sharpness.outputs(
            training, few.inputs, size=CODE_SIZE, reduce="sum", nudged=with_dropout, **settings
        )
        line |= flat_fields(as_coded, "_code")
    labelled = few.inputs, few.labels
    rise = sharpness.average_direction(
        loss, model, *labelled, key=key, size=config.direction_size, draws=config.flat_draws
    )
    line |= {"direction": rise.value, "direction_stderr": rise.stderr}
    line["worst"] = curvature.worst_case(
        loss, model, *labelled, key=key, radius=config.radius, steps=config.ascent_steps
    )
    if config.hessian_examples:
        part = few.take(slice(config.hessian_examples))
        line["eigenvalue"] = curvature.hessian_eigenvalue(
            loss, model, part.inputs, part.labels, key=key
        )
    return line | network.about


def loss(model: Any, inputs: Array, labels: Array) -> Array:
    """Cross-entropy of each example."""
    return cross_entropy(model(inputs), labels)


def with_dropout(model: Any, inputs: Array, key: Array) -> Array:
    """The outputs in training mode."""
    return model(inputs, rngs=nnx.Rngs(dropout=key))


if __name__ == "__main__":
    run(main, Config, prog="experiments.flatness")
