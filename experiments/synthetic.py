"""Sparse against frequent tokens: which of two sufficient cues does a single head use? (A, 4.1)

Each sequence holds a few copies of a sparse token that gives the label away, and frequent tokens
of which a small majority does. On the test set the sparse token votes for the wrong label:
accuracy 0 there means that the model went by the sparse token, 1 by the frequent ones.
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
from jaxsens.data.synthetic import KINDS, SparseFrequent, vote
from jaxsens.losses import logistic
from jaxsens.models.single_head import SingleHead
from jaxsens.training import Trainer

# The settings of Fig. 12 and the sensitivities of Table 3: (sparse-only, frequent-only).
PAPER = {
    "3,1,3,6": (0.0, 0.1315),
    "3,1,5,16": (0.0, 0.2878),
    "3,1,7,28": (0.0, 0.4502),
    "1,7,7,10": (0.0339, 0.0),
    "1,7,17,20": (0.0339, 0.0),
    "1,7,32,36": (0.0339, 0.0),
}
# The paper prints no M. These are 2m + 3 for the largest m of a row, and give Table 3.
VOCABULARY = {"3,1": 59, "1,7": 75}


@dataclasses.dataclass(frozen=True)
class Config(Common):
    """Train a single attention head on sparse and frequent tokens; see which cue it uses."""

    data: tyro.conf.Suppress[tyro.conf.Fixed[str]] = "generated"
    setting: tuple[str, ...] = tuple(PAPER)
    """n_s,n_d,n_f,m: copies of the sparse token, majority of frequent ones, how many, of how many
    for each label. One word for each setting."""
    vocabulary: int | None = None
    """M, the number of tokens; None for 59 where n_s,n_d = 3,1 and 75 elsewhere."""
    seeds: int = 5
    """How many seeds to train together: seed, seed + 1, ... They share the data."""
    epochs: int = 60
    """Epochs of training."""
    every: int = 5
    """Measure after this many epochs."""
    examples: int = 1000
    """Training examples; half as many for the test."""
    batch_size: int = 100
    """Examples a step of SGD."""
    learning_rate: float = 0.1
    """Step size of SGD (not given in the paper)."""
    dim: int = 32
    """Width of queries, keys and values (not given in the paper)."""
    scale: float = 0.1
    """Standard deviation of every initial parameter (not given in the paper)."""
    repeats: int = 5
    """Fresh replacements of every token, for the ideal predictors."""
    curve_tokens: int = 5
    """For the trained model, replace this many random tokens of each example, once."""

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        super().check()
        if not self.setting or len(set(self.setting)) < len(self.setting):
            raise UserError("--setting needs at least one setting, and each of them once")
        self.require_counts("epochs", "every", "batch_size", "dim", "repeats", "curve_tokens")
        if self.curve_tokens > SparseFrequent.length:
            raise UserError(
                f"--curve-tokens must be at most {SparseFrequent.length}, got {self.curve_tokens}"
            )
        if self.examples < max(2, self.batch_size):
            raise UserError(
                f"--examples must be at least 2 and --batch-size ({self.batch_size}), "
                f"got {self.examples}"
            )
        for name in ("learning_rate", "scale"):
            if not getattr(self, name) > 0:
                raise UserError(
                    f"--{name.replace('_', '-')} must be greater than 0, got {getattr(self, name)}"
                )


def task(text: str, vocabulary: int | None) -> SparseFrequent:
    """The data of one setting; UserError unless it is four integers."""
    try:
        n_s, n_d, n_f, m = map(int, text.split(","))
    except ValueError:
        raise UserError(
            f"--setting takes n_s,n_d,n_f,m, four integers as in {next(iter(PAPER))}, got {text!r}"
        ) from None
    return SparseFrequent(
        n_s, n_d, n_f, m, vocabulary=vocabulary or VOCABULARY.get(f"{n_s},{n_d}", 75)
    )


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figure."""
    config.check()
    if config.smoke:
        config = dataclasses.replace(
            config,
            setting=config.setting[:2],
            seeds=2,
            epochs=4,
            every=2,
            examples=200,
            repeats=1,
            curve_tokens=1,
        )
    tasks = {text: task(text, config.vocabulary) for text in config.setting}
    record = RunRecord.create("synthetic", config, out=config.out, resume=config.resume)
    print(f"{len(tasks)} settings, {config.seeds} seeds each; record in {record.directory}")
    started = time.monotonic()
    finals, ideals = [], {}
    for text, data in tasks.items():
        finals += train_setting(config, text, data, record)
        ideals[text] = ideal(data, config)
    record.finish({"final": finals, "ideal": ideals}, seconds=time.monotonic() - started)
    draw(record)
    print(summary(record))


def train_setting(
    config: Config, text: str, data: SparseFrequent, record: RunRecord
) -> list[dict[str, Any]]:
    """Train all seeds on one setting; the last line of each."""
    train_key, test_key = jax.random.split(jax.random.key(config.seed))
    train = data.sample(config.examples, key=train_key)
    test = data.sample(config.examples // 2, key=test_key, flip_sparse=True)
    seeds = range(config.seed, config.seed + config.seeds)
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
        loss=logistic,
    )
    train_and_measure(
        text,
        trainer,
        train,
        test,
        seeds=seeds,
        schedule=Schedule(
            config.epochs,
            config.every,
            config.examples // config.batch_size,
            4 * config.every,
        ),
        measures=[
            functools.partial(cues, data=data, tokens=train.inputs[:200]),
            functools.partial(
                token_sensitivity, data=data, tokens=train.inputs, each=config.curve_tokens
            ),
        ],
        record=record,
    )
    return [line for line in record.lines if line["model"] == text][-config.seeds :]


