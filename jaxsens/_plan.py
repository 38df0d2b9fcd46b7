"""The forward rows of a measurement: which example, token and draw each one is."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int

CLEAN = -1  # the "token" of a row that is left as it is


class Rows(NamedTuple):
    """For each forward row: its example's place in the block, the example, the token, the draw."""

    place: Int[Any, "*rows"]
    example: Int[Any, "*rows"]
    token: Int[Any, "*rows"]
    draw: Int[Any, "*rows"]


class Call(NamedTuple):
    """What one call of the compiled program is given: K batches of B rows.

    ``chunk`` are the examples that the call needs, ``offsets`` (K,) where in the chunk each batch's
    block of examples starts, ``rows`` (K, B) with places counted from there. ``batches`` of
    them are real; the rows behind the last one repeat it.
    """

    chunk: Int[np.ndarray, " chunk"]
    offsets: Int[np.ndarray, " K"]
    rows: Rows
    batches: int


class Plan:
    """For each example a clean row, then ``draws`` rows for each token.

    ``examples`` (n,) are the examples' numbers, ascending; ``draws`` (n, T) says how often each
    token is drawn, ``first`` (n, T) which number the first of these draws has (0 by default), so
    that a later plan goes on where an earlier one stopped. ``clean=False`` leaves the clean rows
    out; then every example needs a draw.
    """

    def __init__(
        self,
        examples: Int[np.ndarray, " n"],
        draws: Int[np.ndarray, "n T"],
        first: Int[np.ndarray, "n T"] | None = None,
        clean: bool = True,
    ) -> None:
        self.examples, self.draws, self.clean = examples, draws, clean
        # A cell is a run of rows of one example and token; column 0 is the clean "token".
        cells = np.concatenate([np.full((len(draws), 1), int(clean)), draws], axis=1)
        self.rows_each = cells.sum(1)
        self.place, column = np.nonzero(cells)
        self.token = column - 1
        self.first_draw = np.zeros(len(column), np.int64)
        if first is not None:
            noised = self.token != CLEAN
            self.first_draw[noised] = first[self.place[noised], self.token[noised]]
        self.count = cells[self.place, column]
        self.ends = np.cumsum(self.count)
        self.total = int(self.ends[-1]) if len(self.ends) else 0

    def rows(self, index: Int[np.ndarray, " rows"]) -> Rows:
        """What the rows of these numbers are; ``place`` counts in ``examples``."""
        cell = np.searchsorted(self.ends, index, side="right")
        place = self.place[cell]
        draw = self.first_draw[cell] + index - (self.ends[cell] - self.count[cell])
        columns = place, self.examples[place], self.token[cell], draw
        return Rows(*(column.astype(np.int32) for column in columns))

    def block(self, batch_size: int) -> int:
        """The most examples that ``batch_size`` consecutive rows can touch."""
        return (batch_size - 2) // int(self.rows_each.min()) + 2

    def calls(self, batch_size: int, batches: int, block: int) -> Iterator[tuple[int, Call]]:
        """The plan in calls of ``batches`` batches, each with the number of its first row.

        ``block`` is at least :meth:`block`. All calls have the same shapes.
        """
        size = batch_size * batches
        for start in range(0, self.total, size):
            rows = self.rows(np.minimum(np.arange(start, start + size), self.total - 1))
            by_batch = Rows(*(column.reshape(batches, batch_size) for column in rows))
            first = by_batch.place[:, 0]
            chunk = np.minimum(first[0] + np.arange(batches * block), len(self.examples) - 1)
            yield (
                start,
                Call(
                    self.examples[chunk],
                    first - first[0],
                    by_batch._replace(place=by_batch.place - first[:, None]),
                    min(batches, -(-(self.total - start) // batch_size)),
                ),
            )

    def flips(
        self,
        decisions: Int[np.ndarray, " total"],
        clean: Int[np.ndarray, " n"] | None = None,
    ) -> Int[np.ndarray, "n T"]:
        """How many draws of each token decide otherwise than the clean row of their example.

        ``clean`` are the clean decisions where the plan holds no clean rows.
        """
        if clean is None:
            clean = decisions[(self.ends - self.count)[self.token == CLEAN]]
        differs = decisions != np.repeat(clean, self.rows_each)
        flips = np.zeros(self.draws.shape, np.int64)
        noised = self.token != CLEAN
        by_cell = np.add.reduceat(differs, self.ends - self.count, dtype=np.int64)
        flips[self.place[noised], self.token[noised]] = by_cell[noised]
        return flips


def rates(flips: Int[np.ndarray, "n T"], draws: Int[np.ndarray, "n T"]) -> np.ndarray:
    """Share of draws that flip, NaN where there was no draw."""
    return np.divide(flips, draws, out=np.full(flips.shape, np.nan), where=draws > 0)


def sample_tokens(
    key: jax.Array, valid: Bool[np.ndarray, "N T"], tokens_per_example: int
) -> Bool[np.ndarray, "N T"]:
    """Uniformly random sets of that many valid tokens, one set for each example."""
    available = valid.sum(1)
    if tokens_per_example > available.min():
        raise ValueError(
            f"tokens_per_example must be at most the number of tokens, got {tokens_per_example} "
            f"where example {available.argmin()} has {available.min()}; None measures all of them"
        )
    scores = np.where(valid, generator(key).random(valid.shape), 2.0)
    picked = np.argpartition(scores, tokens_per_example - 1, axis=1)[:, :tokens_per_example]
    chosen = np.zeros(valid.shape, bool)
    np.put_along_axis(chosen, picked, True, axis=1)
    return chosen


def generator(key: jax.Array) -> np.random.Generator:
    """A NumPy generator seeded by a JAX key, for choices made outside compiled code."""
    return np.random.default_rng(np.asarray(jax.random.bits(key, (4,), "uint32")).tolist())
