"""The networks of the language experiment, and how each is trained."""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jaxtyping import PyTree

from experiments.run.cli import UserError
from jaxsens import models
from jaxsens.weights.text import load_text


@dataclasses.dataclass(frozen=True)
class Network:
    """A row of the paper's table: its label, our model, and what sets it apart."""

    label: str  # as `experiments.paper` names it
    model: str
    own: dict[str, Any] = dataclasses.field(default_factory=dict)
    decay: float = 0.9  # of the learning rate, after each epoch


NETWORKS = {
    "lstm": Network("LSTM", "lstm", decay=1.0),
    "roberta": Network("RoBERTa", "roberta"),
    "roberta-relu": Network("RoBERTa-ReLU", "roberta", {"attention": "relu"}),
    "gpt2": Network("GPT-2", "gpt2"),
}
HIDDEN = {"roberta": 12, "gpt2": 4}  # times the width: 3072 and 1024 for the paper's 256
RECURRENT = "layers"  # the LSTM's parameters that its published training changes


def build(config: Any, name: str, *, vocabulary: int, seed: int) -> nnx.Module:
    """A network in training mode, its weights drawn by the seed."""
    network = NETWORKS[name]
    sizes: dict[str, Any] = {"depth": config.depth, "dim": config.width, **network.own}
    if network.model != "lstm":
        sizes |= {
            "heads": config.heads,
            "mlp_dim": config.hidden or HIDDEN[network.model] * config.width,
        }
    if network.model == "roberta":
        sizes |= {"perturbed": config.roberta_noise}
    if network.model == "gpt2":
        sizes |= {"perturbed": config.gpt2_noise, "readout": config.gpt2_readout}
    return models.create(
        network.model, vocabulary=vocabulary, dropout=config.dropout, rngs=nnx.Rngs(seed), **sizes
    )


def load_network(config: Any, texts: Any) -> nnx.Module:
    """The network of --weights. Raises UserError where it is another, or lacks a sub-word."""
    name, model = load_text(config.weights, rngs=nnx.Rngs(config.seed))
    if (name,) != config.arch:
        raise UserError(f"--weights {config.weights} is a {name}; name it with --arch {name}")
    inputs = [split.inputs["ids"] for split in (texts.train, texts.validation)]
    largest, longest = (max(int(f(ids)) for ids in inputs) for f in (np.max, lambda x: x.shape[1]))
    words, places = len(model.words[...]), len(model.positions[...])
    if largest >= words:
        raise UserError(
            f"--tokenizer gives the sub-word {largest}; the network of --weights has {words}: give "
            "the one that it was trained with"
        )
    if longest > places - 2:
        raise UserError(f"--max-length must be at most {places - 2} for the network of --weights")
    return model


def optimizer(config: Any, name: str, *, steps_per_epoch: int) -> optax.GradientTransformation:
    """AdamW, whose rate falls after each epoch (A, Section 6): by 0.9, the LSTM's not at all."""
    decay = NETWORKS[name].decay if config.decay is None else config.decay
    rate = optax.exponential_decay(config.learning_rate, steps_per_epoch, decay, staircase=True)
    adamw = optax.adamw(rate, weight_decay=config.weight_decay)
    if name != "lstm" or config.lstm_trained == "all":
        return adamw
    return optax.partition({"trained": adamw, "start": optax.set_to_zero()}, _recurrent)


def _recurrent(params: PyTree) -> PyTree:
    """Which parameters are of the LSTM's layers; the others stay at their start."""

    def label(path: Any, leaf: Any) -> str:
        return "trained" if RECURRENT in jax.tree_util.keystr(path[:1]) else "start"

    return jax.tree_util.tree_map_with_path(label, params)
