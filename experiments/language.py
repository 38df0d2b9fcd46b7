"""Paraphrase or not: LSTM, RoBERTa (softmax, ReLU) and GPT-2 from scratch (paper A, Section 6).

Gaussian noise is added to the layer-normalised embedding of one sub-word of a pair of sentences.
Where the authors' code differs from the text, the text's definition is the default and an option,
or a second field of the record, has the code's.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

from command.options import (
    DRAWS,
    NOT_NEGATIVE,
    POSITIVE,
    VARIANCE,
    Choice,
    Count,
    Each,
    Number,
)
from experiments.run.cli import UserError, run
from experiments.run.experiment import conduct
from experiments.run.options import DataSource, Run, Seeds
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, finals, train_and_measure
from experiments.text import beside, interventions
from experiments.text.data import Texts, load_texts
from experiments.text.measures import during, final
from experiments.text.networks import NETWORKS, build, load_network, optimizer
from jaxsens.data.text import TASKS
from jaxsens.losses import accuracy, cross_entropy
from jaxsens.training import Trainer

EVERY = {"mrpc": 500, "qqp": 5000, "verses": 5000}  # training points


@dataclasses.dataclass(frozen=True)
class Config(Run, Seeds, DataSource):
    """Train language networks from scratch; measure noise on one embedded sub-word."""

    task: Annotated[str, Choice(tuple(TASKS))] = "mrpc"
    """mrpc, qqp, or verses: the same verse or not, which installed packages carry (--data
    embedded)."""
    arch: Annotated[tuple[str, ...], Choice((*NETWORKS, "none")), Each(least=1)] = (
        "lstm",
        "roberta",
        "roberta-relu",
    )
    """lstm, roberta, roberta-relu or gpt2; several are trained one after the other. none: only
    compare the runs of --beside."""
    data: str = "tfds"
    """tfds, embedded, or the path of GLUE's or the MSR corpus' files."""
    sigma2: Annotated[tuple[float, ...], VARIANCE, Each(least=1)] = (15.0,)
    """Variances (not standard deviations) of the noise. The first is that of the curves; the others
    are measured at the end."""
    depth: Annotated[int, Count(most=256)] = 4
    """Layers."""
    heads: Annotated[int, Count(most=2**10)] = 8
    """Attention heads."""
    width: Annotated[int, Count(most=2**14)] = 256
    """Width of embeddings and states."""
    hidden: Annotated[int | None, Count(most=2**16)] = None
    """Width of the transformers' MLP; None for the paper's 12 (RoBERTa) or 4 (GPT-2) times
    --width."""
    dropout: Annotated[float, Number(least=0, below=1)] = 0.1
    """Dropout in training."""
    vocabulary: Annotated[int, Count(least=260, most=2**20)] = 8000
    """Sub-words of the byte-level BPE that is trained on the training pairs."""
    tokenizer: Path | None = None
    """tokenizer.json, or the folder of vocab.json and merges.txt, in place of one trained here."""
    max_length: Annotated[int, Count(least=6, most=512)] = 128
    """Tokens of a pair at most; the longer sentence gives up its end first."""
    buckets: Annotated[int, Count(most=16)] = 4
    """In how many widths sequences are batched."""
    examples: Annotated[int | None, Count()] = None
    """Train on a fixed random part of so many pairs."""
    validation_examples: Annotated[int | None, Count()] = None
    """Validate on a fixed random part of so many pairs."""
    points: Annotated[int, Count()] = 100_000
    """Training points: pairs seen, counted again in each epoch."""
    every: Annotated[int | None, Count()] = None
    """Measure after so many training points; None for 500 on mrpc and 5000 elsewhere."""
    save_every: Annotated[int, Count(most=10**6)] = 4
    """Save after so many measurements."""
    until: Annotated[float, POSITIVE] = 1.1
    """Stop where the training accuracy of every seed has reached this."""
    batch_size: Annotated[int, Count()] = 32
    """Pairs a step."""
    learning_rate: Annotated[float, POSITIVE] = 1e-4
    """Of AdamW, at the start."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 1e-4
    """Of AdamW."""
    decay: Annotated[float | None, Number(above=0, most=1)] = None
    """Factor on the learning rate after each epoch; None for 0.9, and 1 for the LSTM."""
    evaluate_examples: Annotated[int | None, Count(least=2)] = None
    """Loss and accuracy of at most so many training and validation pairs; None for all."""
    sensitivity_examples: Annotated[int, Count(least=2)] = 640
    """Sensitivity at the end on at most so many pairs of each part."""
    draws: Annotated[int, DRAWS] = 3
    """Draws of noise for each token, at the end."""
    tokens: Annotated[int | None, Count()] = None
    """At the end, noise on so many random tokens of each pair; None for all."""
    curve_examples: Annotated[int, Count(least=2)] = 640
    """Sensitivity in training on at most so many pairs."""
    curve_tokens: Annotated[int, Count()] = 2
    """Tokens of each, drawn once."""
    roberta_noise: Annotated[str, Choice(("normalised", "words", "block"))] = "normalised"
    """Where RoBERTa's noise enters: behind the embedding's LayerNorm (the text), on the words
    before positions, or on the normalised embedding before a second LayerNorm (perhaps the
    code)."""
    gpt2_noise: Annotated[str, Choice(("normalised", "raw", "raw-twice"))] = "normalised"
    """GPT-2 with a LayerNorm on its embedding as the text has it, as published, or with positions
    added twice (the code)."""
    gpt2_readout: Annotated[str, Choice(("last", "last-padded"))] = "last"
    """GPT-2's logits at the last real token, or at the last padded position of the batch (the
    code)."""
    lstm_trained: Annotated[str, Choice(("all", "recurrent"))] = "all"
    """Which of the LSTM's parameters are trained: all, or those of its layers alone (the code)."""
    intervention: Annotated[tuple[str, ...], Choice(interventions.NAMES), Each(least=1)] = ("none",)
    """none; regularised, with the mean squared change of the logits under noise on one random
    token; augmented, by a copy of each pair with such noise. Each is trained beside the others."""
    strength: Annotated[float, Number(above=0, below=1)] = 0.25
    """Strength p of the regularisation: (1 - p) of the loss, p of the change."""
    weights: Path | None = None
    """Measure a published or fine-tuned roberta or gpt2 (safetensors) in place of training: with
    --arch of its kind alone, and the --tokenizer that it was trained with."""
    beside: tuple[Path, ...] = ()
    """Finished runs of other networks on the same pairs, taken into this record and compared."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        "seeds": 2,
        "depth": 1,
        "heads": 2,
        "width": 32,
        "vocabulary": 400,
        "max_length": 64,
        "buckets": 1,
        "examples": 200,
        "validation_examples": 40,
        "points": 192,
        "every": 96,
        "sensitivity_examples": 40,
        "tokens": 4,
        "draws": 1,
        "curve_examples": 20,
    }

    def check(self) -> None:
        super().check()
        if self.width % self.heads:
            raise UserError(
                f"--width must be a multiple of --heads ({self.heads}), got {self.width}"
            )
        if "none" in self.arch and (len(self.arch) > 1 or not self.beside):
            raise UserError("--arch none is for comparing the runs that --beside names, alone")
        if self.weights is not None and self.tokenizer is None:
            raise UserError("--weights needs --tokenizer, the files of its own vocabulary")
        wrong = self.roberta_noise if "roberta" in " ".join(self.arch) else "normalised"
        if self.intervention != ("none",) and wrong != "normalised":
            raise UserError(f"--intervention is for --roberta-noise normalised, got {wrong}")
        if self.weights is not None and self.arch not in (("roberta",), ("gpt2",)):
            raise UserError(
                f"--weights needs --arch roberta or gpt2, one of them, got {' '.join(self.arch)}"
            )
        if self.points < self.batch_size:
            raise UserError(
                f"--points must be at least --batch-size ({self.batch_size}), got {self.points}"
            )

    def smallest(self) -> Mapping[str, Any]:
        """Without what the command line may have asked to be kept."""
        return {**super().smallest(), "hidden": None, "tokenizer": self.tokenizer}


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figures."""
    conduct(
        "language",
        config,
        load=load,
        work=work,
        arrays=lambda loaded: {"train": loaded.texts.train, "validation": loaded.texts.validation},
    )


