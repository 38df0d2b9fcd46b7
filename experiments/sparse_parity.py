"""Sparse parity: transformers learn the product of p of d bits (paper A, A.6).

Sensitivity is that of Eq. 1, divided by d: the share of bits whose flip changes the sign, on
uniform points. It leaves 0 or 1/2 for p/d while accuracy still looks like chance. Beside it stands
the Fourier weight of the learned sign on the parity itself.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

import jaxsens
from command.options import POSITIVE, Count, check_memory
from experiments.parity_setting import PAPER, Setting
from experiments.run.cli import UserError, run
from experiments.run.experiment import conduct
from experiments.run.measure import Measure, sensitivity
from experiments.run.options import Run, check_seed, option
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, finals, train_and_measure
from jaxsens import boolean
from jaxsens.data.algorithmic import sparse_parity
from jaxsens.losses import logistic, plain
from jaxsens.measures.blowup import layer_norm_blowup
from jaxsens.measures.fourier import fourier_weight
from jaxsens.measures.parameters import not_positions, parameter_norm
from jaxsens.models.bit_transformer import READOUTS, BitTransformer
from jaxsens.sharpness import average_direction
from jaxsens.training import Trainer

EXACT = 16  # bits up to which the final network is evaluated on the whole cube


@dataclasses.dataclass(frozen=True)
class Config(Run):
    """Train transformers on sparse parities and record sensitivity and Fourier weight."""

    seed: int = 0
    """Seed of the data: points and relevant bits, the same for all settings."""
    setting: tuple[str, ...] = PAPER
    """Training points, batch, width, learning rate, seed; one word for each network."""
    bits: Annotated[int, Count(least=2, most=4096)] = 40
    """d, the bits of a point."""
    relevant: int = 4
    """p, how many of them the label is the product of."""
    epochs: Annotated[int, Count()] = 1000
    """Epochs of training, at most."""
    until: float = 1.0
    """Stop when the test accuracy of all networks trained together is at least this (2: never)."""
    every: Annotated[int, Count()] = 1
    """Measure after this many epochs."""
    save_every: Annotated[int, Count(least=0)] = 10
    """Save a checkpoint after this many epochs; a multiple of --every."""
    bits_per_token: int = 1
    """How many neighbouring bits make a token."""
    readout: str = "cls"
    """Where the answer is read: cls (a token in front) or mean (over the tokens)."""
    dropout: float = 0.1
    """Share of what each layer adds that is dropped in training."""
    gain: Annotated[float, POSITIVE] = 1.0
    """Factor on Xavier's initial weights."""
    test: Annotated[int, Count()] = 10000
    """Points to test on."""
    samples: Annotated[int, Count(least=2)] = 10000
    """Uniform points for sensitivity (one random bit of each, in training) and Fourier weight."""
    final_samples: Annotated[int, Count()] = 2000
    """Uniform points for the final sensitivity, with every bit flipped in turn."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        "setting": ("400,50,16,3e-3,0", "400,50,16,3e-3,1"),
        "bits": 8,
        "relevant": 2,
        "epochs": 6,
        "save_every": 2,
        "test": 200,
        "samples": 200,
        "final_samples": 100,
    }

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        super().check()
        check_seed(self.seed)
        if not self.setting:
            raise UserError("--setting needs at least one setting")
        if not 1 <= self.relevant < self.bits:
            raise UserError(
                f"--relevant must be at least 1 and below --bits ({self.bits}), got {self.relevant}"
            )
        for name in ("test", "samples", "final_samples"):
            points = getattr(self, name)
            check_memory(
                8 * points * self.bits, option(name), points, f"points of {self.bits} bits"
            )
        self.require_multiples("every", "save_every")
        if not self.until > 0:
            raise UserError(f"--until must be greater than 0, got {self.until}")
        if self.bits_per_token < 1 or self.bits % self.bits_per_token:
            raise UserError(
                f"--bits-per-token must divide --bits ({self.bits}), got {self.bits_per_token}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout must be in [0, 1), got {self.dropout}")
        if self.readout not in READOUTS:
            raise UserError(f"--readout must be {' or '.join(READOUTS)}, got {self.readout}")
        settings = [Setting.parse(text) for text in self.setting]
        for setting in settings:
            what = f"points of {self.bits} bits"
            check_memory(8 * setting.train * self.bits, "--setting", setting.train, what)
        if len(set(settings)) < len(settings):
            raise UserError("--setting names a setting twice")
        shared = {(setting.name, dataclasses.replace(setting, seed=0)) for setting in settings}
        if len({name for name, _ in shared}) < len(shared):
            raise UserError(
                "--setting names learning rates that print alike, and would be trained as one; "
                "take one of them, or rates that differ more"
            )


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figure."""
    conduct("sparse_parity", config, load=load, work=work)


