"""What a model's outputs decide, by what margin, and when they decide nothing."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jaxsens._pytree import pytree

NAN = -2  # the decision of outputs with NaN; others are >= -1
# Margins of rows that decide nothing; a margin is >= 0, and NaN where an output is.
TIED_INFINITE, INTEGERS = -1.0, -2.0
ARGMAX, SIGN, LABEL, OTHER = range(4)  # how outputs were read
FEW = 10  # examples that may well be decided alike


def decision(outputs: Array) -> Int[Array, " N"]:
    """The sign (-1, 0 or 1) of scalar outputs (N,) or (N, 1), the argmax of class logits (N, C).

    A scalar of exactly 0 is a third decision, and the first of several equal largest logits wins.
    Rows with NaN give -2. Raises ValueError for outputs of another shape,
    TypeError for complex ones.
    """
    scores = _scores(outputs)
    decided = jnp.sign(scores[:, 0]) if scores.shape[1] == 1 else jnp.argmax(scores, axis=1)
    return jnp.where(jnp.isnan(scores).any(axis=1), NAN, decided.astype(jnp.int32))


@pytree(data=("value",))
@dataclasses.dataclass(frozen=True)
class Threshold:
    """The decision ``sign(output - value)`` of scalar outputs (N,) or (N, 1): -1, 0 or 1.

    ``Threshold(0.5)`` for the probabilities of a sigmoid. Raises TypeError when ``value`` is no
    number, ValueError when it is not finite.
    """

    value: float | np.float32

    def __post_init__(self) -> None:
        if isinstance(self.value, bool | str) or np.ndim(self.value):
            raise TypeError(f"a threshold must be a number, got {self.value!r}")
        if not np.isfinite(float(self.value)):
            raise ValueError(f"a threshold must be finite, got {float(self.value)}")


class Own:
    """The user's function: outputs (N, ...) -> integers (N,). Compared by identity."""

    def __init__(self, function: Callable[[Array], Array]) -> None:
        self.function = function


def checked_decision(value: Any) -> Any:
    """``decision=`` as the program takes it. Raises TypeError or ValueError."""
    if value is None:
        return None
    if value is decision:
        return "either"
    if isinstance(value, Threshold):  # traced, so that another one is not another program
        return Threshold(np.float32(value.value))
    if isinstance(value, str):
        if value in ("argmax", "sign", "label"):
            return value
    elif isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return Threshold(np.float32(value))
    elif callable(value) and not isinstance(value, type):
        return Own(value)
    raise (ValueError if isinstance(value, str) else TypeError)(
        "decision must be 'argmax', 'sign', 'label', jaxsens.decision for either of the first two, "
        f"a threshold such as 0.5, or a function outputs -> integers (N,), got {value!r}"
    )


class Verdicts(NamedTuple):
    """For each row: the decision, how far it is from another one, the largest |output|.

    ``reading`` says how the outputs were read.
    """

    decision: Int[Array | np.ndarray, "*rows"]
    margin: Float[Array | np.ndarray, "*rows"]
    size: Float[Array | np.ndarray, "*rows"]
    reading: Int[Array | np.ndarray, ""]


def judge(outputs: Array, decision: Any = None) -> Verdicts:
    """What outputs decide, read as ``decision`` says (of :func:`checked_decision`).

    None reads class logits (N, C) by argmax, scalars (N,) or (N, 1) by sign, and takes booleans
    and the integers -1, 0, 1 as they are: there both readings agree. Margins are |scalar|, the
    distance to the threshold, the difference of the top two logits, 1 for labels; of a user's
    function some number that changes with the outputs.
    """
    if isinstance(decision, Own):
        return _own(outputs, decision.function)
    scores = _scores(outputs)
    is_scalar = scores.shape[1] == 1
    if decision == "argmax" if is_scalar else decision not in (None, "argmax", "either"):
        name = f"Threshold({decision.value})" if isinstance(decision, Threshold) else decision
        expected = "(N, C) with C > 1" if decision == "argmax" else "(N,) or (N, 1)"
        raise ValueError(
            f"decision={name!r} reads outputs of shape {expected}, but the model's output has "
            f"shape {outputs.shape}; for other outputs pass a function outputs -> integers (N,)"
        )
    if not is_scalar:
        return _argmax(scores)
    values = scores[:, 0]
    whole = jnp.issubdtype(outputs.dtype, jnp.integer) or outputs.dtype == bool
    if decision == "label" or (decision is None and whole):
        return _label(values, refuse=decision is None)
    if isinstance(decision, Threshold):
        values = values.astype(jnp.float32) - decision.value
    wide = jnp.abs(values.astype(jnp.float32))
    return _verdicts(jnp.nan_to_num(jnp.sign(values)), wide, wide, SIGN)


def _verdicts(decision: Array, margin: Array, size: Array, reading: int) -> Verdicts:
    margin, size = margin.astype(jnp.float32), size.astype(jnp.float32)
    return Verdicts(decision.astype(jnp.int32), margin, size, jnp.asarray(reading, jnp.int32))


