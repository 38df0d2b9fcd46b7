"""Does low sensitivity cause robustness? Boolean targets, whose own sensitivity is known exactly.

A network learns f: {±1}^d -> {±1} from some of the strings, a share of their labels wrong, with the
sensitivity regularisation of paper A (Section 7) at several strengths. Everything is then exact, by
enumeration: the sensitivity of the network and of f, accuracy on clean strings, under noise that
flips each bit by itself, and under a structured change (a block of bits negated at once). What is
best under the noise is known too: the sign of the smoothed target.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from command.options import POSITIVE, SHARE, Choice, Count, Each, Number
from experiments.run.cli import UserError, run
from experiments.run.experiment import conduct
from experiments.run.measure import Measure
from experiments.run.options import Run, Seeds
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, finals, train_and_measure
from jaxsens import Bits, Flip, boolean
from jaxsens.data.batches import Shuffled
from jaxsens.data.split import Split
from jaxsens.losses import accuracy, logistic
from jaxsens.measures.association import bootstrap, slope
from jaxsens.models.layers import linear
from jaxsens.regularised import Regularised
from jaxsens.training import Trainer

TARGETS = ("majority", "tribes", "parity3", "random")


@dataclasses.dataclass(frozen=True)
class Config(Run, Seeds):
    """Set a network's sensitivity on a target of known sensitivity, and see what becomes robust."""

    target: Annotated[tuple[str, ...], Each(least=1), Choice(TARGETS)] = TARGETS
    """Functions of the bits: majority (of all but one where their number is even), tribes (groups
    of 3), parity3 (of the first three), random."""
    bits: Annotated[int, Count(least=4, most=16)] = 10
    """d; every string of d bits is looked at."""
    strength: Annotated[tuple[float, ...], Each(least=1), Number(least=0, below=1)] = (
        *(0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 0.95),
    )
    """Strengths of the regularisation, a network for each and seed."""
    train_share: Annotated[float, SHARE] = 0.5
    """Share of the strings that are trained on; others for each seed."""
    wrong: Annotated[float, Number(least=0, below=0.5)] = 0.15
    """Share of the training labels that are wrong. Learning these by heart takes sensitivity beyond
    that of the target."""
    flip: Annotated[float, Number(above=0, below=0.5)] = 0.1
    """Probability that the noise flips a bit."""
    width: Annotated[int, Count(most=10**5)] = 256
    """Units in each of the two hidden layers."""
    epochs: Annotated[int, Count()] = 300
    """Epochs of training."""
    batch_size: Annotated[int, Count()] = 64
    """Strings a step of Adam."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Step size of Adam."""
    seeds: Annotated[int, Count(most=4096)] = 5
    """How many seeds to train together: seed, seed + 1, ..."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        "target": ("majority",),
        "bits": 6,
        "strength": (0.0, 0.9),
        "width": 16,
        "epochs": 20,
        "batch_size": 16,
        "seeds": 2,
    }

    def check(self) -> None:
        super().check()
        if self.batch_size > self.examples():
            raise UserError(
                f"--batch-size must be at most {self.examples()}, the number of training strings, "
                f"got {self.batch_size}"
            )

    def examples(self) -> int:
        """How many strings are trained on."""
        return max(2, round(self.train_share * 2**self.bits))


class Net(nnx.Module):
    """Two hidden layers of ReLU, one output."""

    def __init__(self, bits: int, width: int, *, rngs: nnx.Rngs) -> None:
        sizes = (bits, width, width, 1)
        self.layers = nnx.List(
            [linear(a, b, rngs=rngs, dtype=jnp.float32) for a, b in itertools.pairwise(sizes)]
        )

    def __call__(
        self, x: Float[Array, "n d"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, " n"]:
        for layer in list(self.layers)[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)[:, 0]


def main(config: Config) -> None:
    """Train, enumerate, and leave a run record with its figure."""
    conduct("known_sensitivity", config, load=load, work=work)


def load(config: Config) -> tuple[dict[str, np.ndarray], str]:
    """The tables (2^d,) of the targets, -1 and 1."""
    tables = {name: np.asarray(table(name, config.bits), np.int8) for name in config.target}
    return tables, f"training on {config.examples()} of {2**config.bits} strings"


def table(name: str, bits: int) -> Any:
    """The table of a target."""
    if name == "majority":
        odd = bits - (bits + 1) % 2
        return jnp.repeat(boolean.majority(odd), 2 ** (bits - odd))
    if name == "tribes":  # of all bits but what does not fill a tribe
        whole = bits - bits % 3
        return jnp.repeat(boolean.tribes(whole, 3), 2 ** (bits - whole))
    if name == "parity3":
        return boolean.parity(bits, range(3))
    return boolean.random(bits, key=jax.random.key(2024))


def work(config: Config, tables: dict[str, np.ndarray], record: RunRecord) -> dict[str, Any]:
    """Every target at every strength."""
    found, targets = [], {}
    for name, target in tables.items():
        targets[name] = known(target, config.flip)
        lines = [
            line
            for strength in config.strength
            for line in trained(config, name, target, strength, record)
        ]
        targets[name]["slopes"] = slopes(lines, targets[name])
        targets[name]["contrasts"] = contrasts(lines)
        found += lines
    return {"final": found, "targets": targets}


def trained(
    config: Config, name: str, target: np.ndarray, strength: float, record: RunRecord
) -> list[dict[str, Any]]:
    """The final lines of all seeds at one strength."""
    seeds = config.all_seeds()
    cube = np.asarray(boolean.cube(config.bits))
    parts = [learned(config, target, seed) for seed in seeds]
    # Each seed has data of its own, which trainers call per_seed.
    train = jax.tree.map(lambda *a: np.stack(a), *parts)
    source = Shuffled(train, config.batch_size, per_seed=True)
    trainer = Trainer(
        [Net(config.bits, config.width, rngs=nnx.Rngs(seed)) for seed in seeds],
        optax.adam(config.learning_rate),
        batch_size=config.batch_size,
        loss=Regularised(Bits(), Flip(), strength=strength, loss=logistic),
        metrics={"loss": logistic, "accuracy": accuracy},
    )
    label = f"{name} {strength:g}"
    models = train_and_measure(
        label,
        trainer,
        {"train": Split(cube, target.astype(np.float32))},
        data=source,
        seeds=seeds,
        schedule=Schedule.epochs(config.epochs, config.epochs, source.steps_per_epoch),
        measures=[],
        record=record,
    )
    measure = Measure("exact", lambda model, key: exact(model, target, config))
    final = finals(label, models, seeds=seeds, measures=[measure], record=record)
    return [
        {k.removeprefix("exact_"): v for k, v in line.items()}
        | {"target": name, "strength": strength}
        for line in final
    ]


def learned(config: Config, target: np.ndarray, seed: int) -> Split:
    """The strings that a seed learns from, some of their labels wrong."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(target))[: config.examples()]
    labels = target[chosen].astype(np.float32)
    labels[: round(config.wrong * len(labels))] *= -1
    return Split(np.asarray(boolean.cube(config.bits))[chosen], labels)


