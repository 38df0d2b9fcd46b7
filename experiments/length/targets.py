"""What is learned: a word of the command line as a function of bit strings."""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from command.line import UserError
from command.options import check_memory
from jaxsens.data.batches import Fresh
from jaxsens.data.bit_functions import (
    BUILT_IN,
    FromTable,
    Function,
    average_sensitivity_of,
    checked_table,
    fresh,
    labels_of,
    rows_of,
)
from jaxsens.data.files.budget import Budget
from jaxsens.data.files.npy import read_body, read_header
from jaxsens.data.split import Split

LONGEST = 30  # bits of a table, whose rows are counted in int32


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A function of n bits: one of ``functions`` by its word, or a ``table`` of 2^n labels."""

    word: str
    n: int
    functions: Mapping[str, Function]
    table: np.ndarray | None = None

    def source(self, batch: int) -> Fresh:
        """Batches of uniform strings."""
        if self.table is None:
            return fresh(self.functions, self.word, n=self.n, batch=batch)
        return Fresh(FromTable(self.n, batch), {"table": self.table})

    def labels(self, points: Array) -> Array:
        """The labels of some strings."""
        if self.table is None:
            return labels_of(self.functions[self.word], jnp.asarray(points))
        return jnp.asarray(self.table)[rows_of(jnp.asarray(points))]

    def test(self, count: int, seed: int) -> Split:
        """The whole cube, or so many uniform strings where it has more."""
        from jaxsens import boolean

        if 2**self.n <= count:
            points = boolean.cube(self.n)
        else:
            points = jax.random.rademacher(jax.random.key(seed), (count, self.n), jnp.float32)
        return Split(np.asarray(points), np.asarray(self.labels(points)))

    @property
    def average_sensitivity(self) -> float | None:
        """as_n of the target in closed form, in ±1 units; None for a function of the user's."""
        return average_sensitivity_of(self.word, self.n) if self.word in BUILT_IN else None


def targets(words: Sequence[str], lengths: Sequence[int], *, seed: int) -> list[Target]:
    """Every function at every length. Raises UserError for a word that names none."""
    functions: dict[str, Function] = dict(BUILT_IN)  # always all: one program for every choice
    for word in words:
        if ":" in word and not word.endswith(".npy"):
            functions[word] = _imported(word, min(lengths))
    return [
        Target(word, n, functions, None if word in functions else _table(word, n, seed))
        for word in words
        for n in lengths
    ]


def _table(word: str, n: int, seed: int) -> np.ndarray:
    if word != "random" and not word.endswith(".npy"):
        raise UserError(
            f"--functions {word} is none of {', '.join(BUILT_IN)}, random, a .npy file of 2^n "
            "labels, and module:function"
        )
    if n > LONGEST:
        raise UserError(
            f"--functions {word} is a table of 2^n labels, which are counted up to n = {LONGEST}, "
            f"got --lengths {n}"
        )
    check_memory(16 * 2.0**n, "--lengths", n, f"the 2^{n} labels of --functions {word}")
    if word == "random":
        key = jax.random.fold_in(jax.random.key(seed), n)
        return np.asarray(jax.random.bernoulli(key, 0.5, (2**n,)), np.float32)
    path = Path(word)
    try:
        with path.open("rb") as file:
            found = read_body(file, read_header(file), Budget())
        return checked_table(found, n=n, name=word)
    except OSError as error:
        raise UserError(f"--functions {word} cannot be read: {error.strerror}") from None
    except ValueError as error:
        said = str(error) if word in str(error) else f"{word} is no table of labels: {error}"
        raise UserError(f"--functions: {said}") from None


def _imported(word: str, n: int) -> Function:
    """``module:function``, tried on two strings."""
    module, _, name = word.partition(":")
    try:
        function: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--functions {word} cannot be imported: {error}") from None
    try:
        found = jax.jit(lambda points: labels_of(function, points))(jnp.ones((2, n)))
    except Exception as error:  # whatever a function of somebody else's raises
        said = str(error).partition("\n")[0]
        raise UserError(
            f"--functions {word} is no function of points (N, {n}) in JAX that returns N bits or "
            f"numbers: {said}"[:400]
        ) from None
    if not np.isfinite(np.asarray(found)).all():
        raise UserError(f"--functions {word} returned {np.asarray(found)}; expected finite labels")
    return function
