"""Sensitivity of sentences of many lengths: buckets joined, and read by position."""

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool

import jaxsens
from jaxsens.data.split import Split

# Positions counted from the last real token: one by one at the end, four by four before.
EDGES = np.concatenate([np.arange(16), np.arange(16, 129, 4)])
FEWEST = 10  # pairs that a place must have to be shown


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TextEstimate(jaxsens.SensitivityEstimate):
    """The estimate over all buckets, and what it says of places in the sentence.

    A text's tokens come first, its padding last. Each pair that is read has the standard error with
    texts as clusters, sqrt(n / (n - 1) sum_i (a_i - v b_i)^2) / sum_i b_i of the ratio v of the
    sums of a_i, a text's weighted flip rates, and b_i, its weights.
    """

    def _ratio(self, chosen: Bool[np.ndarray, "N T"]) -> tuple[float, float]:
        # A measured token stands for as many as there are real ones to each that was drawn.
        weights = np.where(chosen & ~np.isnan(self.rates), self._cell_weights, 0.0)
        each = weights.sum(1)
        has = each > 0
        if has.sum() < 2:
            return float("nan"), float("nan")
        flips = (weights * np.nan_to_num(self.rates)).sum(1)
        value = flips.sum() / each.sum()
        n = has.sum()
        spread = ((flips - value * each)[has] ** 2).sum()
        return float(value), float(np.sqrt(n / (n - 1) * spread) / each.sum())

    @property
    def _from_end(self) -> np.ndarray:
        """How many real tokens come after each; negative in the padding."""
        assert self.real is not None
        return self.real[:, None] - 1 - np.arange(self.rates.shape[1])[None]

    @property
    def _bins(self) -> list[tuple[float, float, float]]:
        place, found = self._from_end, []
        for low, high in itertools.pairwise(EDGES):
            chosen = (place >= low) & (place < high)
            if (chosen & ~np.isnan(self.rates)).any(axis=1).sum() >= FEWEST:
                found.append(((low + high - 1) / 2, *self._ratio(chosen)))
        return found

    @property
    def places(self) -> list[float]:
        """Positions counted from the end, 0 the last real token: the middle of each bin."""
        return [place for place, _, _ in self._bins]

    @property
    def by_place(self) -> list[float]:
        """Flip rate at each of ``places``, over the texts that are long enough."""
        return [value for _, value, _ in self._bins]

    @property
    def by_place_stderr(self) -> list[float]:
        return [error for _, _, error in self._bins]

    @property
    def cls(self) -> list[float]:
        """Flip rate of the first token and its standard error."""
        return list(self._ratio(np.arange(self.rates.shape[1])[None] == 0))

    @property
    def rest(self) -> list[float]:
        """The same for all other tokens."""
        return list(self._ratio(np.arange(self.rates.shape[1])[None] > 0))

    @property
    def tokenwise(self) -> list[float]:
        """The mean over all tokens of all texts, as the published code takes it; its error."""
        return list(self._ratio(np.ones((1, self.rates.shape[1]), bool)))


KEPT = ("tokenwise", "cls", "rest", "places", "by_place", "by_place_stderr")
PAIRED = ("per_example", "fingerprint")


def measure(
    model: Any, parts: Sequence[Split], *, key: Array, read: Any, embed: Any, **settings: Any
) -> TextEstimate:
    """``jaxsens.sensitivity`` of each part, as one estimate over all of their texts.

    ``embed(model, inputs)`` is what the noise acts on, with the mask, and ``read(model, embedded)``
    takes it on to the logits.
    """
    partial = jax.tree_util.Partial
    return joined(
        [
            jaxsens.sensitivity(
                partial(read, model),
                part.inputs,
                embed=partial(embed, model),
                perturb="vectors",
                decision="argmax",
                key=jax.random.fold_in(key, number),
                **settings,
            )
            for number, part in enumerate(parts)
        ]
    )


def joined(parts: Sequence[jaxsens.SensitivityEstimate]) -> TextEstimate:
    """One estimate of the examples of several, each of which measured all alike."""
    tokens = max(part.rates.shape[1] for part in parts)
    rates = [
        np.pad(part.rates, ((0, 0), (0, tokens - part.rates.shape[1])), constant_values=np.nan)
        for part in parts
    ]
    prints = "".join(str(part.fingerprint) for part in parts)
    return TextEstimate(
        np.concatenate(rates),
        sum(part.forward_passes for part in parts),
        real=np.concatenate([np.asarray(part.real) for part in parts]),
        fingerprint=hashlib.sha256(prints.encode()).hexdigest()[:16],
    )
