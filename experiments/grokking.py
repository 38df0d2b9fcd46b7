"""Grokking: a one-layer transformer learns to add modulo a prime (paper A, Section 7).

Full-batch AdamW on 30 % of all pairs (a, b). The network first memorises; much later it
generalises. Sensitivity adds N(0, 0.1^2) on the training pairs: to the embeddings of both numbers
at once, as the published code does, and beside it to one number at a time, as in Def. 4.1.
"""

import dataclasses
import functools
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.flatten_util import ravel_pytree

import jaxsens
from command.files import write_whole
from command.options import (
    DRAWS,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    VARIANCE,
    Count,
    check_memory,
)
from experiments.run.cli import UserError, run
from experiments.run.experiment import conduct
from experiments.run.measure import Measure
from experiments.run.options import Run, Seeds
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, finals, train_and_measure
from jaxsens.data.algorithmic import modular_addition
from jaxsens.data.split import Split
from jaxsens.losses import plain, precise_cross_entropy
from jaxsens.measures import fourier as progress
from jaxsens.measures.parameters import not_positions
from jaxsens.models.one_layer import OneLayerTransformer
from jaxsens.sharpness import average_direction
from jaxsens.training import Trainer

# What is perturbed: both numbers, as "sensitivity" in the record, and one, as "sensitivity_one".
PERTURBED = {"": jaxsens.Whole(), "one": jaxsens.Positions()}
BETA2 = {"published": 0.999, "nanda": 0.98}


@dataclasses.dataclass(frozen=True)
class Config(Run, Seeds):
    """Train on modular addition and record sensitivity beside accuracy, loss and weight norm."""

    seed: int = 42
    """First seed."""
    seeds: Annotated[int, Count(most=4096)] = 5
    """How many seeds to train together: seed, seed + 1, ... They share the training pairs."""
    epochs: Annotated[int, Count()] = 20000
    """Epochs of training, each one step on all training pairs."""
    every: Annotated[int, Count()] = 10
    """Measure after this many epochs."""
    save_every: Annotated[int, Count(least=0)] = 500
    """Save a checkpoint after this many epochs; a multiple of --every."""
    snapshot_every: Annotated[int, Count(least=0)] = 200
    """Keep the weights after this many epochs, for the Fourier measures; a multiple of --every."""
    modulus: int = 113
    """Add modulo this prime."""
    train_fraction: Annotated[float, SHARE] = 0.3
    """Share of all pairs that are for training."""
    split_seed: Annotated[int, SEED] = 0
    """Seed of the split in training and test pairs."""
    residual: bool = False
    """The usual transformer, with residual connections; without them as in the authors' code."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Step size of AdamW."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 1.0
    """Weight decay of AdamW, on every parameter."""
    start: Literal["published", "nanda"] = "published"
    """Initial weights: PyTorch's defaults with an embedding of N(0, 1), as in the published code,
    or the smaller ones of Nanda et al., with which sensitivity does not rise before the jump."""
    beta2: float | None = None
    """Decay of AdamW's second moment; None for 0.999 (published) or 0.98 (nanda). The first
    moment's is 0.9."""
    variance: Annotated[float, VARIANCE] = 0.01
    """Variance (not standard deviation) of the noise on a number's embedding."""
    repeats: Annotated[int, DRAWS] = 1
    """Fresh draws for each training pair (and each of its numbers), at each measurement."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        "epochs": 60,
        "every": 10,
        "save_every": 20,
        "snapshot_every": 20,
        "seeds": 2,
        "modulus": 23,
    }

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        super().check()
        self.require_multiples("every", "save_every", "snapshot_every")
        check_memory(
            4 * self.modulus**3, "--modulus", self.modulus, "the outputs for all pairs of numbers"
        )
        factor = next((i for i in range(2, self.modulus) if self.modulus % i == 0), None)
        if self.modulus < 3 or factor is not None:
            raise UserError(
                f"--modulus must be an odd prime (the frequencies of the Fourier measures are "
                f"equivalent only then), got {self.modulus}"
                + (f" = {factor} * {self.modulus // factor}" if factor else "")
            )
        if self.beta2 is not None and not 0 < self.beta2 < 1:
            raise UserError(f"--beta2 must lie between 0 and 1, got {self.beta2}")


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figures."""
    conduct("grokking", config, load=load, work=work, arrays=lambda splits: splits)


def load(config: Config) -> tuple[dict[str, Split], str]:
    """All pairs, in training and test pairs."""
    train, test = modular_addition(
        config.modulus,
        train_fraction=config.train_fraction,
        key=jax.random.key(config.split_seed),
    )
    return {"train": train, "test": test}, f"training on {len(train.labels)} pairs"


