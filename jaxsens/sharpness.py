"""Flatness: what moves when the weights are nudged (paper A, Table 2; paper B, Section 4)."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from jaxsens._check import checked_inputs, checked_key, positive_float, positive_int
from jaxsens._decision import judge
from jaxsens._inference import inference
from jaxsens._model import compile_once
from jaxsens._weights import Kind, Weights, Where, check_kind, crossed, nudge, with_weights

AT_ONCE = 2**28  # bytes of nudged weights that are held together
ROWS = 512  # forward rows at a time, over all draws that are held together

# loss(model, inputs, labels) -> one value for each example, (B,)
Loss = Callable[[Any, Any, Array], Array]
# outputs of a model at nudged weights: nudged(model, inputs, key)
Nudged = Callable[[Any, Any, Array], Array]


@dataclasses.dataclass(frozen=True, eq=False)
class OutputSharpness:
    """ShOp and ShPred with standard errors over draws and examples.

    ``change`` (R, N) is |Phi(theta; x) - Phi(theta + xi; x)| for each draw and example, ``flips``
    (R, N) whether the decision changed.
    """

    change: Float[np.ndarray, "R N"] = dataclasses.field(repr=False)
    flips: Bool[np.ndarray, "R N"] = dataclasses.field(repr=False)
    shop: float = dataclasses.field(init=False)
    shop_stderr: float = dataclasses.field(init=False)
    shpred: float = dataclasses.field(init=False)
    shpred_stderr: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        for name, values in (("shop", self.change), ("shpred", self.flips)):
            value, error = crossed(values)
            object.__setattr__(self, name, value)
            object.__setattr__(self, f"{name}_stderr", error)


class LossSharpness(NamedTuple):
    """Mean increase of the loss, its standard error, and the increase for draw and example."""

    value: float
    stderr: float
    increase: Float[np.ndarray, "R N"]


def outputs(
    model: Any,
    inputs: Any,
    *,
    key: Array,
    size: float = 0.005,
    kind: Kind = "std",
    draws: int = 5,
    reduce: Literal["mean", "sum"] = "mean",
    decision: Any = None,
    where: Where | None = None,
    nudged: Nudged | None = None,
    batch_size: int = ROWS,
) -> OutputSharpness:
    """How far outputs and decisions move when the weights do (paper A, Section 7, Table 2).

    ::

        ShOp   = E_x E_xi |Phi(theta; x) - Phi(theta + xi; x)|
        ShPred = E_x E_xi 1[ decision(theta; x) != decision(theta + xi; x) ]

    Args:
      model: any callable pytree ``inputs -> outputs`` (N, C) or (N,) that shows its weights,
        evaluated in inference mode.
      inputs: an array (N, ...) or a pytree of such arrays.
      key: a PRNG key; draw r is the same whatever ``batch_size`` and ``draws`` are.
      size: how large the noise is: a **standard deviation**, 0.005 in the paper's text (the
        published code's default is 0.05), or what ``kind`` makes of it.
      kind: ``std`` (every weight), ``relative`` (times each tensor's root mean square), ``norm``
        (std size / sqrt(#weights)), ``sphere`` (norm exactly ``size``).
      draws: R, nudges of the weights; all examples see the same ones.
      reduce: how the C logits of an example are joined: their mean, or their sum as in the
        published code.
      decision: what the outputs decide, as for ``jaxsens.sensitivity``.
      where: ``where(path, array)`` chooses the weights that are nudged; None for all.
      nudged: what is evaluated at the nudged weights, when it is not the model in inference mode:
        ``nudged(model, inputs, key)`` with the model as it was given. The published code leaves
        dropout on there.
      batch_size: forward rows at a time; nudged weights of a quarter of a gigabyte at a time are
        evaluated together.

    Raises TypeError or ValueError for arguments that cannot be right, a model without weights, and
    outputs that are NaN.
    """
    if reduce not in ("mean", "sum"):
        raise ValueError(f"reduce must be mean or sum, got {reduce!r}")
    weights = Weights(inference(model), where)
    models: tuple[Any, ...] = (weights.model(weights.arrays),)
    given = weights
    if nudged is not None:
        given = Weights(model, where)
        models = (*models, model)
    settings = _Settings(given.chosen, nudged, reduce, decision)
    change, flips = _over_draws(
        _compare_outputs(models, settings),
        given,
        _placed(inputs),
        key=key,
        size=size,
        kind=kind,
        draws=draws,
        batch_size=batch_size,
    )
    return OutputSharpness(change.astype(np.float64), flips.astype(bool))


def average_direction(
    loss: Loss,
    model: Any,
    inputs: Any,
    labels: Any,
    *,
    key: Array,
    size: float = 0.02,
    kind: Kind = "std",
    draws: int = 10,
    where: Where | None = None,
    batch_size: int = ROWS,
) -> LossSharpness:
    """Mean increase of a loss under noise on the weights (paper B, Section 4).

    ::

        E_xi E_x [ loss(theta + xi; x) - loss(theta; x) ]

    ``loss(model, inputs, labels)`` gives one value for each example; the model is in inference
    mode. ``size`` and ``kind`` as for :func:`outputs`: the paper has std 0.02 (``kind="std"``), or
    rho / sqrt(#weights) (``"norm"``), or the sphere of radius rho (``"sphere"``), and leaves the
    position embeddings as they are (``where=lambda path, _: "position" not in path``).
    """
    weights = Weights(inference(model), where)
    compare = _compare_losses((weights.model(weights.arrays),), _LossSettings(weights.chosen, loss))
    data = _placed(Labelled(inputs, np.asarray(labels)))
    (increase,) = _over_draws(
        compare, weights, data, key=key, size=size, kind=kind, draws=draws, batch_size=batch_size
    )
    increase = increase.astype(np.float64)
    return LossSharpness(*crossed(increase), increase)


class Labelled(NamedTuple):
    """Examples and what a loss compares them with."""

    inputs: Any
    labels: Any


class _Settings(NamedTuple):
    """What of a comparison of outputs is no array: one program for each."""

    chosen: tuple[bool, ...]
    nudged: Nudged | None
    reduce: str
    decision: Any


class _LossSettings(NamedTuple):
    """What of a comparison of losses is no array."""

    chosen: tuple[bool, ...]
    loss: Loss


@compile_once
def _compare_outputs(
    models: tuple[Any, ...], settings: _Settings, stacked: list[Array], keys: Array, batch: Any
) -> tuple[Array, Array]:
    """Changes of outputs, and of decisions, (R, B) each, for R nudged sets of weights.

    ``models`` are the one in inference mode and, where ``nudged`` is asked for, the one given.
    """
    before = _outputs(models[0](batch))
    join = {"mean": jnp.mean, "sum": jnp.sum}[settings.reduce]

    def one(arrays: list[Array], draw_key: Array) -> tuple[Array, Array]:
        moved = with_weights(models[-1], settings.chosen, arrays)
        nudged = settings.nudged
        after = _outputs(moved(batch) if nudged is None else nudged(moved, batch, draw_key))
        change = join(jnp.abs(after - before).reshape(len(before), -1), axis=1)
        first, second = (judge(found, settings.decision).decision for found in (before, after))
        return change, first != second

    return jax.vmap(one)(stacked, keys)


@compile_once
def _compare_losses(
    models: tuple[Any, ...], settings: _LossSettings, stacked: list[Array], keys: Array, batch: Any
) -> tuple[Array]:
    """Increases of the loss of each example, (R, B), for R nudged sets of weights."""

    def values(model: Any) -> Array:
        return settings.loss(model, batch.inputs, batch.labels)

    moved = jax.vmap(lambda arrays: values(with_weights(models[0], settings.chosen, arrays)))
    return (moved(stacked) - values(models[0])[None],)


@functools.partial(jax.jit, static_argnames="kind")
def _moved(own: list[Array], keys: Array, size: float, *, kind: Kind) -> list[Array]:
    """The weights nudged once for each key, stacked."""

    def one(draw_key: Array) -> list[Array]:
        noise = nudge(own, draw_key, size=size, kind=kind)
        return [a + n for a, n in zip(own, noise, strict=True)]

    return jax.vmap(one)(keys)


def _outputs(found: Any) -> Array:
    if not isinstance(found, jax.Array):
        raise TypeError(f"the model returned {type(found).__name__}; expected one array")
    return found


def _placed(data: Any) -> Any:
    return jax.device_put(checked_inputs(data))


def batches(data: Any, size: int) -> Iterator[tuple[int, Any]]:
    """Equal batches, and how many of the last rows of each are new: the last may repeat some."""
    count = len(jax.tree.leaves(data)[0])
    size = min(size, count)
    for start in range(0, count, size):
        first = min(start, count - size)
        taken = slice(first, first + size)
        yield first + size - start, jax.tree.map(operator.itemgetter(taken), data)


def _over_draws(
    compare: Callable[..., Sequence[Array]],
    weights: Weights,
    data: Any,
    *,
    key: Array,
    size: float,
    kind: Kind,
    draws: int,
    batch_size: int,
) -> list[np.ndarray]:
    """What ``compare(nudged, keys, batch)`` finds, (R, N) each, some draws at a time."""
    check_kind(kind)
    size, draws = positive_float("size", size), positive_int("draws", draws)
    rows = positive_int("batch_size", batch_size)
    bytes_each = sum(a.nbytes for a in weights.arrays)
    together = max(1, min(draws, AT_ONCE // max(bytes_each, 1), rows))
    keys = jax.vmap(functools.partial(jax.random.fold_in, checked_key(key)))(jnp.arange(draws))

    parts = []
    for start in range(0, draws, together):
        # As many again in the last part, so that one program serves all of them.
        numbers = (start + np.arange(together)) % draws
        moved = _moved(weights.arrays, keys[numbers], size, kind=kind)
        found = [
            [np.asarray(values)[: draws - start, -new:] for values in compared]
            for new, compared in (
                (new, compare(moved, keys[numbers], batch))
                for new, batch in batches(data, max(1, rows // together))
            )
        ]
        parts.append([np.concatenate(columns, axis=1) for columns in zip(*found, strict=True)])
    result = [np.concatenate(part, axis=0) for part in zip(*parts, strict=True)]
    if np.isnan(result[0]).any():
        draw, example = np.argwhere(np.isnan(result[0]))[0]
        raise ValueError(
            f"the outputs are NaN for draw {draw} and example {example}; make size ({size:g}) "
            "smaller or check the model's parameters"
        )
    return result
