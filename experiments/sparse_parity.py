"""Sparse parity: transformers learn the product of p of d bits (paper A, A.6).

Sensitivity is that of Eq. 1, divided by d: the share of bits whose flip changes the sign, on
uniform points. It leaves 0 or 1/2 for p/d while accuracy still looks like chance. Beside it stands
the Fourier weight of the learned sign on the parity itself.
"""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx
from jax import Array

import jaxsens
from experiments.run import report
from experiments.run.cli import Common, UserError, run
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, train_and_measure
from jaxsens import boolean
from jaxsens.data.algorithmic import sparse_parity
from jaxsens.losses import logistic
from jaxsens.measures.fourier import fourier_weight
from jaxsens.models.bit_transformer import READOUTS, BitTransformer
from jaxsens.training import Trainer

PAPER = (
    "50000,250,32,1e-3,123",
    "50000,250,32,1e-3,42",
    "50000,250,32,1e-3,0",
    "10000,100,64,1e-3,42",
    "5000,25,32,1e-4,42",
    "5000,50,32,1e-4,42",
)
EXACT = 16  # bits up to which the final network is evaluated on the whole cube


@dataclasses.dataclass(frozen=True)
class Setting:
    """Training points, batch size, width of the network, step size of Adam, seed."""

    train: int
    batch: int
    width: int
    learning_rate: float
    seed: int

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """From "train,batch,width,learning rate,seed"; UserError for anything else."""
        try:
            *counts, rate, seed = text.split(",")
            train, batch, width = map(int, counts)
            setting = cls(train, batch, width, float(rate), int(seed))
        except ValueError:
            raise UserError(
                "--setting takes training points, batch, width, learning rate and seed, as in "
                f"{PAPER[0]}, got {text!r}"
            ) from None
        if not (1 <= batch <= train and width >= 4 and width % 4 == 0 and setting.seed >= 0):
            raise UserError(
                f"--setting {text} needs 1 <= batch <= training points, a width that 4 heads "
                "divide, and a seed of 0 or more"
            )
        if not setting.learning_rate > 0:
            raise UserError(f"--setting {text} needs a learning rate greater than 0")
        return setting

    @property
    def name(self) -> str:
        """What seeds that are trained together have in common."""
        sizes = f"{self.train} points, batch {self.batch}, width {self.width}"
        return f"{sizes}, lr {self.learning_rate:g}"


