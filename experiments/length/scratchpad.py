"""PARITY with a scratchpad: an encoder-decoder writes the running parities (paper B, Fig. 11)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from command.options import POSITIVE, Count, check_memory
from experiments.length.networks import NORM, adamw
from experiments.length.options import (
    SMALL,
    Batch,
    Depth,
    Draws,
    Lengths,
    Samples,
    Sizes,
    Training,
    Width,
)
from experiments.run.experiment import conduct
from experiments.run.measure import Measure
from experiments.run.options import Run, Seeds
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, finals, train_and_measure
from jaxsens.data.batches import Fresh
from jaxsens.data.split import Split
from jaxsens.losses import plain
from jaxsens.measures.blowup import Blowup, layer_norm_blowup
from jaxsens.measures.parameters import not_positions
from jaxsens.models.scratchpad import ScratchpadTransformer, running_parities
from jaxsens.sharpness import average_direction
from jaxsens.training import Trainer

RIGHT = 0.999  # accuracy by itself above which a network has fitted, as in the paper
COUNTED = ("attention_norm", "mlp_norm", "norm1", "norm2")  # the authors' code leaves norm3 out


@dataclasses.dataclass(frozen=True)
class Config(Run, Seeds, Sizes, Training):
    """Train encoder-decoders to write running parities; sharpness, blow-up, norm by length."""

    lengths: Lengths = (4, 16, 32, 64)
    """Numbers of bits n."""
    width: Width = 32
    """Width: half of it is the token, half the position."""
    depth: Depth = 2
    """Blocks of the encoder, and of the decoder."""
    batch_size: Batch = 128
    """Strings a step, drawn afresh."""
    test: Annotated[int, Count(most=2**24)] = 1000
    """Strings that the loss is measured on."""
    noise: Annotated[float, POSITIVE] = 0.02
    """Standard deviation of the noise on the weights, all but the positions."""
    draws: Draws = 10
    """Draws of the noise."""
    samples: Samples = 500
    """Strings that sharpness, blow-up and the accuracy by itself are measured on."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        **SMALL,
        "lengths": (4,),
        "depth": 1,
        "seeds": 2,
    }

    def check(self) -> None:
        super().check()
        longest = max(self.lengths)
        scores = 8.0 * self.depth * self.heads * longest  # two attentions to each position, kept
        each = longest * (scores + 48.0 * self.width)
        check_memory(
            each * max(self.seeds * self.batch_size, 500),
            "--lengths",
            longest,
            f"--width {self.width}, --batch-size {self.batch_size}, --seeds {self.seeds}",
        )


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figure."""
    conduct("length_scratchpad", config, load=load, work=work)


def load(config: Config) -> tuple[list[int], str]:
    """The lengths, from short to long, and how many networks that makes."""
    lengths = sorted(set(config.lengths))
    return lengths, f"training {len(lengths) * config.seeds} encoder-decoders"


def work(config: Config, lengths: list[int], record: RunRecord) -> dict[str, Any]:
    """Train one length after the other, all seeds of it together."""
    return {"final": [line for n in lengths for line in train(config, n, record)]}


def train(config: Config, n: int, record: RunRecord) -> list[dict[str, Any]]:
    """Train until all seeds have fitted, or the steps are over; their final values."""
    seeds = config.all_seeds()
    trainer = Trainer(
        [build(config, n, seed) for seed in seeds],
        adamw(config.learning_rate, config.weight_decay),
        loss=plain(mean_squares),
        metrics={"loss": mean_squares, "accuracy": right},
    )
    test = Strings(n, config.test)(jax.random.key(config.seed + 2**16))
    models = train_and_measure(
        f"scratchpad-{n}",
        trainer,
        {"test": jax.tree.map(np.asarray, test)},
        data=Fresh(Strings(n, config.batch_size)),
        seeds=seeds,
        schedule=Schedule(config.steps, config.every, 1, config.save_every),
        measures=[],
        record=record,
        until=functools.partial(stops, config),
    )
    lines = finals(
        f"scratchpad-{n}", models, seeds=seeds, measures=measures(config, n), record=record
    )
    return [{**line, "bits": n, "fitted": line["written_accuracy"] > RIGHT} for line in lines]


def stops(config: Config, lines: list[Mapping[str, Any]]) -> bool:
    """Whether the training ends early: all seeds have fitted, with the right bits given."""
    return config.stop and all(line["test_loss"] < config.fitted for line in lines)


def build(config: Config, n: int, seed: int) -> ScratchpadTransformer:
    """The network of one seed."""
    return ScratchpadTransformer(
        bits=n, dim=config.width, heads=config.heads, depth=config.depth, rngs=nnx.Rngs(seed)
    )


@dataclasses.dataclass(frozen=True)
class Strings:
    """``draw(key)``: uniform strings, the bits to be written given, and these as labels."""

    n: int
    batch: int

    def __call__(self, key: Array) -> Split:
        points = jax.random.rademacher(key, (self.batch, self.n), jnp.float32)
        written = running_parities(points)
        return Split({"points": points, "written": written}, (1 - written) / 2)


def mean_squares(answers: Float[Array, "B n"], labels: Float[Array, "B n"]) -> Float[Array, " B"]:
    """The squared error of each answer, their mean for each string."""
    return jnp.square(answers - labels).mean(axis=1)


def right(answers: Float[Array, "B n"], labels: Float[Array, "B n"]) -> Float[Array, " B"]:
    """The share of the answers of each string on the right side of 1/2."""
    return ((answers > 0.5) == (labels > 0.5)).mean(axis=1)


def measures(config: Config, n: int) -> list[Measure]:
    """The quantities of paper B, and whether the network by itself writes what is right.

    ``written_accuracy`` is the share of all bits that it writes, each from its own before;
    ``written_parity`` that of the last one, which is PARITY. Sharpness is the increase of the loss
    with the right bits given, in ±1 units.
    """
    given, labels = Strings(n, config.samples)(jax.random.key(config.seed + 2**17))

    def sharpness(model: Any, key: Array) -> dict[str, float]:
        found = average_direction(
            _loss, model, given, labels, key=key, size=config.noise, draws=config.draws,
            where=not_positions, batch_size=config.samples,
        )  # fmt: skip
        return {"": 4 * found.value, "stderr": 4 * found.stderr}

    def written(model: Any, key: Array) -> dict[str, float]:
        found = np.asarray(_right(model, given["points"], labels))
        return {"accuracy": float(found.mean()), "parity": float(found[:, -1].mean())}

    return [
        Measure("sharpness", sharpness),
        Measure("written", written),
        Measure("blowup", lambda model, key: blowup(model, given)),
        NORM,
    ]


def blowup(model: Any, given: Any) -> Blowup:
    """Layer-norm blow-up without the decoder's third norms and the final ones, as in the paper.

    The largest over all positions: every one is read.
    """
    found = layer_norm_blowup(model, given).layers
    return Blowup({name: v for name, v in found.items() if name.rpartition(".")[2] in COUNTED})


def _loss(model: Any, inputs: Any, labels: Array) -> Array:
    return mean_squares(model(inputs), labels)


@jax.jit
def _right(model: Any, points: Array, labels: Array) -> Array:
    return (model.write(points) > 0.5) == (labels > 0.5)