def _argmax(logits: Array) -> Verdicts:
    best = jnp.argmax(logits, axis=1)
    is_best = jnp.arange(logits.shape[1])[None] == best[:, None]
    wide = logits.astype(jnp.float32)
    top, second = jnp.max(wide, axis=1), jnp.max(jnp.where(is_best, -jnp.inf, wide), axis=1)
    infinite = jnp.isinf(jnp.max(logits, axis=1))
    # A single +inf beats the others by more than any number does.
    margin = jnp.where(infinite, jnp.inf, jnp.where(jnp.isinf(top), 0.0, top) - second)
    rivals = jnp.isinf(logits) & (logits == jnp.max(logits, axis=1)[:, None])
    margin = jnp.where(infinite & (rivals.sum(1) > 1), TIED_INFINITE, margin)
    margin = jnp.where(jnp.isnan(logits).any(axis=1), jnp.nan, margin)
    size = jnp.max(jnp.abs(jnp.where(jnp.isfinite(wide), wide, 0.0)), axis=1)
    return _verdicts(best, margin, size, ARGMAX)


def _label(values: Array, refuse: bool) -> Verdicts:
    """Whole numbers as they are; ``refuse`` those that a sign would read otherwise."""
    wide = jnp.abs(values.astype(jnp.float32))
    margin = jnp.where(jnp.isnan(wide), jnp.nan, 1.0)
    if refuse:
        margin = jnp.where(wide > 1, INTEGERS, margin)
    return _verdicts(jnp.nan_to_num(jnp.round(values.astype(jnp.float32))), margin, wide, LABEL)


def _own(outputs: Array, function: Callable[[Array], Array]) -> Verdicts:
    decided = function(outputs)
    rows = outputs.shape[:1]
    is_whole = isinstance(decided, jax.Array) and (
        jnp.issubdtype(decided.dtype, jnp.integer) or decided.dtype == bool
    )
    if not is_whole or decided.shape != rows:
        got = (
            f"{decided.dtype} of shape {decided.shape}"
            if isinstance(decided, jax.Array)
            else type(decided).__name__
        )
        raise ValueError(f"the function decision= must return integers of shape {rows}, got {got}")
    flat = outputs.reshape(*rows, -1).astype(jnp.float32)
    weights = jnp.cos(jnp.arange(flat.shape[1], dtype=jnp.float32) + 1)
    finite = jnp.where(jnp.isinf(flat), 0.0, flat)
    digest = jnp.abs((finite * weights[None]).sum(1))
    return _verdicts(decided, digest, jnp.max(jnp.abs(finite), axis=1), OTHER)


class Seen:
    """What a measurement's verdicts say together: whether they can be decisions of its model."""

    def __init__(self, decision: Any) -> None:
        self.explicit = decision is not None
        self.decisions: set[int] = set()
        self.low, self.high = float("inf"), -float("inf")
        self.whole, self.reading = True, OTHER

    def add(self, verdicts: Verdicts) -> None:
        """Take in the verdicts of some rows, none of which holds NaN."""
        self.reading = int(verdicts.reading)
        few = np.unique(verdicts.decision)[:3]
        self.decisions.update(few.tolist() if len(self.decisions) < 2 else ())
        if self.reading == SIGN:
            values = np.asarray(verdicts.decision) * np.asarray(verdicts.margin)
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))
            self.whole &= bool((values == np.round(values)).all())

    def check(self, examples: int, stacklevel: int) -> None:
        """Raises ValueError for scalars whose sign means nothing; warns where nothing is decided.

        Only for outputs that were read without being told how.
        """
        if self.explicit:
            return
        if self.reading == SIGN and self.low >= 0 and not (self.whole and self.high <= 1):
            found = f"the model's outputs are never negative ({self.low:.3g} to {self.high:.3g})"
            if self.high <= 1:
                raise ValueError(
                    f"{found}: probabilities? Their sign decides nothing; pass decision=0.5 for "
                    "them (decision='sign' if the sign is meant)"
                )
            if self.whole:
                raise ValueError(
                    f"{found} and whole numbers: class labels? Pass decision='label' for them "
                    "(decision='sign' if the sign is meant)"
                )
        if len(self.decisions) == 1 and examples >= FEW:
            warnings.warn(
                f"the model decides {self.decisions.pop()} for all {examples} examples, clean and "
                "perturbed: is it trained, and are these its logits? If so, pass decision="
                f"{ {ARGMAX: 'argmax', SIGN: 'sign'}.get(self.reading, 'label')!r}",
                stacklevel=stacklevel,
            )


def problem(margin: float) -> tuple[str, str]:
    """What the model did where a row has a margin < 0 or NaN, and what to do."""
    if np.isnan(margin):
        return "returned NaN", "sensitivity needs finite outputs: check the model's parameters"
    if margin == TIED_INFINITE:
        return "has several largest logits, all infinite,", (
            "which class wins is chance: did they overflow (compute logits in float32), or is "
            "every class masked?"
        )
    return "returned an integer other than -1, 0 and 1", (
        "pass decision='label' for class labels, decision='sign' for scores"
    )


def _scores(outputs: Array) -> Array:
    """The outputs as (N, C), with C = 1 for scalars."""
    if jnp.issubdtype(outputs.dtype, jnp.complexfloating):
        raise TypeError(f"the model's output is {outputs.dtype}; expected real numbers")
    if outputs.ndim not in (1, 2) or (outputs.ndim == 2 and outputs.shape[1] == 0):
        raise ValueError(
            f"the model's output has shape {outputs.shape}; expected (N,) for a scalar or (N, C) "
            "for class logits: wrap the model so that it returns one of these, or say by "
            "decision= how to read it"
        )
    if outputs.dtype == bool:
        outputs = outputs.astype(jnp.int32)
    return outputs[:, None] if outputs.ndim == 1 else outputs
