"""The forward rows of a measurement: which example, token and draw each one is."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

CLEAN = -1  # the "token" of a row that is left as it is
NAN = -2  # the "decision" of an output that holds NaN; real decisions are >= -1


class Rows(NamedTuple):
    """For each forward row: its example's place in the block, the example, the token, the draw."""

    local: Int[Array | np.ndarray, " rows"]
    example: Int[Array | np.ndarray, " rows"]
    token: Int[Array | np.ndarray, " rows"]
    draw: Int[Array | np.ndarray, " rows"]


class Plan:
    """One clean row for each example, then ``repeats`` rows for each of its chosen tokens.

    ``examples`` (n,) are the examples' numbers, ascending; ``chosen`` (n, T) the tokens to measure.
    """

    def __init__(
        self, examples: Int[np.ndarray, " n"], chosen: Bool[np.ndarray, "n T"], repeats: int
    ) -> None:
        self.examples, self.chosen, self.repeats = examples, chosen, repeats
        self.tokens = np.nonzero(chosen)[1]
        chosen_each = chosen.sum(1)
        self.first_token = np.cumsum(chosen_each) - chosen_each
        self.rows_each = 1 + repeats * chosen_each
        self.ends = np.cumsum(self.rows_each)
        self.total = int(self.ends[-1])

    def rows(self, index: Int[np.ndarray, " rows"]) -> Rows:
        """What the rows of these numbers are; ``local`` counts from the first row's example."""
        place = np.searchsorted(self.ends, index, side="right")
        within = index - (self.ends - self.rows_each)[place] - 1
        token, draw = np.divmod(np.maximum(within, 0), self.repeats)
        token = np.where(within < 0, CLEAN, self.tokens[self.first_token[place] + token])
        columns = place - place[0], self.examples[place], token, draw
        return Rows(*(column.astype(np.int32) for column in columns))

    def batches(
        self, batch_size: int, block: int
    ) -> Iterator[tuple[Int[np.ndarray, " block"], Rows]]:
        """Blocks of ``block`` examples with their rows, always of the same sizes.

        ``block`` is at least :meth:`block`. The last batch is filled up with copies of the last
        row.
        """
        for start in range(0, self.total, batch_size):
            rows = self.rows(np.minimum(np.arange(start, start + batch_size), self.total - 1))
            first = int(np.searchsorted(self.examples, rows.example[0]))
            place = np.minimum(first + np.arange(block), len(self.examples) - 1)
            yield self.examples[place], rows

    def block(self, batch_size: int) -> int:
        """The most examples that ``batch_size`` consecutive rows can touch."""
        return (batch_size - 2) // int(self.rows_each.min()) + 2

    def rates(self, decisions: Int[np.ndarray, " total"]) -> Float[np.ndarray, "n T"]:
        """Share of draws whose decision differs from the clean one, NaN for tokens not chosen."""
        is_clean = np.zeros(self.total, bool)
        is_clean[self.ends - self.rows_each] = True
        clean = np.repeat(decisions[is_clean], self.rows_each - 1)
        rates = np.full(self.chosen.shape, np.nan)
        rates[self.chosen] = (decisions[~is_clean] != clean).reshape(-1, self.repeats).mean(1)
        return rates


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