@dataclasses.dataclass(frozen=True)
class Config(Common):
    """Train transformers on sparse parities and record sensitivity and Fourier weight."""

    data: tyro.conf.Suppress[tyro.conf.Fixed[str]] = "generated"
    seeds: tyro.conf.Suppress[tyro.conf.Fixed[int]] = 1
    seed: int = 0
    """Seed of the data: points and relevant bits, the same for all settings."""
    setting: tuple[str, ...] = PAPER
    """Training points, batch, width, learning rate, seed; one word for each network."""
    bits: int = 40
    """d, the bits of a point."""
    relevant: int = 4
    """p, how many of them the label is the product of."""
    epochs: int = 1000
    """Epochs of training, at most."""
    until: float = 1.0
    """Stop when the test accuracy of all networks trained together is at least this (2: never)."""
    every: int = 1
    """Measure after this many epochs."""
    save_every: int = 10
    """Save a checkpoint after this many epochs; a multiple of --every."""
    bits_per_token: int = 1
    """How many neighbouring bits make a token."""
    readout: str = "cls"
    """Where the answer is read: cls (a token in front) or mean (over the tokens)."""
    dropout: float = 0.1
    """Share of what each layer adds that is dropped in training."""
    gain: float = 1.0
    """Factor on Xavier's initial weights."""
    test: int = 10000
    """Points to test on."""
    samples: int = 10000
    """Uniform points for sensitivity (one random bit of each, in training) and Fourier weight."""
    final_samples: int = 2000
    """Uniform points for the final sensitivity, with every bit flipped in turn."""

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        super().check()
        if not self.setting:
            raise UserError("--setting needs at least one setting")
        if not 1 <= self.relevant < self.bits:
            raise UserError(
                f"--relevant must be at least 1 and below --bits ({self.bits}), got {self.relevant}"
            )
        self.require_counts("epochs", "every", "test", "final_samples")
        if self.samples < 2:
            raise UserError(f"--samples must be at least 2, got {self.samples}")
        if self.save_every < 1 or self.save_every % self.every:
            raise UserError(
                f"--save-every must be a multiple of --every ({self.every}), got {self.save_every}"
            )
        if self.bits_per_token < 1 or self.bits % self.bits_per_token:
            raise UserError(
                f"--bits-per-token must divide --bits ({self.bits}), got {self.bits_per_token}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout must be in [0, 1), got {self.dropout}")
        self.require_positive("gain")
        if self.readout not in READOUTS:
            raise UserError(f"--readout must be {' or '.join(READOUTS)}, got {self.readout}")


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figure."""
    config.check()
    if config.smoke:
        config = dataclasses.replace(
            config,
            setting=("400,50,16,3e-3,0", "400,50,16,3e-3,1"),
            bits=8,
            relevant=2,
            epochs=6,
            save_every=2,
            test=200,
            samples=200,
            final_samples=100,
        )
    settings = [Setting.parse(text) for text in config.setting]
    if len(set(settings)) < len(settings):
        raise UserError("--setting names a setting twice")
    record = RunRecord.create("sparse_parity", config, out=config.out, resume=config.resume)
    print(f"record in {record.directory}")
    started = time.monotonic()
    points_key = jax.random.key(config.seed + 1)
    points = np.asarray(
        jax.random.rademacher(points_key, (max(config.samples, config.final_samples), config.bits))
    ).astype(np.float32)
    finals: list[dict[str, Any]] = []
    for name in dict.fromkeys(setting.name for setting in settings):
        group = [setting for setting in settings if setting.name == name]
        finals += train_together(config, group, points, record)
    record.finish({"final": finals}, seconds=time.monotonic() - started)
    draw(record)
    print(summary(record))


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
        loss=logistic,
    )
    trained = train_and_measure(
        shared.name,
        trainer,
        train,
        test,
        seeds=seeds,
        schedule=Schedule(
            config.epochs, config.every, shared.train // shared.batch, config.save_every
        ),
        measures=[
            functools.partial(measure, points=points[: config.samples], places=places, tokens=1)
        ],
        record=record,
        until=lambda lines: all(line["test_accuracy"] >= config.until for line in lines),
    )
    finals = []
    for seed, model in zip(seeds, trained, strict=True):
        final = {**record.last(shared.name, seed), "relevant": places}
        final |= measure(
            model,
            jax.random.key(seed),
            points=points[: config.final_samples],
            places=places,
            tokens=None,
        )
        if config.bits <= EXACT:
            table = boolean.evaluate(model, config.bits)
            final["sensitivity_exact"] = float(boolean.normalised_sensitivity(table))
            target = np.asarray(boolean.parity(config.bits, places), float)
            final["fourier_weight_exact"] = float(np.mean(np.asarray(table) * target) ** 2)
        finals.append(final)
    return finals


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


def measure(
    model: nnx.Module,
    key: Array,
    *,
    points: np.ndarray,
    places: tuple[int, ...],
    tokens: int | None,
) -> dict[str, float]:
    """Sensitivity divided by d, and the weight on the parity, with standard errors."""
    estimate = jaxsens.sensitivity(
        model,
        points,
        key=key,
        tokens=jaxsens.Bits(),
        noise=jaxsens.Flip(),
        tokens_per_example=tokens,
    )
    signs = np.concatenate(
        [np.asarray(_signs(model, part)) for part in np.array_split(points, len(points) // 500 + 1)]
    )
    weight, stderr = fourier_weight(signs, points[:, places].prod(1))
    return {
        "sensitivity": estimate.value,
        "sensitivity_stderr": estimate.stderr,
        "fourier_weight": weight,
        "fourier_weight_stderr": stderr,
    }


@jax.jit
def _signs(model: BitTransformer, points: Array) -> Array:
    return jnp.sign(model(points))


def summary(record: RunRecord) -> str:
    """The table: setting, epochs, accuracies, sensitivity and Fourier weight ± standard error."""
    config, rows = record.read("config.json"), []
    for line in record.read("result.json")["final"]:
        exact = line.get("sensitivity_exact")
        rows.append(
            [
                f"{line['model']}, seed {line['seed']}",
                str(line["epoch"]),
                *[f"{100 * line[f'{part}_accuracy']:.2f}" for part in ("train", "test")],
                f"{line['sensitivity']:.4f} ± {line['sensitivity_stderr']:.4f}"
                + ("" if exact is None else f" (exact {exact:.4f})"),
                f"{line['fourier_weight']:.3f} ± {line['fourier_weight_stderr']:.3f}",
            ]
        )
    goal = config["relevant"] / config["bits"]
    header = ["setting", "epochs", "train acc. %", "test acc. %"]
    return report.table([*header, f"sensitivity (p/d = {goal:.4g})", "Fourier weight"], rows)


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run from its record."""
    config, lines = record.read("config.json"), record.read_metrics()
    runs = list(dict.fromkeys((line["model"], line["seed"]) for line in lines))
    fields = {
        "test_accuracy": "test accuracy",
        "sensitivity": "sensitivity / d",
        "fourier_weight": "Fourier weight on the parity",
    }
    figure, panels = report.figure(3.2 * len(fields), 3.4, ncols=len(fields))
    for panel, (field, title) in zip(panels, fields.items(), strict=True):
        for i, (name, seed) in enumerate(runs):
            epochs, values = report.curve(lines, field, model=name, seed=seed)
            (drawn,) = panel.plot(epochs, values[0], color=f"C{i}", label=f"{name}, seed {seed}")
            if f"{field}_stderr" in lines[0]:
                _, errors = report.curve(lines, f"{field}_stderr", model=name, seed=seed)
                panel.fill_between(
                    epochs,
                    values[0] - 1.96 * errors[0],
                    values[0] + 1.96 * errors[0],
                    color=drawn.get_color(),
                    alpha=0.25,
                    linewidth=0,
                )
        panel.set(xlabel="epoch", title=title)
    panels[1].axhline(config["relevant"] / config["bits"], color="k", linewidth=0.8, linestyle=":")
    panels[0].set_ylim(0.45, 1.02)
    panels[1].set_ylim(bottom=0)
    panels[2].set_ylim(-0.05, 1.05)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7)
    report.save(figure, record.directory / "curves.png")


if __name__ == "__main__":
    run(main, Config, prog="experiments.sparse_parity")
