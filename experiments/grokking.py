"""Grokking: a one-layer transformer learns to add modulo a prime (paper A, Section 7).

Full-batch AdamW on 30 % of all pairs (a, b). The network first memorises; much later it
generalises. Sensitivity adds N(0, 0.1^2) on the training pairs: to the embeddings of both numbers
at once, as the published code does, and beside it to one number at a time, as in Def. 4.1.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx
from jax import Array
from jax.flatten_util import ravel_pytree

import jaxsens
from experiments.run import report
from experiments.run.cli import Common, UserError, run
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, train_and_measure
from jaxsens.data.algorithmic import modular_addition
from jaxsens.losses import precise_cross_entropy
from jaxsens.measures import fourier as progress
from jaxsens.measures.phases import Phases, grokking_phases, half_way, running_median
from jaxsens.models.one_layer import OneLayerTransformer
from jaxsens.training import Trainer

# The Fourier measures of Nanda et al., and how a figure calls them.
MEASURES = {
    "restricted_loss": "restricted",
    "excluded_loss": "excluded",
    "embedding_gini": "Gini",
}
# Field of the record, what is perturbed, and how a figure calls it.
PERTURBED = {
    "sensitivity": (jaxsens.Whole(), "both numbers at once"),
    "sensitivity_one": (jaxsens.Positions(), "one number at a time"),
}
BETA2 = {"published": 0.999, "nanda": 0.98}


@dataclasses.dataclass(frozen=True)
class Config(Common):
    """Train on modular addition and record sensitivity beside accuracy, loss and weight norm."""

    data: tyro.conf.Suppress[tyro.conf.Fixed[str]] = "generated"
    seed: int = 42
    """First seed."""
    seeds: int = 5
    """How many seeds to train together: seed, seed + 1, ... They share the training pairs."""
    epochs: int = 20000
    """Epochs of training, each one step on all training pairs."""
    every: int = 10
    """Measure after this many epochs."""
    save_every: int = 500
    """Save a checkpoint after this many epochs; a multiple of --every."""
    snapshot_every: int = 200
    """Keep the weights after this many epochs, for the Fourier measures; a multiple of --every."""
    modulus: int = 113
    """Add modulo this prime."""
    train_fraction: float = 0.3
    """Share of all pairs that are for training."""
    split_seed: int = 0
    """Seed of the split in training and test pairs."""
    residual: bool = False
    """The usual transformer, with residual connections; without them as in the authors' code."""
    learning_rate: float = 1e-3
    """Step size of AdamW."""
    weight_decay: float = 1.0
    """Weight decay of AdamW, on every parameter."""
    start: Literal["published", "nanda"] = "published"
    """Initial weights: PyTorch's defaults with an embedding of N(0, 1), as in the published code,
    or the smaller ones of Nanda et al., with which sensitivity does not rise before the jump."""
    beta2: float | None = None
    """Decay of AdamW's second moment; None for 0.999 (published) or 0.98 (nanda). The first
    moment's is 0.9."""
    variance: float = 0.01
    """Variance (not standard deviation) of the noise on a number's embedding."""
    repeats: int = 1
    """Fresh draws for each training pair (and each of its numbers), at each measurement."""

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        super().check()
        self.require_counts("epochs", "every", "repeats")
        for name in ("save_every", "snapshot_every"):
            value = getattr(self, name)
            if value < 1 or value % self.every:
                raise UserError(
                    f"--{name.replace('_', '-')} must be a multiple of --every ({self.every}), "
                    f"got {value}"
                )
        factor = next((i for i in range(2, self.modulus) if self.modulus % i == 0), None)
        if self.modulus < 3 or factor is not None:
            raise UserError(
                f"--modulus must be an odd prime (the frequencies of the Fourier measures are "
                f"equivalent only then), got {self.modulus}"
                + (f" = {factor} * {self.modulus // factor}" if factor else "")
            )
        for name in ("learning_rate", "variance"):
            if not getattr(self, name) > 0:
                raise UserError(
                    f"--{name.replace('_', '-')} must be greater than 0, got {getattr(self, name)}"
                )
        if not self.weight_decay >= 0:
            raise UserError(f"--weight-decay must be 0 or more, got {self.weight_decay}")
        if self.beta2 is not None and not 0 < self.beta2 < 1:
            raise UserError(f"--beta2 must lie between 0 and 1, got {self.beta2}")


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figures."""
    config.check()
    if config.smoke:
        config = dataclasses.replace(
            config, epochs=60, every=10, save_every=20, snapshot_every=20, seeds=2, modulus=23
        )
    train, test = modular_addition(
        config.modulus,
        train_fraction=config.train_fraction,
        key=jax.random.key(config.split_seed),
    )
    record = RunRecord.create("grokking", config, out=config.out, resume=config.resume)
    print(f"training on {len(train.labels)} pairs; record in {record.directory}")
    started = time.monotonic()
    seeds = range(config.seed, config.seed + config.seeds)
    trainer = Trainer(
        [build(config, seed) for seed in seeds],
        optax.adamw(
            config.learning_rate,
            b2=BETA2[config.start] if config.beta2 is None else config.beta2,
            weight_decay=config.weight_decay,
        ),
        batch_size=None,
        loss=precise_cross_entropy,
    )
    train_and_measure(
        "transformer",
        trainer,
        train,
        test,
        seeds=seeds,
        schedule=Schedule(config.epochs, config.every, 1, config.save_every),
        measures=[
            weight_norm,
            functools.partial(
                embedding_sensitivity,
                pairs=train.inputs,
                variance=config.variance,
                repeats=config.repeats,
            ),
        ],
        record=record,
        observe=functools.partial(
            keep_weights, directory=record.directory / "weights", every=config.snapshot_every
        ),
    )
    record.finish(
        {"final": record.lines[-config.seeds :], "progress": fourier_progress(config, record)},
        seconds=time.monotonic() - started,
    )
    draw(record)
    print(summary(record))


def build(config: Config, seed: int) -> OneLayerTransformer:
    """The network of this experiment."""
    return OneLayerTransformer(
        modulus=config.modulus,
        residual=config.residual,
        start=config.start,
        rngs=nnx.Rngs(seed),
    )


def weight_norm(model: nnx.Module, key: Array) -> dict[str, float]:
    """The Euclidean norm of all parameters."""
    return {"weight_norm": float(_norm(nnx.state(model, nnx.Param)))}


@jax.jit
def _norm(params: Any) -> Array:
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)))


def embedding_sensitivity(
    model: OneLayerTransformer, key: Array, *, pairs: np.ndarray, variance: float, repeats: int
) -> dict[str, float]:
    """Sensitivity to noise on the embeddings of a and b together, and of one of them."""
    line = {}
    for number, (name, (tokens, _)) in enumerate(PERTURBED.items()):
        estimate = jaxsens.sensitivity(
            model.from_embeddings,
            model.embed(pairs),
            key=jax.random.fold_in(key, number),
            tokens=tokens,
            noise=jaxsens.Gaussian(variance),
            repeats=repeats,
            batch_size=4096,
        )
        line |= {name: estimate.value, f"{name}_stderr": estimate.stderr}
    return line


def keep_weights(epoch: int, models: Any, *, directory: Path, every: int) -> None:
    """Write the parameters of all seeds, (S, P), as ``directory/<epoch>.npy``."""
    if epoch % every == 0:
        directory.mkdir(exist_ok=True)
        flat = [ravel_pytree(nnx.state(model, nnx.Param))[0] for model in models]
        np.save(directory / f"{epoch:06d}.npy", np.stack(flat))


def fourier_progress(config: Config, record: RunRecord) -> list[dict[str, Any]]:
    """Restricted and excluded loss and Fourier sparsity for each seed and each kept set of weights.

    The key frequencies of a seed are those of its last weights.
    """
    train, _ = modular_addition(
        config.modulus, train_fraction=config.train_fraction, key=jax.random.key(config.split_seed)
    )
    pairs = np.stack(np.divmod(np.arange(config.modulus**2), config.modulus), axis=1)
    files = sorted((record.directory / "weights").glob("*.npy"))
    found = []
    for i in range(config.seeds):
        module = build(config, config.seed + i)
        graphdef, params = nnx.split(module, nnx.Param)
        _, unravel = ravel_pytree(params)

        def network(file: Path, i: int = i, graphdef: Any = graphdef, unravel: Any = unravel):
            return nnx.merge(graphdef, unravel(np.load(file)[i]))

        frequencies = progress.key_frequencies(_logits(network(files[-1]), pairs))
        for file in files:
            model = network(file)
            logits = np.asarray(_logits(model, pairs))
            embedding = np.asarray(model.embedding[...])[: config.modulus]
            found.append(
                {
                    "seed": config.seed + i,
                    "epoch": int(file.stem),
                    "frequencies": frequencies,
                    "restricted_loss": progress.restricted_loss(logits, frequencies),
                    "excluded_loss": progress.excluded_loss(logits, frequencies, train.inputs),
                    "embedding_gini": progress.gini(progress.embedding_power(embedding)),
                }
            )
    return found


@jax.jit
def _logits(model: OneLayerTransformer, pairs: Array) -> Array:
    return model(pairs)


def all_phases(record: RunRecord) -> dict[int, Phases]:
    """The phases of each seed."""
    lines = record.read_metrics()
    found = {}
    for seed in sorted({line["seed"] for line in lines}):
        fields = ("train_accuracy", "test_accuracy", "sensitivity")
        curves = [report.curve(lines, field, seed=seed) for field in fields]
        found[seed] = grokking_phases(curves[0][0], *(values[0] for _, values in curves))
    return found


def summary(record: RunRecord) -> str:
    """The table: for each seed the epochs of the phases, and what moved first."""
    result, rows, leads = record.read("result.json"), [], []
    show = lambda value: "-" if value is None else str(value)  # noqa: E731
    for seed, found in all_phases(record).items():
        final = next(line for line in result["final"] if line["seed"] == seed)
        halves = []
        for field in MEASURES:
            epochs, values = report.curve(result["progress"], field, seed=seed)
            later = epochs >= (found.memorised or 0)
            halves.append(half_way(epochs[later], values[0, later]))
        rows.append(
            [
                str(seed),
                f"{100 * final['train_accuracy']:.1f} / {100 * final['test_accuracy']:.1f}",
                f"{final['sensitivity']:.4f}",
                *map(show, found),
                show(found.lead),
                *map(show, halves),
            ]
        )
        leads += [found.lead] if found.lead is not None else []
    header = ["seed", "train / test acc. %", "sensitivity", *Phases._fields, "lead"]
    text = report.table([*header, *[f"half of {name}" for name in MEASURES.values()]], rows)
    if leads:
        spread = f" ± {np.std(leads, ddof=1):.0f} (standard deviation)" if len(leads) > 1 else ""
        text += f"\nlead: {np.mean(leads):.0f}{spread} epochs, {len(leads)} of {len(rows)} seeds"
    return text


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run from its record; the phases shaded are those of the first seed."""
    result, lines = record.read("result.json"), record.read_metrics()
    seeds = sorted({line["seed"] for line in lines})
    kept = [line for line in result["progress"] if line["epoch"] > 0]
    shown = {
        "accuracy": {"train_accuracy": "train", "test_accuracy": "test"},
        "sensitivity": {name: label for name, (_, label) in PERTURBED.items() if name in lines[0]},
        "weight norm": {"weight_norm": "norm"},
        "cross-entropy": {
            "train_loss": "train",
            "test_loss": "test",
            "restricted_loss": "restricted to key frequencies (all pairs)",
            "excluded_loss": "without key frequencies (train)",
        },
        "Gini coefficient of\nembedding frequencies": {"embedding_gini": "Gini"},
    }
    figure, panels = report.figure(7.5, 10, nrows=len(shown), sharex=True)
    for panel, (title, curves) in zip(panels, shown.items(), strict=True):
        for number, (field, label) in enumerate(curves.items()):
            source = kept if field in MEASURES else lines
            for i, seed in enumerate(seeds):
                epochs, values = report.curve(source, field, seed=seed)
                style = {"color": f"C{number}", "linewidth": 0.8, "alpha": 1.0 if i == 0 else 0.4}
                if field in PERTURBED:
                    panel.plot(epochs, values[0], color=style["color"], linewidth=0.4, alpha=0.3)
                    values = running_median(values[0], 15)[None]
                panel.plot(epochs, values[0], label=label if i == 0 else None, **style)
        panel.set_ylabel(title)
        if len(curves) > 1:
            panel.legend(fontsize=7, loc="center right")
    panels[1].set_yscale("log")
    panels[3].set_yscale("log")
    found, end = all_phases(record)[seeds[0]], lines[-1]["epoch"]
    if found.peak is None:  # sensitivity falls throughout: nothing divides the time to the jump
        middle = {"test accuracy low": found.jump or end}
    else:
        middle = {"circuit formation": found.peak, "clean-up": found.jump or end}
    edges = {
        "memorisation": found.lowest or found.memorised or end,
        **middle,
        "after the jump": end,
    }
    start = 0
    for i, (name, stop) in enumerate(edges.items()):
        for panel in panels if stop > start else []:
            panel.axvspan(start, stop, color=f"C{4 + i}", alpha=0.12, linewidth=0)
        if stop - start > 0.1 * end:
            where = {"ha": "center", "transform": panels[0].get_xaxis_transform()}
            panels[0].text((start + stop) / 2, 1.04, name, fontsize=7, **where)
        start = max(start, stop)
    for panel in panels[:2] if found.fall is not None else []:
        panel.axvline(found.fall, color="k", linewidth=0.7, linestyle="--")
    panels[-1].set_xlabel("epoch (a full-batch step)")
    report.save(figure, record.directory / "curves.png")


if __name__ == "__main__":
    run(main, Config, prog="experiments.grokking")