class Loaded(NamedTuple):
    """The pairs, runs to compare with, and the network of --weights."""

    texts: Texts
    others: list[beside.Other]
    pretrained: Any = None


def load(config: Config) -> tuple[Loaded, str]:
    """The pairs, tokenised, the runs to compare with, and a network that is trained already."""
    others = beside.read(config.beside, config)
    texts, line = load_texts(config)
    if config.weights is not None:
        pretrained = load_network(config, texts)
        line = line.replace("training on", f"measuring {config.weights.name} on", 1)
        return Loaded(texts, others, pretrained), line
    return Loaded(texts, others), line


def work(config: Config, loaded: Loaded, record: RunRecord) -> dict[str, Any]:
    """Train one network after the other; measure each at its end."""
    texts, others, pretrained = loaded
    if record.writer:
        record.write("tokenizer.json", texts.tokenizer.to_json().encode())
    beside.take_in(record, others)
    found = [line for other in others for line in other.final]
    for name in config.arch if "none" not in config.arch else ():
        for intervention in config.intervention:
            found += train(config, texts, name, intervention, record, pretrained)
    return {"data": texts.described(), "final": found, "paired": beside.paired(found)}


def train(
    config: Config, texts: Texts, name: str, intervention: str, record: RunRecord, pretrained: Any
) -> list[dict[str, Any]]:
    """Train all seeds of one network; their last lines with the final measures."""
    seeds, per_epoch = config.all_seeds(), texts.batches.steps_per_epoch
    vocabulary, steps = texts.tokenizer.size, config.points // config.batch_size
    if pretrained is not None:
        networks, seeds, steps = [pretrained], range(config.seed, config.seed + 1), 0
    else:
        networks = [build(config, name, vocabulary=vocabulary, seed=seed) for seed in seeds]
    trainer = Trainer(
        networks,
        optimizer(config, name, steps_per_epoch=per_epoch),
        batch_size=config.batch_size,
        loss=interventions.loss(config, intervention),
        metrics={"loss": cross_entropy, "accuracy": accuracy},
    )
    every = max(1, (config.every or EVERY[config.task]) // config.batch_size)
    label = NETWORKS[name].label
    if intervention != "none":
        name, label = f"{name} {intervention}", f"{label}, {intervention}"
    trained = train_and_measure(
        name,
        trainer,
        texts.evaluated,
        data=texts.batches,
        seeds=seeds,
        schedule=Schedule(steps, every, per_epoch, every * config.save_every),
        measures=during(config, texts),
        record=record,
        until=lambda lines: all(line["train_accuracy"] >= config.until for line in lines),
    )
    measures = final(config, texts, trained[0])
    lines = finals(name, trained, seeds=seeds, measures=measures, record=record)
    return [{**line, "label": label} for line in lines]


if __name__ == "__main__":
    run(main, Config, prog="experiments.language")
