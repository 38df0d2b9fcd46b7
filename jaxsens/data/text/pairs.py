"""Pairs of sentences in memory, each pair with the label 0 or 1."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Int

from jaxsens.data.dataset import DataError

MAX_CHARACTERS = 2**15  # of a sentence: far beyond what 128 tokens can hold
MAX_PAIRS = 2_000_000  # four times QQP


class Pairs(NamedTuple):
    """``first[i]`` and ``second[i]`` are a pair, ``labels[i]`` is 1 where they say the same."""

    first: Sequence[str]
    second: Sequence[str]
    labels: Int[np.ndarray, " N"]

    def take(self, indices: Sequence[int] | Int[np.ndarray, " n"]) -> Self:
        """The pairs of these numbers."""
        chosen = np.asarray(indices)
        return type(self)(
            [self.first[i] for i in chosen], [self.second[i] for i in chosen], self.labels[chosen]
        )

    def sentences(self) -> Iterator[str]:
        """Every sentence, for a tokenizer to be trained on."""
        yield from self.first
        yield from self.second


@dataclasses.dataclass(frozen=True)
class TextData:
    """Pairs to train on and to validate with; ``name`` and ``source`` say what they are."""

    name: str
    source: str
    train: Pairs
    validation: Pairs


def checked(first: list[str], second: list[str], labels: list[int], where: str) -> Pairs:
    """The pairs, or DataError starting with ``where`` for what is no sentence or no label.

    A sentence is not empty, holds no NUL, and has at most 32,768 characters; a label is 0 or 1, and
    both occur.
    """
    if not labels:
        raise DataError(f"{where} holds no pairs")
    if len(labels) > MAX_PAIRS:
        raise DataError(f"{where} holds more than {MAX_PAIRS} pairs")
    for number, pair in enumerate(zip(first, second, strict=True), 1):
        for sentence in pair:
            if not sentence.strip():
                raise DataError(f"{where} has an empty sentence in pair {number}")
            if "\0" in sentence:
                raise DataError(f"{where} has a NUL character in pair {number}; it is not text")
            if len(sentence) > MAX_CHARACTERS:
                raise DataError(
                    f"{where} has a sentence of {len(sentence)} characters in pair {number}; "
                    f"expected at most {MAX_CHARACTERS}"
                )
    values = np.asarray(labels)
    if values.dtype.kind not in "iu" or not np.isin(values, (0, 1)).all():
        wrong = next(label for label in labels if label not in (0, 1))
        hint = "; -1 marks labels that are not published" if wrong == -1 else ""
        raise DataError(f"{where} has the label {wrong!r}; expected 0 or 1{hint}")
    if len(np.unique(values)) < 2:
        raise DataError(f"{where} has only pairs of label {values[0]}; expected both 0 and 1")
    return Pairs(first, second, values.astype(np.int32))