def exact(model: Any, target: np.ndarray, config: Config) -> dict[str, float]:
    """What a network decides of every string, and of every string under every change."""
    return judged(np.asarray(boolean.evaluate(model, config.bits)), target, config.flip)


def judged(decided: np.ndarray, target: np.ndarray, flip: float) -> dict[str, float]:
    """Sensitivity of a table, and how often it is right of clean and of changed strings.

    ::

        noise     Pr_{x, y}[ g(y) = f(x) ] = (1 + sum_U (1 - 2 flip)^|U| f_hat(U) g_hat(U)) / 2
        block     mean over the d cyclic blocks B of d/3 bits of Pr_x[ g(x, B negated) = f(x) ]

    """
    bits = len(target).bit_length() - 1
    f, g = (boolean.fourier_coefficients(t.astype(np.int8)) for t in (target, decided))
    noise = (1 + ((1 - 2 * flip) ** boolean.set_sizes(bits) * f * g).sum()) / 2
    index = np.arange(len(target))
    blocks = [sum(1 << ((start + i) % bits) for i in range(bits // 3)) for start in range(bits)]
    block = np.mean([(decided[index ^ mask] == target).mean() for mask in blocks])
    return {
        "sensitivity": float(boolean.normalised_sensitivity(decided)),
        "clean": float((decided == target).mean()),
        "noise": float(noise),
        "block": float(block),
    }


def known(target: np.ndarray, flip: float) -> dict[str, Any]:
    """What is true of the target, and of the predictor that is best under the noise."""
    bits = len(target).bit_length() - 1
    smooth = boolean.fourier_coefficients(target) * (1 - 2 * flip) ** boolean.set_sizes(bits)
    best = np.where(
        np.asarray(boolean.walsh_hadamard(jnp.asarray(smooth, jnp.float32))) >= 0, 1, -1
    )
    return {"itself": judged(target, target, flip), "best": judged(best, target, flip)}


def contrasts(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each strength changes against the weakest, paired by seed: (mean, standard error)."""
    by_strength: dict[float, dict[int, dict[str, Any]]] = {}
    for line in lines:
        by_strength.setdefault(line["strength"], {})[line["seed"]] = line
    weakest = by_strength.pop(min(by_strength))
    found = []
    for strength, mine in sorted(by_strength.items()):
        change = {
            name: np.array([mine[seed][name] - weakest[seed][name] for seed in weakest])
            for name in ("sensitivity", "clean", "noise", "block")
        }
        found.append(
            {"strength": strength}
            | {name: (v.mean(), standard_error(v)) for name, v in change.items()}
        )
    return found


def standard_error(values: np.ndarray) -> float:
    """Of the mean of independent values; NaN for one."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def slopes(lines: list[dict[str, Any]], target: Mapping[str, Any]) -> dict[str, Any]:
    """Slopes of accuracies on sensitivity, above the target's own sensitivity and below it.

    Bootstrap over strengths, the seeds of one together.
    """
    own = target["itself"]["sensitivity"]
    found: dict[str, Any] = {}
    for side, chosen in (
        ("above", [line for line in lines if line["sensitivity"] > own]),
        ("below", [line for line in lines if line["sensitivity"] <= own]),
    ):
        if len(chosen) < 3:
            continue
        x = np.array([line["sensitivity"] for line in chosen])
        clusters = [line["strength"] for line in chosen]
        found[side] = {"models": len(chosen)} | {
            name: bootstrap(
                slope, x, np.array([line[name] for line in chosen]), clusters=clusters
            )._asdict()
            for name in ("clean", "noise", "block")
        }
    return found


if __name__ == "__main__":
    run(main, Config, prog="experiments.known_sensitivity")