def cues(
    model: SingleHead, key: Array, *, data: SparseFrequent, tokens: np.ndarray
) -> dict[str, float]:
    """Mean cosine of the rows of U W_V^T with the three directions; attention mass by kind."""
    kinds = data.kinds()
    directions = (*data.votes(), (kinds == 2).astype(float))
    rows = np.asarray(model.directions(), np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    attention = np.asarray(_attention(model, tokens)).mean(axis=1)  # over the queries
    line = {}
    for number, (kind, direction) in enumerate(zip(KINDS, directions, strict=True)):
        line[f"alignment_{kind}"] = float((rows @ direction).mean() / np.linalg.norm(direction))
        line[f"attention_{kind}"] = float((attention * (kinds[tokens] == number)).sum(1).mean())
    return line


@jax.jit
def _attention(model: SingleHead, tokens: Array) -> Array:
    return model.attention(tokens)


def token_sensitivity(
    model: Any, key: Array, *, data: SparseFrequent, tokens: np.ndarray, each: int | None
) -> dict[str, float]:
    """Sensitivity to replacing a token by a uniform one of the vocabulary."""
    estimate = jaxsens.sensitivity(
        model,
        tokens,
        key=key,
        tokens=jaxsens.Positions(),
        noise=jaxsens.Replacement(jnp.arange(data.vocabulary)),
        repeats=1,
        tokens_per_example=each,
    )
    return {"sensitivity": estimate.value, "sensitivity_stderr": estimate.stderr}


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
            repeats=config.repeats,
            batch_size=2**14,
        )
        found[kind] = {"exact": exact, "measured": estimate.value, "stderr": estimate.stderr}
    return found


def summary(record: RunRecord) -> str:
    """The table: accuracies, sensitivity, and the ideal predictors beside the paper's numbers."""
    result, rows = record.read("result.json"), []
    for text, ideals in result["ideal"].items():
        lines = [line for line in result["final"] if line["model"] == text]
        mean = {
            k: np.mean([line[k] for line in lines]) for k in ("train_accuracy", "test_accuracy")
        }
        lowest, highest = (f([line["test_accuracy"] for line in lines]) for f in (min, max))
        value, error = report.pooled(
            *[[line[k] for line in lines] for k in ("sensitivity", "sensitivity_stderr")]
        )
        row = [
            f"({text})",
            str(ideals["vocabulary"]),
            f"{100 * mean['train_accuracy']:.1f}",
            f"{100 * mean['test_accuracy']:.1f} ({100 * lowest:.1f} to {100 * highest:.1f})",
            f"{value:.4f} ± {error:.4f}",
        ]
        for i, kind in enumerate(KINDS[:2]):
            paper = f"{PAPER[text][i]:.4f}" if text in PAPER else "-"
            one = ideals[kind]
            row.append(
                f"{one['exact']:.4f} / {one['measured']:.4f} ± {one['stderr']:.4f} / {paper}"
            )
        rows.append(row)
    header = ["(n_s,n_d,n_f,m)", "M", "train acc. %", "OOD acc. %", "sensitivity"]
    kinds = [f"{kind}-only: exact / measured / paper" for kind in KINDS[:2]]
    return report.table([*header, *kinds], rows)


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run from its record: a column for each setting."""
    lines = record.read_metrics()
    names = list(dict.fromkeys(line["model"] for line in lines))
    rows = {
        "accuracy": {"train_accuracy": "train", "test_accuracy": "OOD"},
        "alignment of $U W_V^\\top$": {f"alignment_{kind}": kind for kind in KINDS},
        "attention mass": {f"attention_{kind}": kind for kind in KINDS},
        "sensitivity": {"sensitivity": "model"},
    }
    figure, grid = report.figure(
        2.1 * len(names) + 0.6, 7, nrows=len(rows), ncols=len(names), squeeze=False, sharex=True
    )
    ideals = record.read("result.json")["ideal"]
    for column, name in enumerate(names):
        grid[0, column].set_title("$(n_s, n_d, n_f, m)$ =\n(" + name.replace(",", ", ") + ")")
        grid[-1, column].set_xlabel("epoch")
        for row, (title, fields) in enumerate(rows.items()):
            panel = grid[row, column]
            for number, (field, label) in enumerate(fields.items()):
                epochs, values = report.curve(lines, field, model=name)
                color = "k" if field == "sensitivity" else f"C{number}"
                report.draw_band(panel, epochs, values, color=color, label=label)
            if title == "sensitivity":
                for number, kind in enumerate(KINDS[:2]):
                    exact = ideals[name][kind]["exact"]
                    style = {"color": f"C{number}", "linestyle": ":", "linewidth": 1}
                    panel.axhline(exact, label=f"{kind} only", **style)
                panel.set_ylim(bottom=-0.01)
            else:
                panel.set_ylim(-0.3 if title.startswith("alignment") else -0.03, 1.03)
            if column == 0:
                panel.set_ylabel(title)
                panel.legend(fontsize=7)
    report.save(figure, record.directory / "curves.png")


if __name__ == "__main__":
    run(main, Config, prog="experiments.synthetic")
