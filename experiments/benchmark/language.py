"""Pairs of sentences a second: training and sensitivity, here and in PyTorch.

Random sub-words of MRPC's lengths, in buckets; PyTorch has the same batches of the same width
(its LSTM packs them besides), no dropout in either, float32, the same cores in the same run. "To
the longest" is PyTorch as the published code pads. Sensitivity puts noise on every token of a few
pairs, once; PyTorch's is a loop over the pairs, each a batch of its own length.
"""

import dataclasses
import importlib.util
import runpy
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import optax
from flax import nnx

import jaxsens
from command.options import Choice, Count, Each
from experiments.benchmark import record
from experiments.benchmark.timing import Contender, against, onward, rates
from experiments.run.cli import UserError
from experiments.run.options import Options
from experiments.run.report import table
from experiments.text.estimate import measure
from experiments.text.measures import embed, logits
from jaxsens import models
from jaxsens.data.buckets import Buckets, bucket_lengths, bucketed
from jaxsens.training import Split, Trainer

NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lstm": ("lstm", "LSTM", {}),
    "roberta": ("roberta", "RoBERTa", {"attention": "softmax"}),
    "roberta-relu": ("roberta", "RoBERTa", {"attention": "relu"}),
}
WITNESS = Path(__file__).parents[2] / "tests" / "witnesses" / "torch_language.py"
MEAN, DEVIATION, SHORTEST, LONGEST = 59, 15, 20, 125  # tokens of MRPC's pairs


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Pairs a second of training and of sensitivity for the language networks."""

    arch: Annotated[tuple[str, ...], Choice(tuple(NETWORKS)), Each(least=1)] = tuple(NETWORKS)
    """Which networks."""
    depth: Annotated[int, Count(most=256)] = 4
    """Layers."""
    width: Annotated[int, Count(most=2**14)] = 256
    """Width; eight heads."""
    hidden: Annotated[int, Count(most=2**16)] = 3072
    """Width of RoBERTa's MLP."""
    steps: Annotated[int, Count()] = 8
    """Batches of 32 pairs a round."""
    pairs: Annotated[int, Count(least=2)] = 8
    """Pairs whose sensitivity is measured in a round."""
    rounds: Annotated[int, Count()] = 3
    """Times each contender is measured, in turn; medians are reported."""
    out: Path | None = None
    """JSON file for the record; must not exist."""
    smoke: bool = False
    """The same code at the smallest size, in under a minute on two CPU cores."""


def main(config: Config) -> None:
    """Measure network by network, print a table, write the record."""
    config.check()
    if config.width % 8:
        raise UserError(f"--width must be a multiple of 8, the heads, got {config.width}")
    record.check_new(config.out)
    if config.smoke:
        config = dataclasses.replace(
            config, depth=1, width=16, hidden=32, steps=2, pairs=2, rounds=1
        )
    found = {}
    for name in config.arch:
        found[name] = _network(name, config)
        print(f"measured {name}", flush=True)
    print(_report(found))
    record.write(config.out, "language", config, networks=found)


