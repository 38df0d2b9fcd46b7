"""Sparse against frequent tokens: which of two sufficient cues does a single head use? (A, 4.1)

Each sequence holds a few copies of a sparse token that gives the label away, and frequent tokens
of which a small majority does. On the test set the sparse token votes for the wrong label:
accuracy 0 there means that the model went by the sparse token, 1 by the frequent ones.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

import jaxsens
from command.options import DRAWS, POSITIVE, Count, check_memory
from experiments.run.cli import UserError, run
from experiments.run.experiment import conduct
from experiments.run.measure import Measure, sensitivity
from experiments.run.options import Run, Seeds
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, finals, train_and_measure
from jaxsens.data.synthetic import KINDS, Rounding, SparseFrequent, vote
from jaxsens.losses import logistic, plain
from jaxsens.models.single_head import SingleHead
from jaxsens.training import Trainer

# n_s, n_d, n_f, m of Fig. 12 and Tables 1 and 3.
PAPER = ("3,1,3,6", "3,1,5,16", "3,1,7,28", "1,7,7,10", "1,7,17,20", "1,7,32,36")
# The paper prints no M. These are 2m + 3 for the largest m of a row, and give Table 3.
VOCABULARY = {"3,1": 59, "1,7": 75}


@dataclasses.dataclass(frozen=True)
class Config(Run, Seeds):
    """Train a single attention head on sparse and frequent tokens; see which cue it uses."""

    setting: tuple[str, ...] = PAPER
    """n_s,n_d,n_f,m: copies of the sparse token, majority of frequent ones, how many, of how many
    for each label. One word for each setting."""
    vocabulary: Annotated[int | None, Count(most=10**6)] = None
    """M, the number of tokens; None for 59 where n_s,n_d = 3,1 and 75 elsewhere."""
    seeds: Annotated[int, Count(most=4096)] = 5
    """How many seeds to train together: seed, seed + 1, ... They share the data."""
    rounding: Rounding = "down"
    """Where n_f + n_d is odd, how (n_f + n_d) / 2 becomes whole: down as the definition has it, up,
    or either in every example. Of the paper's settings 1,7,32,36 alone is odd, and its outcome is
    the paper's when rounded up."""
    epochs: Annotated[int, Count()] = 120
    """Epochs of training."""
    every: Annotated[int, Count()] = 5
    """Measure after this many epochs."""
    examples: Annotated[int, Count()] = 1000
    """Training examples; half as many for the test."""
    batch_size: Annotated[int, Count()] = 100
    """Examples a step of SGD."""
    learning_rate: Annotated[float, POSITIVE] = 0.1
    """Step size of SGD (not given in the paper)."""
    dim: Annotated[int, Count(most=2**14)] = 32
    """Width of queries, keys and values (not given in the paper)."""
    scale: Annotated[float, POSITIVE] = 0.01
    """Standard deviation of every initial parameter (not given in the paper)."""
    repeats: Annotated[int, DRAWS] = 5
    """Fresh replacements of every token, for the ideal predictors."""
    curve_tokens: Annotated[int, Count()] = 5
    """For the trained model, replace this many random tokens of each example, once."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        "seeds": 2,
        "epochs": 4,
        "every": 2,
        "examples": 200,
        "repeats": 1,
        "curve_tokens": 1,
    }

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        super().check()
        if not self.setting or len(set(self.setting)) < len(self.setting):
            raise UserError("--setting needs at least one setting, and each of them once")
        check_memory(
            16 * self.examples * SparseFrequent.length, "--examples", self.examples, "the examples"
        )
        if self.curve_tokens > SparseFrequent.length:
            raise UserError(
                f"--curve-tokens must be at most {SparseFrequent.length}, got {self.curve_tokens}"
            )
        if self.examples < max(2, self.batch_size):
            raise UserError(
                f"--examples must be at least 2 and --batch-size ({self.batch_size}), "
                f"got {self.examples}"
            )
        for text in self.setting:
            task(text, self.vocabulary, self.rounding)

    def smallest(self) -> Mapping[str, Any]:
        return {"setting": self.setting[:2], **super().smallest()}


def task(text: str, vocabulary: int | None, rounding: Rounding = "down") -> SparseFrequent:
    """The data of one setting; UserError unless it is four integers."""
    try:
        n_s, n_d, n_f, m = map(int, text.split(","))
    except ValueError:
        raise UserError(
            f"--setting takes n_s,n_d,n_f,m, four integers as in {PAPER[0]}, got {text!r}"
        ) from None
    return SparseFrequent(
        n_s,
        n_d,
        n_f,
        m,
        vocabulary=vocabulary or VOCABULARY.get(f"{n_s},{n_d}", 75),
        rounding=rounding,
    )


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figure."""
    conduct("synthetic", config, load=load, work=work)


