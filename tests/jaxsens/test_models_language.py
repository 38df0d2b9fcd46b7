"""The language models against PyTorch, and how their embedding and their logits are parted."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from witnesses.language_cases import CASES, LABELS, LENGTHS, text
from witnesses.references import (
    assert_gradients,
    load,
    manifest,
    reference,
    weights,
)

from jaxsens import models

TINY = {"vocabulary": 11, "classes": 3, "depth": 1, "dim": 8, "dropout": 0.0}
NAMES = ("lstm", "roberta", "gpt2")


def tiny(name, seed=0, **more):
    heads = {} if name == "lstm" else {"heads": 2, "positions": 12}
    heads |= {"mlp_dim": 8} if name == "roberta" else {}
    return models.create(name, rngs=nnx.Rngs(seed), **{**TINY, **heads, **more})


@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_are_those_of_pytorch(case):
    name, _, both, more, renames = CASES[case]
    model = models.create(name, rngs=nnx.Rngs(0), **both, **more)
    load(model, weights(manifest(case)), renames)

    @jax.jit
    def step(model, inputs):
        def loss(model):
            logits = model(inputs)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
            return losses.mean(), logits

        (_, logits), gradient = nnx.value_and_grad(loss, has_aux=True)(model)
        return logits, gradient

    logits, gradient = step(nnx.view(model, deterministic=True), text())
    expected = reference(f"{case}/logits")
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=2e-6 * np.abs(expected).max())
    assert np.ptp(expected, axis=0).min() > 1e-3
    assert_gradients(case, nnx.state(gradient, nnx.Param), renames, least=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_padding_never_counts_and_each_text_is_alone(name):
    """The logits of a text are those it has without padding, whatever stands in the padding."""
    model, inputs = nnx.view(tiny(name), deterministic=True), text()
    run = jax.jit(lambda ids, mask: model({"ids": ids, "mask": mask}))
    together = run(inputs["ids"], inputs["mask"])
    other = np.where(inputs["mask"], inputs["ids"], 7)
    np.testing.assert_array_equal(run(other, inputs["mask"]), together)
    for i in (1, 3):
        ids = inputs["ids"][i : i + 1, : LENGTHS[i]]
        alone = run(ids, np.ones_like(ids, bool))
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-4, atol=1e-6)


@hypothesis.given(
    st.sampled_from(NAMES),
    st.permutations(range(4)),
    st.lists(st.integers(0, 10), min_size=28, max_size=28),
)
@hypothesis.settings(max_examples=25, deadline=None)
def test_permuting_texts_permutes_logits_and_padding_may_hold_anything(name, order, filling):
    model, inputs = TINY_MODELS(name), text()
    filled = np.where(inputs["mask"], inputs["ids"], np.reshape(filling, (4, 7)))[list(order)]
    got = RUN(model, filled.astype(np.int32), inputs["mask"][list(order)])
    expected = RUN(model, inputs["ids"], inputs["mask"])
    np.testing.assert_allclose(got, np.asarray(expected)[list(order)], rtol=1e-5, atol=1e-7)


TINY_MODELS = functools.cache(lambda name: nnx.view(tiny(name), deterministic=True))
RUN = jax.jit(lambda model, ids, mask: model({"ids": ids, "mask": mask}))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_an_lstm_is_a_loop_over_layers_and_tokens():
    model, inputs = nnx.view(tiny("lstm", depth=2), deterministic=True), text()
    table, scale, bias = (
        np.asarray(leaf[...], np.float64)
        for leaf in (model.words, model.norm.scale, model.norm.bias)
    )
    for ids, mask, logits in zip(inputs["ids"], inputs["mask"], model(inputs), strict=True):
        x = table[ids[mask]]
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * scale + bias
        for layer in model.layers:
            h, c, states = np.zeros(8), np.zeros(8), []
            for token in x:
                gates = token @ np.asarray(layer.input_kernel[...], np.float64)
                gates = gates + h @ np.asarray(layer.hidden_kernel[...], np.float64)
                gates = gates + np.asarray(layer.input_bias[...] + layer.hidden_bias[...])
                i, f, g, o = np.split(gates, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
                states.append(h)
            x = np.array(states)
        expected = x[-1] @ np.asarray(model.head.kernel[...]) + np.asarray(model.head.bias[...])
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("lstm", {}),
        ("roberta", {"perturbed": "normalised"}),
        ("roberta", {"perturbed": "words"}),
        ("gpt2", {"perturbed": "normalised"}),
        ("gpt2", {"perturbed": "raw-twice"}),
    ],
)
def test_the_model_is_its_two_parts(name, how):
    model, inputs = nnx.view(tiny(name, **how), deterministic=True), text()
    vectors = model.embed(inputs)
    assert vectors.shape == (4, 7, 8)
    np.testing.assert_allclose(
        model.from_embeddings(vectors, inputs["mask"]), model(inputs), rtol=1e-5, atol=1e-7
    )
    if how.get("perturbed", "normalised") == "normalised":
        words = inputs["ids"] != 1  # the row of the padding is 0 and stays 0
        np.testing.assert_allclose(vectors[words].std(axis=1), 1, rtol=0.1)


def test_the_published_variants_differ_where_they_are_said_to():
    inputs = text()
    plain, block = tiny("roberta"), tiny("roberta", perturbed="block")
    np.testing.assert_array_equal(plain.embed(inputs), block.embed(inputs))
    np.testing.assert_array_equal(plain(inputs), block(inputs))
    vectors = plain.embed(inputs)
    positions = np.cumsum(inputs["mask"], axis=1) * inputs["mask"] + 1
    again = plain.norm(vectors + plain.positions[...][positions] + plain.kinds[...][None])
    np.testing.assert_allclose(
        block.from_embeddings(vectors, inputs["mask"]),
        plain.from_embeddings(again, inputs["mask"]),
        rtol=1e-5,
        atol=1e-7,
    )
    raw, twice = tiny("gpt2", perturbed="raw"), tiny("gpt2", perturbed="raw-twice")
    vectors = raw.embed(inputs)
    np.testing.assert_array_equal(vectors, twice.embed(inputs))
    np.testing.assert_allclose(
        vectors, raw.words[...][inputs["ids"]] + raw.positions[...][None, :7], atol=1e-7
    )
    np.testing.assert_allclose(
        twice.from_embeddings(vectors, inputs["mask"]),
        raw.from_embeddings(vectors + raw.positions[...][None, :7], inputs["mask"]),
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_are_those_of_the_originals(name):
    sizes = {"vocabulary": 500, "classes": 2, "depth": 2, "dim": 32, "dropout": 0.0}
    model = tiny(name, **sizes)
    words = np.asarray(model.words[...])
    deviation = 1.0 if name == "lstm" else 0.02
    assert words[2:].std() == pytest.approx(deviation, rel=0.03)
    assert (words[1] == 0).all() == (name != "gpt2")
    if name == "lstm":
        kernel = np.asarray(model.layers[1].hidden_kernel[...])
        assert kernel.std() == pytest.approx(32**-0.5 / 3**0.5, rel=0.03)
        assert np.abs(kernel).max() <= 32**-0.5
    else:
        block = model.blocks[1]
        back = 0.02 / (2 * 2) ** 0.5 if name == "gpt2" else 0.02
        for layer in (block.attention.out, block.down):
            assert np.std(layer.kernel[...]) == pytest.approx(back, rel=0.15)
            assert (layer.bias[...] == 0).all()
        assert np.std(block.up.kernel[...]) == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # Embedding, LayerNorm, 4 layers of 8 x 256 x 256 weights and two biases, head.
        ("lstm", 50265 * 256 + 512 + 4 * (8 * 256**2 + 8 * 256) + 514),
        (
            "roberta",
            (50265 + 514 + 1) * 256 + 512
            + 4 * (4 * (256**2 + 256) + 2 * 256 * 3072 + 3072 + 256 + 1024)
            + 256**2 + 256 + 514,
        ),
        ("gpt2", (50265 + 1024) * 256 + 4 * (12 * 256**2 + 13 * 256) + 512 + 512 + 512),
    ],
)  # fmt: skip
def test_parameter_counts_at_full_size(name, count):
    shapes = jax.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes, nnx.Param))) == count


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ids": np.zeros((2, 13), np.int32), "mask": np.ones((2, 13), bool)}, "13 tokens"),
        ({"ids": np.zeros((2, 3)), "mask": np.ones((2, 3), bool)}, "expected integers and bool"),
        ({"ids": np.zeros((2, 3), int), "mask": np.ones((2, 4), bool)}, r"expected \(N, T\)"),
        ({"ids": np.zeros((2, 3), int)}, "expected a mapping with 'ids' and 'mask'"),
        (np.zeros((2, 3)), "inputs are ndarray: expected a mapping"),
    ],
)
def test_inputs_of_another_kind_are_refused_in_one_line(change, said):
    with pytest.raises((TypeError, ValueError), match=said) as caught:
        tiny("gpt2")(change)
    assert "\n" not in str(caught.value)


def test_an_id_that_the_table_lacks_gives_nan_and_not_another_word():
    model = nnx.view(tiny("lstm"), deterministic=True)
    ids = jnp.array([[3, 11], [3, 4]])
    logits = model({"ids": ids, "mask": jnp.ones((2, 2), bool)})
    assert np.isnan(logits).any(axis=1).tolist() == [True, False]
