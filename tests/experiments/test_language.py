"""The language experiment: closed forms for its measures, networks that were trained elsewhere."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from witnesses.commands import execute, one_line
from witnesses.small_weights import safetensors

import jaxsens
from experiments import language
from experiments.text import interventions
from experiments.text.estimate import measure
from experiments.text.measures import embed, embed_with_size, logits, renormalised
from experiments.text.networks import build, optimizer
from jaxsens.data.buckets import bucketed
from jaxsens.data.split import Split
from jaxsens.data.text import Tokenizer
from jaxsens.losses import cross_entropy


class Bag(nnx.Module):
    """sum_t u.e_t + c over the real tokens, as two logits: linear in every embedding."""

    def __init__(self, u, c, table):
        self.u, self.c, self.table = (nnx.Param(jnp.asarray(x)) for x in (u, c, table))

    def embed(self, inputs):
        return self.table[...][inputs["ids"]]

    def from_embeddings(self, vectors, mask, rngs=None):
        score = ((vectors @ self.u[...]) * mask).sum(1) + self.c[...]
        return jnp.stack([jnp.zeros_like(score), score], axis=1)


def bag_data(count=60):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 10, count)
    mask = np.arange(9)[None] < lengths[:, None]
    ids = np.where(mask, rng.integers(2, 8, mask.shape), 1).astype(np.int32)
    u = rng.normal(size=4).astype(np.float32)
    model = Bag(u, 0.3, rng.normal(size=(8, 4)).astype(np.float32))
    return model, Split({"ids": ids, "mask": mask}, np.zeros(count, np.int32)), lengths


def test_a_linear_bag_flips_as_often_as_the_normal_distribution_says():
    """Noise of variance v on one token moves the score s by N(0, v |u|^2), on L tokens by L times
    that: Phi(-|s| / sd) of the draws flip it. Padding is neither perturbed nor counted."""
    model, data, lengths = bag_data()
    parts = bucketed(data, lengths, (5, 9))
    order = np.argsort(np.searchsorted((5, 9), lengths), kind="stable")
    scores = np.asarray(model.from_embeddings(model.embed(data.inputs), data.inputs["mask"]))[:, 1]
    norm = float(np.linalg.norm(model.u[...]))

    def exact(variance, tokens):
        return np.array(
            [
                0.5 * math.erfc(abs(s) / (norm * math.sqrt(2 * variance * n)))
                for s, n in zip(scores, tokens, strict=True)
            ]
        )[order]

    run = functools.partial(measure, model, parts, key=jax.random.key(0), read=logits, embed=embed)
    one = run(tokens=jaxsens.Positions(mask="mask"), noise=jaxsens.Gaussian(2.0), repeats=40)
    # A text's tokens flip alike, so its draws are all of one probability.
    p = exact(2.0, np.ones(60))
    error = np.sqrt((p * (1 - p) / (40 * lengths[order])).sum()) / 60
    assert abs(one.value - p.mean()) < 4 * error
    np.testing.assert_array_equal((~np.isnan(one.rates)).sum(1), lengths[order])
    assert one.forward_passes == 60 + 40 * lengths.sum()
    # By token, each text counts as many times as it has tokens.
    assert abs(one.tokenwise[0] - np.average(p, weights=lengths[order])) < 4 * error
    # By place, over the texts that are long enough; all tokens of a bag are alike.
    for place, value, stderr in zip(one.places, one.by_place, one.by_place_stderr, strict=True):
        long = lengths[order] > place
        assert abs(value - p[long].mean()) < 4 * np.sqrt((p * (1 - p))[long].sum() / 40) / sum(long)
        assert stderr > 0
    assert abs(one.cls[0] - p.mean()) < 4 * np.sqrt((p * (1 - p)).sum() / 40) / 60
    whole = run(tokens=jaxsens.Whole(mask="mask"), noise=jaxsens.Gaussian(0.5), repeats=200)
    p = exact(0.5, lengths)
    assert abs(whole.value - p.mean()) < 4 * np.sqrt((p * (1 - p)).sum() / 200) / 60


def test_the_order_of_texts_and_what_stands_in_the_padding_change_nothing():
    model, data, _ = bag_data(30)
    settings = {"tokens": jaxsens.Positions(mask="mask"), "noise": jaxsens.Gaussian(1e-9),
                "repeats": 1, "read": logits, "embed": embed}  # fmt: skip
    found = measure(model, [data], key=jax.random.key(1), **settings)
    other = data.take(np.random.default_rng(1).permutation(30))
    other.inputs["ids"] = np.where(other.inputs["mask"], other.inputs["ids"], 5)
    assert measure(model, [other], key=jax.random.key(1), **settings).value == found.value == 0
    loud = {**settings, "noise": jaxsens.Gaussian(1e12)}
    a, b = (measure(model, [each], key=jax.random.key(1), **loud).value for each in (data, other))
    assert abs(a - 0.5) < 0.15
    assert abs(b - 0.5) < 0.15


def test_augmentation_is_the_mean_over_a_pair_and_a_copy_with_noise():
    model, data, _ = bag_data(40)
    labels = jnp.arange(40) % 2
    clean = cross_entropy(model.from_embeddings(model.embed(data.inputs), data.inputs["mask"]),
                          labels)  # fmt: skip

    def augmented(variance):
        config = type("C", (), {"sigma2": (variance,), "strength": 0.25})
        loss = interventions.loss(config, "augmented")
        return jax.jit(lambda x, y: loss(model, x, y, nnx.Rngs(noise=0)))(data.inputs, labels)

    np.testing.assert_allclose(augmented(1e-12), clean, rtol=1e-4, atol=1e-5)
    # A loud copy costs |z| where it is wrong and nothing where it is right: E max(z, 0).
    loud = 2 * augmented(1e8) - clean
    deviation = 1e4 * float(jnp.linalg.norm(model.u[...]))
    assert np.mean(loud) == pytest.approx(deviation / math.sqrt(2 * math.pi), rel=0.6)


def write_roberta(path, vocabulary, dim=8, hidden=12, places=40):
    """A RoBERTa of one block as it is published, with random weights and without a classifier."""
    layers = {
        "embeddings.word_embeddings.weight": (vocabulary, dim),
        "embeddings.position_embeddings.weight": (places, dim),
        "embeddings.token_type_embeddings.weight": (1, dim),
    }
    matrices = {f"attention.self.{name}": (dim, dim) for name in ("query", "key", "value")}
    matrices |= {"attention.output.dense": (dim, dim), "intermediate.dense": (hidden, dim)}
    matrices |= {"output.dense": (dim, hidden)}
    for name, shape in matrices.items():
        layers[f"encoder.layer.0.{name}.weight"] = shape
        layers[f"encoder.layer.0.{name}.bias"] = shape[:1]
    for name in ("embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"):
        layers |= {f"{name}.LayerNorm.{leaf}": (dim,) for leaf in ("weight", "bias")}
    rng = np.random.default_rng(0)
    return safetensors(
        path,
        {f"roberta.{k}": rng.normal(size=s).astype(np.float32) for k, s in layers.items()},
    )


MEASURED = ["--arch", "roberta", "--max-length", 20, "--buckets", 1, "--batch-size", 8, "--tokens",
            3, "--draws", 1, "--sensitivity-examples", 12, "--curve-examples", 12]  # fmt: skip


def test_weights_of_another_vocabulary_are_one_line(mrpc, tmp_path, capsys):
    (tmp_path / "tokenizer.json").write_text(Tokenizer.train(["ab c"], vocabulary=270).to_json())
    words = ["--data", mrpc, "--tokenizer", tmp_path, *MEASURED]
    file = write_roberta(tmp_path / "small.safetensors", 100)
    said = one_line(language, *words, "--weights", file, capsys=capsys)
    assert "the network of --weights has 100" in said
    said = one_line(language, *words, "--weights", tmp_path / "none", capsys=capsys)
    assert "none" in said
    words[words.index("roberta")] = "gpt2"
    file = write_roberta(tmp_path / "other.safetensors", 300)
    said = one_line(language, *words, "--weights", file, capsys=capsys)
    assert "is a roberta; name it with --arch roberta" in said


@pytest.mark.slow
def test_a_published_network_is_measured_and_not_trained(mrpc, tmp_path):
    (tmp_path / "tokenizer.json").write_text(Tokenizer.train(["ab c"], vocabulary=270).to_json())
    file, out = write_roberta(tmp_path / "model.safetensors", 300), tmp_path / "out"
    words = ["--data", mrpc, "--tokenizer", tmp_path, *MEASURED, "--weights", file, "--out", out]
    assert execute(language, *words) == 0
    (line,) = json.loads((out / "result.json").read_text())["final"]
    assert line["step"] == 0
    assert {"sensitivity", "sensitivity_words", "sensitivity_block"} <= set(line)


class Config:
    depth, heads, width, hidden, dropout = 1, 2, 8, 8, 0.0
    roberta_noise = gpt2_noise = "normalised"
    gpt2_readout, decay, learning_rate, weight_decay = "last", None, 0.1, 1e-4
    lstm_trained = "recurrent"


@pytest.mark.parametrize("name", ["lstm", "roberta", "gpt2"])
def test_renormalising_leaves_what_has_no_noise_and_brings_noise_to_its_share(name):
    net = nnx.view(build(Config, name, vocabulary=9, seed=0), deterministic=True)
    norm = net.embedding_norm if name == "gpt2" else net.norm
    norm.scale[...] = norm.scale[...] + 0.3 * jnp.arange(8) / 8
    norm.bias[...] = norm.bias[...] + 0.1
    ids = jnp.array([[2, 3, 4, 5]])
    given = embed_with_size(net, {"ids": ids, "mask": jnp.ones((1, 4), bool)})
    np.testing.assert_allclose(renormalised(net, given), logits(net, given), rtol=1e-3, atol=1e-5)
    # Along u itself noise is undone: it comes back to its size.
    scale, bias = norm.scale[...][None, None], norm.bias[...][None, None]
    u = (given["vectors"] - bias) / scale
    loud = {**given, "vectors": 5 * u * scale + bias}
    np.testing.assert_allclose(renormalised(net, loud), logits(net, given), rtol=1e-3, atol=1e-5)
    if name == "lstm":
        assert np.abs(logits(net, loud) - logits(net, given)).max() > 1e-3


def test_the_published_training_of_the_lstm_leaves_embedding_and_head():
    net = build(Config, "lstm", vocabulary=9, seed=0)
    params = nnx.state(net, nnx.Param)
    rule = optimizer(Config, "lstm", steps_per_epoch=2)
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, _ = rule.update(gradient, rule.init(params), params)
    moved = {
        jax.tree_util.keystr(path[:1]): float(jnp.abs(leaf).max())
        for path, leaf in jax.tree_util.tree_leaves_with_path(updates)
    }
    assert {name for name, size in moved.items() if size > 0} == {"['layers']"}
    assert len(moved) == 4