def texts(count: int, vocabulary: int = 8000) -> tuple[Split, np.ndarray]:
    """Pairs of random sub-words with lengths like MRPC's, and the lengths."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.rint(rng.normal(MEAN, DEVIATION, count)), SHORTEST, LONGEST).astype(int)
    lengths[0] = LONGEST
    mask = np.arange(LONGEST)[None] < lengths[:, None]
    ids = np.where(mask, rng.integers(4, vocabulary, mask.shape), 1).astype(np.int32)
    return Split({"ids": ids, "mask": mask}, rng.integers(2, size=count).astype(np.int32)), lengths


def _network(name: str, config: Config) -> dict[str, Any]:
    ours, theirs, own = NETWORKS[name]
    sizes = {"vocabulary": 8000, "classes": 2, "depth": config.depth, "dim": config.width, **own}
    if ours == "roberta":
        sizes |= {"heads": 8, "mlp_dim": config.hidden, "positions": 514}
    model = models.create(ours, rngs=nnx.Rngs(0), dropout=0.0, **sizes)
    data, lengths = texts(32 * config.steps)
    few = data.take(np.arange(config.pairs))
    source = Buckets(data, lengths, bucket_lengths(lengths), 32)
    counts = {"training": 32 * config.steps, "sensitivity": config.pairs}
    contenders = {
        "training": training(model, source),
        "sensitivity": sensitivity(model, few, lengths[: config.pairs], source.widths),
    }
    if importlib.util.find_spec("torch") is not None:
        network = runpy.run_path(str(WITNESS))[theirs](**sizes)
        contenders |= in_torch(network, source, few)
    measured = rates(
        {kind: Contender(run, counts[kind.split(",")[0]]) for kind, run in contenders.items()},
        config.rounds,
    )
    return {
        "pairs_per_second": {kind: statistics.median(speeds) for kind, speeds in measured.items()},
        "against_pytorch": {
            kind: against(measured, kind.split(",")[0], kind) for kind in measured if "," in kind
        },
        "widths": source.widths,
    }


def training(model: nnx.Module, source: Buckets) -> Callable[[], None]:
    """An epoch, from where the last call stopped."""
    trainer = Trainer([model], optax.adamw(1e-4, weight_decay=1e-4), batch_size=source.size)
    keys = jax.random.split(jax.random.key(0), 1)
    on_device = jax.device_put(source)
    return onward(trainer.initial, lambda state: trainer.epochs(state, on_device, keys)[0])


def sensitivity(
    model: nnx.Module, few: Split, lengths: np.ndarray, widths: Sequence[int]
) -> Callable[[], Any]:
    """Noise on every token of the pairs, once."""
    parts = bucketed(few, lengths, widths)
    return lambda: measure(
        model,
        parts,
        key=jax.random.key(0),
        read=logits,
        embed=embed,
        tokens=jaxsens.Positions(mask="mask"),
        noise=jaxsens.Gaussian(15.0),
        repeats=1,
    )


def in_torch(network: Any, source: Buckets, few: Split) -> dict[str, Callable[[], None]]:
    """The same network and steps in PyTorch, on the batches of the first epoch."""
    import torch

    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-4)
    (kinds, rows), _ = source.plan(jax.random.key(0), jax.numpy.int32(0), source.steps_per_epoch)

    def batches(longest: bool) -> list[tuple[Any, Any, Any]]:
        cut = [
            source.batch((kind, row), -1 if longest else int(kind))
            for kind, row in zip(kinds, np.asarray(rows), strict=True)
        ]
        return [
            (
                torch.from_numpy(np.array(batch.inputs["ids"], np.int64)),
                torch.from_numpy(np.array(batch.inputs["mask"])),
                torch.from_numpy(np.array(batch.labels, np.int64)),
            )
            for batch in cut
        ]

    def train(batches: list[tuple[Any, Any, Any]]) -> None:
        for ids, mask, labels in batches:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(ids, mask), labels).backward()
            optimizer.step()

    @torch.inference_mode()
    def flips() -> None:
        for ids, mask in zip(few.inputs["ids"], few.inputs["mask"], strict=True):
            count = int(mask.sum())
            token = torch.from_numpy(np.array(ids[None, :count], np.int64))
            vectors = _embed(network, token)
            noised = vectors.repeat(count + 1, 1, 1)  # the last row is the clean one
            places = torch.arange(count)
            noised[places, places] += 15**0.5 * torch.randn(count, vectors.shape[-1])
            decisions = _logits(network, noised).argmax(-1)
            (decisions[:-1] != decisions[-1]).float().mean()

    cut, longest = batches(False), batches(True)
    return {
        "training, PyTorch": lambda: train(cut),
        "training, PyTorch to the longest": lambda: train(longest),
        "sensitivity, PyTorch": flips,
    }


def _embed(network: Any, ids: Any) -> Any:
    import torch

    vectors = network.words[ids]
    if hasattr(network, "positions"):
        vectors = vectors + network.positions[torch.arange(ids.shape[1]) + 2] + network.kinds[0]
    return network.norm(vectors)


def _logits(network: Any, vectors: Any) -> Any:
    import torch

    if hasattr(network, "lstm"):
        return network.head(network.lstm(vectors)[0][:, -1])
    mask = torch.ones(vectors.shape[:2], dtype=torch.bool)
    for block in network.blocks:
        vectors = block(vectors, mask)
    return network.head(torch.tanh(network.dense(vectors[:, 0])))


def _report(found: dict[str, Any]) -> str:
    rows = []
    for name, result in found.items():
        speed, ratios = result["pairs_per_second"], result["against_pytorch"]
        for kind in ("training", "sensitivity"):
            rivals = [rival for rival in ratios if rival.startswith(f"{kind},")]
            rows.append([name, kind, f"{speed[kind]:.2f}", ""])
            for rival in rivals:
                rows.append([name, rival, f"{speed[rival]:.2f}", f"{ratios[rival]:.2f}"])
    return table(["network", "", "pairs/s", "ours is so many times as fast"], rows)