def work(config: Config, splits: dict[str, Split], record: RunRecord) -> dict[str, Any]:
    """Train all seeds together; what the networks compute is read from the weights kept."""
    seeds, pairs = config.all_seeds(), splits["train"].inputs
    trainer = Trainer(
        [build(config, seed) for seed in seeds],
        optax.adamw(
            config.learning_rate,
            b2=BETA2[config.start] if config.beta2 is None else config.beta2,
            weight_decay=config.weight_decay,
        ),
        batch_size=None,
        loss=plain(precise_cross_entropy),
    )
    models = train_and_measure(
        "transformer",
        trainer,
        splits,
        seeds=seeds,
        schedule=Schedule(config.epochs, config.every, 1, config.save_every),
        measures=[
            Measure("weight_norm", weight_norm),
            Measure("sensitivity", functools.partial(perturbed, config=config, pairs=pairs)),
        ],
        record=record,
        observe=functools.partial(
            keep_weights, directory=record.directory / "weights", config=config
        ),
    )
    return {
        "final": finals("transformer", models, seeds=seeds, measures=(), record=record),
        "progress": fourier_progress(config, record, splits["train"]),
    }


def build(config: Config, seed: int) -> OneLayerTransformer:
    """The network of this experiment."""
    return OneLayerTransformer(
        modulus=config.modulus,
        residual=config.residual,
        start=config.start,
        rngs=nnx.Rngs(seed),
    )


def weight_norm(model: nnx.Module, key: Array) -> float:
    """The Euclidean norm of all parameters."""
    return float(_norm(nnx.state(model, nnx.Param)))


@jax.jit
def _norm(params: Any) -> Array:
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)))


def perturbed(
    model: OneLayerTransformer, key: Array, *, config: Config, pairs: np.ndarray
) -> dict[str, jaxsens.SensitivityEstimate]:
    """Sensitivity to noise on the embeddings of a and b together, and of one of them."""
    found = {}
    for number, (part, tokens) in enumerate(PERTURBED.items()):
        found[part] = jaxsens.sensitivity(
            model.from_embeddings,
            model.embed(pairs),
            key=jax.random.fold_in(key, number),
            tokens=tokens,
            noise=jaxsens.Gaussian(config.variance),
            decision="argmax",
            repeats=config.repeats,
            batch_size=4096,
        )
    return found


def keep_weights(step: int, models: Any, *, directory: Path, config: Config) -> None:
    """Write the parameters of all seeds, (S, P), as ``directory/<epoch>.npy``; a step is one."""
    if step % config.snapshot_every == 0 or step == config.epochs:
        flat = [ravel_pytree(nnx.state(model, nnx.Param))[0] for model in models]
        content = io.BytesIO()
        np.save(content, np.stack(flat))
        write_whole(directory / f"{step:06d}.npy", content.getvalue())


def fourier_progress(config: Config, record: RunRecord, train: Split) -> list[dict[str, Any]]:
    """Restricted and excluded loss and Fourier sparsity for each seed and each kept set of weights.

    The key frequencies of a seed are those of its last weights. Beside them paper B's sharpness:
    the mean increase of the training loss under noise of std 0.02 on all weights but the positions.
    """
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
                    **losses(logits, frequencies, train.inputs),
                    "sharpness": average_direction(
                        _loss,
                        model,
                        *train,
                        key=jax.random.key(config.seed + i),
                        draws=3,
                        where=not_positions,
                        batch_size=2**14,
                    ).value,
                    "embedding_gini": progress.gini(progress.embedding_power(embedding)),
                }
            )
    return found


def losses(
    logits: np.ndarray, frequencies: tuple[int, ...], train: np.ndarray
) -> dict[str, float | None]:
    """Restricted and excluded loss; None where a network early in training has no key frequency."""
    if not frequencies:
        return {"restricted_loss": None, "excluded_loss": None}
    return {
        "restricted_loss": progress.restricted_loss(logits, frequencies),
        "excluded_loss": progress.excluded_loss(logits, frequencies, train),
    }


def _loss(model: OneLayerTransformer, pairs: Array, labels: Array) -> Array:
    return precise_cross_entropy(model(pairs), labels)


@jax.jit
def _logits(model: OneLayerTransformer, pairs: Array) -> Array:
    return model(pairs)


if __name__ == "__main__":
    run(main, Config, prog="experiments.grokking")
