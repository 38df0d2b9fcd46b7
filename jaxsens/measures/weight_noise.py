"""Sharpness on bit strings, and what it must be at least, draw by draw (paper B, Sections 4, 5)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxsens._check import checked_key, positive_int
from jaxsens._inference import inference
from jaxsens._weights import Kind, Where, crossed
from jaxsens.measures.parameters import not_positions
from jaxsens.sharpness import average_direction


@dataclasses.dataclass(frozen=True, eq=False)
class WeightNoise:
    """What noise on the weights does on B batches of strings, for R draws each; in ±1 units.

    f is the network, g the one with noise, y the labels. A batch is a subcube: k random bits take
    all values, the others are fixed at random, so that sensitivities on it are known exactly.

    - ``increase`` (B, R): E (g - y)^2 - E (f - y)^2, the increase of the loss.
    - ``change`` (B, R): E (g - f)^2, which is the sharpness of paper B's definition.
    - ``before`` (B,), ``after`` (B, R): as(f) / n and as(g) / n on the subcube, n its dimension.
    """

    increase: Float[np.ndarray, "B R"]
    change: Float[np.ndarray, "B R"]
    before: Float[np.ndarray, " B"]
    after: Float[np.ndarray, "B R"]
    reused: bool

    @property
    def bound(self) -> Float[np.ndarray, "B R"]:
        """(sqrt(as(f) / n) - sqrt(as(g) / n))^2, which ``change`` is never below.

        f -> (f(x) - f(x')) / 2 over pairs of neighbours is linear and maps no function to a longer
        one, on every subcube: the bound is exact for each batch and draw.
        """
        return np.square(np.sqrt(self.before)[:, None] - np.sqrt(self.after))

    @property
    def slack(self) -> float:
        """The least ``change - bound`` over batches and draws: not below 0 but for rounding."""
        return float((self.change - self.bound).min())

    def mean(self, values: Float[np.ndarray, "B R"]) -> tuple[float, float]:
        """Mean over batches and draws of one of the fields, and its standard error."""
        if self.reused:
            return crossed(values.T)
        means = values.mean(axis=1)
        error = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
        return float(means.mean()), float(error)

    @property
    def value(self) -> float:
        """The sharpness: mean increase of the loss."""
        return self.mean(self.increase)[0]

    @property
    def stderr(self) -> float:
        """Standard error of :attr:`value`."""
        return self.mean(self.increase)[1]

    def recorded(self) -> dict[str, float]:
        """What a run records: value, stderr, change, bound, and the least slack."""
        change, change_error = self.mean(self.change)
        return {
            "": self.value,
            "stderr": self.stderr,
            "change": change,
            "change_stderr": change_error,
            "bound": self.mean(self.bound)[0],
            "slack": self.slack,
        }


def weight_noise(
    model: Any,
    labels: Callable[[Array], Array],
    n: int,
    *,
    key: Array,
    size: float = 0.02,
    kind: Kind = "std",
    draws: int = 10,
    batches: int = 16,
    dimension: int = 8,
    reuse: bool = False,
    where: Where | None = not_positions,
) -> WeightNoise:
    """Average-direction sharpness of a network on n bits, with the exact bound for each draw.

    ``model`` maps (N, n) of ±1 to (N,) on the scale of labels 0 and 1, which ``labels`` gives; what
    is returned is in ±1 units, 4 times theirs. ``size``, ``kind`` and ``where`` are those of
    :func:`jaxsens.sharpness.average_direction`: paper B has std 0.02 on all but the positions.
    Every batch has draws of its own; with ``reuse`` all see the same, as in the authors' code. On
    min(n, ``dimension``) bits a batch is whole.
    """
    key = checked_key(key)
    free = min(n, positive_int("dimension", dimension))
    model = inference(model)
    kept: list[tuple[Any, ...]] = []
    for number in range(positive_int("batches", batches)):
        points_key, noise_key = jax.random.split(jax.random.fold_in(key, number))
        points = np.asarray(subcube(points_key, n=n, free=free))
        noise_key = jax.random.fold_in(key, batches) if reuse else noise_key
        moved = average_direction(
            _output, model, points, np.zeros(len(points)), key=noise_key, size=size, kind=kind,
            draws=draws, where=where, batch_size=len(points) * draws,
        ).increase  # fmt: skip
        y = np.asarray(labels(jnp.asarray(points)), np.float64)
        f = np.asarray(_call(model, points), np.float64)
        g = f + moved
        losses = np.square(g - y).mean(axis=1) - np.square(f - y).mean()
        kept.append((4 * losses, 4 * np.square(moved).mean(axis=1), _slopes(f), _slopes(g)))
    increase, change, before, after = (np.stack(part) for part in zip(*kept, strict=True))
    return WeightNoise(increase, change, before, after, reuse)


@functools.partial(jax.jit, static_argnames=("n", "free"))
def subcube(key: Array, *, n: int, free: int) -> Float[Array, "N n"]:
    """All 2^free strings that agree outside ``free`` random bits; there they are random."""
    place_key, rest_key = jax.random.split(key)
    order = jax.random.permutation(place_key, n)
    rest = jax.random.rademacher(rest_key, (n,), jnp.float32)
    bits = jnp.arange(2**free)[:, None] >> jnp.arange(free - 1, -1, -1)[None] & 1
    points = jnp.broadcast_to(rest[None], (2**free, n))
    return points.at[:, order[:free]].set(1.0 - 2.0 * bits.astype(jnp.float32))


def _slopes(values: Float[np.ndarray, "... N"]) -> Float[np.ndarray, "..."]:
    """as / n of tables on the scale 0 to 1: the mean square difference between neighbours."""
    found = []
    for i in range(values.shape[-1].bit_length() - 1):
        pairs = values.reshape(*values.shape[:-1], -1, 2, 2**i)
        found.append(np.square(pairs[..., 0, :] - pairs[..., 1, :]).mean(axis=(-1, -2)))
    return np.asarray(np.mean(found, axis=0))


def _output(model: Any, inputs: Array, labels: Array) -> Array:
    return model(inputs)


@jax.jit
def _call(model: Any, points: Any) -> Array:
    return model(points)