def load(config: Config) -> tuple[dict[str, list[Setting]], str]:
    """The settings by name: those that differ in nothing but the seed are trained together."""
    groups: dict[str, list[Setting]] = {}
    for setting in map(Setting.parse, config.setting):
        groups.setdefault(setting.name, []).append(setting)
    return groups, f"training {len(config.setting)} networks on {config.bits} bits"


def work(config: Config, groups: dict[str, list[Setting]], record: RunRecord) -> dict[str, Any]:
    """Train one group after the other."""
    points_key = jax.random.key(config.seed + 1)
    points = np.asarray(
        jax.random.rademacher(points_key, (max(config.samples, config.final_samples), config.bits))
    ).astype(np.float32)
    trained = [train_together(config, group, points, record) for group in groups.values()]
    return {"final": [line for lines in trained for line in lines]}


def train_together(
    config: Config, group: list[Setting], points: np.ndarray, record: RunRecord
) -> list[dict[str, Any]]:
    """Train the settings that differ in nothing but the seed; their final values."""
    shared, seeds = group[0], [setting.seed for setting in group]
    train, test, places = sparse_parity(
        config.bits,
        config.relevant,
        train=shared.train,
        test=config.test,
        key=jax.random.key(config.seed),
    )
    trainer = Trainer(
        [build(config, setting) for setting in group],
        optax.adam(shared.learning_rate),
        batch_size=shared.batch,
        loss=plain(logistic),
    )
    trained = train_and_measure(
        shared.name,
        trainer,
        {"train": train, "test": test},
        seeds=seeds,
        schedule=Schedule.epochs(
            config.epochs, config.every, shared.train // shared.batch, config.save_every
        ),
        measures=measures(points[: config.samples], places, tokens=1),
        record=record,
        until=lambda lines: all(line["test_accuracy"] >= config.until for line in lines),
    )
    final = [
        *measures(points[: config.final_samples], places, tokens=None),
        *flatness(points[: config.final_samples], places),
    ]
    lines = finals(shared.name, trained, seeds=seeds, measures=final, record=record)
    for line, model in zip(lines, trained, strict=True):
        line["relevant"] = places
        if config.bits <= EXACT:
            table = boolean.evaluate(model, config.bits)
            line["sensitivity_exact"] = float(boolean.normalised_sensitivity(table))
            target = np.asarray(boolean.parity(config.bits, places), float)
            line["fourier_weight_exact"] = float(np.mean(np.asarray(table) * target) ** 2)
    return lines


def build(config: Config, setting: Setting) -> BitTransformer:
    """The network of one setting."""
    return BitTransformer(
        bits=config.bits,
        dim=setting.width,
        bits_per_token=config.bits_per_token,
        readout=config.readout,
        dropout=config.dropout,
        gain=config.gain,
        rngs=nnx.Rngs(setting.seed),
    )


def measures(
    points: np.ndarray, places: tuple[int, ...], *, tokens: int | None
) -> tuple[Measure, Measure]:
    """Sensitivity divided by d, and the weight on the parity, with standard errors.

    ``tokens`` random bits of each point are flipped, None for every one.
    """
    character = points[:, places].prod(1)
    parts = np.array_split(points, len(points) // 500 + 1)

    def weight(model: nnx.Module, key: Array) -> dict[str, float]:
        signs = np.concatenate([np.asarray(_signs(model, part)) for part in parts])
        value, stderr = fourier_weight(signs, character)
        return {"": value, "stderr": stderr}

    flipped = sensitivity(
        "sensitivity",
        points,
        tokens=jaxsens.Bits(),
        noise=jaxsens.Flip(),
        decision="sign",
        tokens_per_example=tokens,
    )
    return flipped, Measure("fourier_weight", weight)


def flatness(points: np.ndarray, places: tuple[int, ...]) -> list[Measure]:
    """The quantities that paper B ties to low sensitivity: is the bias tied to them here too?

    Mean increase of the logistic loss under noise of std 0.02 on all weights but the positions,
    layer-norm blow-up, and the norm of those weights.
    """
    labels = points[:, places].prod(1)
    return [
        Measure(
            "sharpness",
            lambda model, key: average_direction(
                _loss, model, points, labels, key=key, where=not_positions
            ),
        ),
        Measure("blowup", lambda model, key: layer_norm_blowup(model.by_token, points).value),
        Measure("norm", lambda model, key: parameter_norm(model, not_positions)),
    ]


def _loss(model: BitTransformer, points: Array, labels: Array) -> Array:
    return logistic(model(points), labels)


@jax.jit
def _signs(model: BitTransformer, points: Array) -> Array:
    return jnp.sign(model(points))


if __name__ == "__main__":
    run(main, Config, prog="experiments.sparse_parity")