def load(config: Config) -> tuple[dict[str, SparseFrequent], str]:
    """The data of every setting."""
    tasks = {text: task(text, config.vocabulary, config.rounding) for text in config.setting}
    return tasks, f"{len(tasks)} settings, {config.seeds} seeds each"


def work(config: Config, tasks: dict[str, SparseFrequent], record: RunRecord) -> dict[str, Any]:
    """Train on one setting after the other, and measure the ideal predictors of each."""
    final, ideals = [], {}
    for text, data in tasks.items():
        final += train(config, text, data, record)
        ideals[text] = ideal(data, config)
    return {"final": final, "ideal": ideals}


def train(
    config: Config, text: str, data: SparseFrequent, record: RunRecord
) -> list[dict[str, Any]]:
    """Train all seeds on one setting; the last line of each."""
    train_key, test_key = jax.random.split(jax.random.key(config.seed))
    splits = {
        "train": data.sample(config.examples, key=train_key),
        "test": data.sample(config.examples // 2, key=test_key, flip_sparse=True),
    }
    seeds, inputs = config.all_seeds(), splits["train"].inputs
    trainer = Trainer(
        [
            SingleHead(
                vocabulary=data.vocabulary,
                length=data.length,
                dim=config.dim,
                scale=config.scale,
                rngs=nnx.Rngs(seed),
            )
            for seed in seeds
        ],
        optax.sgd(config.learning_rate),
        batch_size=config.batch_size,
        loss=plain(logistic),
    )
    models = train_and_measure(
        text,
        trainer,
        splits,
        seeds=seeds,
        schedule=Schedule.epochs(
            config.epochs,
            config.every,
            config.examples // config.batch_size,
            4 * config.every,
        ),
        measures=[
            Measure("alignment", functools.partial(alignment, data=data)),
            # A token is replaced by a uniform one of the vocabulary.
            sensitivity(
                "sensitivity",
                inputs,
                tokens=jaxsens.Positions(),
                noise=jaxsens.Replacement(jnp.arange(data.vocabulary)),
                repeats=1,
                tokens_per_example=config.curve_tokens,
            ),
            Measure("attention", functools.partial(attention, data=data, tokens=inputs[:200])),
        ],
        record=record,
    )
    return finals(text, models, seeds=seeds, measures=(), record=record)


def alignment(model: SingleHead, key: Array, *, data: SparseFrequent) -> dict[str, float]:
    """Mean cosine of the rows of U W_V^T with the directions of the three kinds of tokens."""
    directions = (*data.votes(), (data.kinds() == 2).astype(float))
    rows = np.asarray(model.directions(), np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return {
        kind: float((rows @ direction).mean() / np.linalg.norm(direction))
        for kind, direction in zip(KINDS, directions, strict=True)
    }


def attention(
    model: SingleHead, key: Array, *, data: SparseFrequent, tokens: np.ndarray
) -> dict[str, float]:
    """Attention mass on each kind of tokens."""
    kinds = data.kinds()[tokens]
    mass = np.asarray(_attention(model, tokens)).mean(axis=1)  # over the queries
    return {
        kind: float((mass * (kinds == number)).sum(1).mean()) for number, kind in enumerate(KINDS)
    }


@jax.jit
def _attention(model: SingleHead, tokens: Array) -> Array:
    return model.attention(tokens)


def ideal(data: SparseFrequent, config: Config) -> dict[str, Any]:
    """Both ideal predictors: sensitivity in closed form, and measured on examples."""
    tokens = data.sample(config.examples, key=jax.random.key(config.seed + 1)).inputs
    found: dict[str, Any] = {"vocabulary": data.vocabulary}
    for kind, votes, exact in zip(KINDS, data.votes(), data.ideal_sensitivity(), strict=False):
        estimate = jaxsens.sensitivity(
            jax.tree_util.Partial(vote, weights=jnp.asarray(votes, jnp.float32)),
            tokens,
            key=jax.random.key(config.seed),
            tokens=jaxsens.Positions(),
            noise=jaxsens.Replacement(jnp.arange(data.vocabulary)),
            decision=jaxsens.decision,
            repeats=config.repeats,
            batch_size=2**14,
        )
        found[kind] = {"exact": exact, "measured": estimate.value, "stderr": estimate.stderr}
    return found


if __name__ == "__main__":
    run(main, Config, prog="experiments.synthetic")
