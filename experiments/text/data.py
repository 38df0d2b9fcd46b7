"""The sentences of the language experiment: tokenised, in buckets, and the parts to measure."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from experiments.run.cli import UserError
from experiments.run.data import check_batch
from jaxsens.data.buckets import Buckets, bucket_lengths, bucketed
from jaxsens.data.split import Split
from jaxsens.data.text import Pairs, Tokenizer, load

SEED = (
    42  # of the choice of sentences, which are the same at every evaluation and for every network
)
MULTIPLE = 8  # widths of buckets are multiples of it, as far as the longest sentence allows


@dataclasses.dataclass(frozen=True)
class Texts:
    """What is trained on and what is measured; parts are tuples of splits of one width each."""

    name: str
    source: str
    tokenizer: Tokenizer
    train: Split
    validation: Split
    batches: Buckets
    evaluated: dict[str, tuple[Split, ...]]  # of training and validation, for loss and accuracy
    measured: dict[str, tuple[Split, ...]]  # for sensitivity
    curve: tuple[Split, ...]  # for sensitivity in training

    def described(self) -> dict[str, Any]:
        """What the record says of them."""
        lengths = _lengths(self.train)
        tokens = int(lengths.sum())
        return {
            "name": self.name,
            "source": self.source,
            "train": len(self.train.labels),
            "validation": len(self.validation.labels),
            "share of label 1": float(np.mean(self.train.labels)),
            "validation share of label 1": float(np.mean(self.validation.labels)),
            "vocabulary": self.tokenizer.size,
            "tokens a pair": float(lengths.mean()),
            "longest": int(lengths.max()),
            "widths": list(self.batches.widths),
            "tokens": tokens,
            "padded to widths": int(
                sum(self.batches.widths[kind] for kind in self.batches.kinds) * self.batches.size
            ),
            "padded to the longest": self.train.inputs["ids"].size,
            "measured": {part: _count(splits) for part, splits in self.measured.items()},
            "curve": _count(self.curve),
        }


def load_texts(config: Any) -> tuple[Texts, str]:
    """The pairs as the options ask, and the line that announces them. Raises UserError."""
    data = load(config.task, config.data)
    train = _subset(data.train, config.examples, "--examples")
    validation = _subset(data.validation, config.validation_examples, "--validation-examples")
    if config.tokenizer is None:
        tokenizer = Tokenizer.train(train.sentences(), vocabulary=config.vocabulary)
    else:
        tokenizer = Tokenizer.read(config.tokenizer)
    splits = {
        name: _encoded(tokenizer, pairs, config.max_length)
        for name, pairs in (("train", train), ("validation", validation))
    }
    check_batch(config.batch_size, splits["train"])
    lengths = _lengths(splits["train"])
    longest = max(int(_lengths(split).max()) for split in splits.values())
    widths = bucket_lengths(lengths, config.buckets, MULTIPLE)
    evaluation = (*widths[:-1], longest)
    shortest = min(int(_lengths(split).min()) for split in splits.values())
    for option, count in (("--curve-tokens", config.curve_tokens), ("--tokens", config.tokens)):
        if count is not None and count > shortest:
            raise UserError(
                f"{option} must be at most {shortest}, the tokens of the shortest pair, got {count}"
            )

    def parts(split: str, count: int | None) -> tuple[Split, ...]:
        chosen = _first(splits[split], count)
        return bucketed(chosen, _lengths(chosen), evaluation)

    measured = {name: parts(name, config.sensitivity_examples) for name in splits}
    texts = Texts(
        data.name,
        data.source,
        tokenizer,
        splits["train"],
        splits["validation"],
        Buckets(splits["train"], lengths, widths, config.batch_size),
        {name: parts(name, config.evaluate_examples) for name in splits},
        measured,
        parts("train", min(config.curve_examples, _count(measured["train"]))),
    )
    line = (
        f"training on {len(lengths)} pairs of {data.name} from {data.source}, "
        f"{tokenizer.size} sub-words, in widths of {', '.join(map(str, widths))} tokens"
    )
    return texts, line


def _subset(pairs: Pairs, count: int | None, option: str) -> Pairs:
    """A fixed random part of the pairs; all of them for None."""
    total = len(pairs.labels)
    if total < 2:
        raise UserError(
            f"{option}: the data have {total} pair; expected at least 2, for a standard error"
        )
    if count is None:
        return pairs
    if not 2 <= count <= total:
        raise UserError(f"{option} must lie between 2 and {total}, got {count}")
    return pairs.take(np.random.default_rng(0).permutation(total)[:count])


def _first(split: Split, count: int | None) -> Split:
    """At most the first so many of a random order that is always the same; all of them for None."""
    if count is None:
        return split
    return split.take(np.random.default_rng(SEED).permutation(len(split.labels))[:count])


def _encoded(tokenizer: Tokenizer, pairs: Pairs, max_length: int) -> Split:
    encoded = tokenizer.encode(pairs, max_length=max_length)
    return Split({"ids": encoded.inputs.ids, "mask": encoded.inputs.mask}, encoded.labels)


def _lengths(split: Split) -> Int[np.ndarray, " N"]:
    return np.asarray(split.inputs["mask"]).sum(1)


def _count(parts: Sequence[Split]) -> int:
    return sum(len(part.labels) for part in parts)
