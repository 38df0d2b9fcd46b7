"""Random networks: how sensitive is a function before any training (paper B; Koever et al. 2026)?

Networks with random weights map strings of n bits to the sign of their output, 0 counting as
negative. For each, s(f, x) is how many bits decide at x. The table has the mean of s(f, x) / n, the
share of networks with a mean of at most 0.025 and the share of strings where no bit decides, as
Bhattamishra et al. (2023) have it: the scale of the weights decides an LSTM's sensitivity.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

from command.options import POSITIVE, SEED, Choice, Count, Each, check_memory
from experiments.run.cli import UserError, run
from experiments.run.experiment import conduct
from experiments.run.options import Run
from experiments.run.record import RunRecord
from jaxsens import boolean
from jaxsens.measures.bits import sensitivity_counts
from jaxsens.models.random_start import STARTS, BitMLP, ReadLSTM, ReadTransformer, redraw

NETWORKS = ("transformer", "post-norm", "lstm", "mlp")
LOW = 0.025  # up to which the first bar of Bhattamishra et al.'s histogram counts


@dataclasses.dataclass(frozen=True)
class Config(Run):
    """Histograms of s(f, x) over strings and networks with random weights."""

    network: Annotated[tuple[str, ...], Each(least=1), Choice(NETWORKS)] = NETWORKS
    """transformer (pre-norm, read at a token behind the string), post-norm (the same with the
    LayerNorms behind the sums), lstm, mlp."""
    start: Annotated[tuple[str, ...], Each(least=1), Choice(STARTS)] = STARTS
    """How the weights are drawn: gaussian, uniform or xavier (normal)."""
    scale: Annotated[float, POSITIVE] = 10.0
    """Standard deviation of gaussian weights, bound of uniform ones."""
    lengths: Annotated[tuple[int, ...], Each(least=1), Count(most=512)] = (20,)
    """n: numbers of bits."""
    depths: Annotated[tuple[int, ...], Each(least=1), Count(most=64)] = (2,)
    """Layers."""
    width: Annotated[int, Count(most=4096)] = 64
    """Width of a token, of an LSTM's state, of an MLP's layers."""
    heads: Annotated[int, Count()] = 8
    """Heads of the transformers; must divide the width."""
    networks: Annotated[int, Count(least=2, most=10**5)] = 100
    """Networks of each kind, for the error bars."""
    strings: Annotated[int, Count(most=10**5)] = 200
    """Uniform strings for each network, shared by all; all 2^n of them where they are no more."""
    seed: Annotated[int, SEED] = 0
    """Seed of weights and strings."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        "lengths": (5,),
        "width": 8,
        "heads": 2,
        "networks": 4,
        "strings": 16,
    }

    def check(self) -> None:
        super().check()
        if self.width % self.heads:
            raise UserError(f"--width {self.width} does not divide into --heads {self.heads}")
        n = max(self.lengths)
        rows = 4.0 * min(self.strings, 2**n) * (n + 1) * (n + 1) * self.width * 4
        check_memory(rows, "--strings", self.strings, f"networks on {n} bits and their neighbours")


class Kind(NamedTuple):
    """Networks that are drawn alike."""

    network: str
    start: str
    bits: int
    depth: int

    @property
    def name(self) -> str:
        """As records name it."""
        return f"{self.network}, {self.start}, {self.bits} bits, depth {self.depth}"


def main(config: Config) -> None:
    """Draw, measure, and leave a run record with its figure."""
    conduct("priors", config, load=load, work=work)


def load(config: Config) -> tuple[list[Kind], str]:
    """The kinds of networks, in the order in which they are measured."""
    parts = (config.network, config.start, config.lengths, config.depths)
    kinds = [Kind(*each) for each in itertools.product(*parts)]
    return kinds, f"drawing {config.networks} networks of each of {len(kinds)} kinds"


def work(config: Config, kinds: list[Kind], record: RunRecord) -> dict[str, Any]:
    """Measure one kind after another; what a stopped run has measured is not measured again."""
    final = []
    for kind in kinds:
        found = record.of_model(kind.name)
        if not found:
            record.add([{"model": kind.name, "seed": config.seed, **measure(config, kind)}])
            found = record.of_model(kind.name)
            print(f"{kind.name}: {found[0]['sensitivity']:.4f}", flush=True)
        final.append(found[0])
    return {"final": final}


def measure(config: Config, kind: Kind) -> dict[str, Any]:
    """The statistics of one kind with standard errors over networks.

    ``sensitivity``: mean of s(f, x) / n; ``low``: share of networks with a mean of at most 0.025;
    ``zero``: share of strings with s(f, x) = 0; ``smallest``: min over x of s(f, x), its mean;
    ``constant``: share of networks that decide all strings alike; ``histogram``: share of
    s(f, x) = 0..n over strings and networks.
    """
    strings, weights = jax.random.split(jax.random.key(config.seed))
    n = kind.bits
    points = (
        boolean.cube(n)
        if 2**n <= config.strings
        else jax.random.rademacher(strings, (config.strings, n), jnp.float32)
    )
    keys = jax.random.split(weights, config.networks)
    graph = _Graph(kind, config.width, config.heads, config.scale)
    counts, decided = (np.asarray(x) for x in _measure(graph, points, keys))
    if (counts < 0).any():
        raise UserError(f"{kind.name}: outputs are NaN at --scale {config.scale:g}: take less")
    each = counts.mean(1) / n
    found: dict[str, Any] = {"network": kind.network, "start": kind.start}
    found |= {"bits": n, "depth": kind.depth, "networks": len(counts), "strings": len(points)}
    for name, values in {
        "sensitivity": each,
        "low": each <= LOW,
        "zero": (counts == 0).mean(1),
        "smallest": counts.min(1),
        "constant": (decided == decided[:, :1]).all(1),
    }.items():
        found[name] = float(np.mean(values))
        found[f"{name}_stderr"] = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    found["histogram"] = np.bincount(counts.reshape(-1), minlength=n + 1) / counts.size
    return found


class _Graph(NamedTuple):
    """What the compiled program depends on."""

    kind: Kind
    width: int
    heads: int
    scale: float


@functools.partial(jax.jit, static_argnums=0)
def _measure(
    graph: _Graph, points: Float[Array, "N n"], keys: Key[Array, " S"]
) -> tuple[Array, Array]:
    """s(f, x) (S, N) and whether f(x) > 0 (S, N), one network after another."""
    model = build(graph.kind, width=graph.width, heads=graph.heads)

    def draw(key: Array) -> tuple[Array, Array]:
        network = redraw(model, key, start=graph.kind.start, scale=graph.scale)
        return sensitivity_counts(network, points)

    return jax.lax.map(draw, keys)


def build(kind: Kind, *, width: int, heads: int) -> nnx.Module:
    """A network of this kind; its weights are still to be drawn."""
    rngs = nnx.Rngs(0)
    if kind.network in ("transformer", "post-norm"):
        norm = "pre" if kind.network == "transformer" else "post"
        return ReadTransformer(
            bits=kind.bits, dim=width, heads=heads, depth=kind.depth, norm=norm, rngs=rngs
        )
    if kind.network == "lstm":
        return ReadLSTM(dim=width, depth=kind.depth, rngs=rngs)
    return BitMLP(bits=kind.bits, dim=width, depth=kind.depth, rngs=rngs)


if __name__ == "__main__":
    run(main, Config, prog="experiments.priors")
