"""Measures: a name, and what is computed of one trained network under it.

A new measure is one function and one line: ``Measure("sharpness", functools.partial(...))`` in an
experiment's list. What it is called in the record follows from the name alone.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flax import nnx
from jax import Array

import jaxsens


@dataclasses.dataclass(frozen=True)
class Measure:
    """A named quantity of a network in inference mode: ``compute(model, key)``.

    ``compute`` returns a number or an array; an estimate, that is anything with ``value`` and
    ``stderr``, of which the attributes in ``keep`` are recorded too; or several of these by part.
    """

    name: str
    compute: Callable[[nnx.Module, Array], Any]
    keep: tuple[str, ...] = ()

    def __call__(self, model: nnx.Module, key: Array) -> dict[str, Any]:
        """The fields of the record: see :func:`fields`.

        Raises FloatingPointError where the network's outputs are not finite.
        """
        try:
            value = self.compute(model, key)
        except ValueError as error:
            if "NaN" in str(error) or "inf" in str(error):  # the network's, under this much noise
                raise FloatingPointError(f"{self.name} cannot be measured: {error}") from None
            raise
        return fields(self.name, value, self.keep)


def fields(name: str, value: Any, keep: Iterable[str] = ()) -> dict[str, Any]:
    """What a value is called in a record.

    A number or array is ``name``; an estimate ``name`` and ``name_stderr``, and ``name_part`` for
    each part in ``keep``; a mapping ``name_key`` for each key (``name`` for the key "").
    """
    if isinstance(value, Mapping):
        named = {f"{name}_{part}" if part else name: inner for part, inner in value.items()}
        return {k: v for part, inner in named.items() for k, v in _one(part, inner, keep).items()}
    return _one(name, value, keep)


def _one(name: str, value: Any, keep: Iterable[str]) -> dict[str, Any]:
    if hasattr(value, "stderr"):
        parts = {f"{name}_{part}": getattr(value, part) for part in keep}
        return {name: value.value, f"{name}_stderr": value.stderr, **parts}
    return {name: value}


def sensitivity(name: str, inputs: Any, *, keep: tuple[str, ...] = (), **settings: Any) -> Measure:
    """``jaxsens.sensitivity`` on fixed inputs, as ``name`` and ``name_stderr``."""
    # Before it is trained, a model may well decide everything alike.
    settings = {"decision": jaxsens.decision, **settings}
    return Measure(
        name, lambda model, key: jaxsens.sensitivity(model, inputs, key=key, **settings), keep
    )


def measured(measures: Iterable[Measure], model: nnx.Module, key: Array) -> dict[str, Any]:
    """The fields of all measures, each with the same key, so that estimates of two models pair."""
    return {name: value for measure in measures for name, value in measure(model, key).items()}
