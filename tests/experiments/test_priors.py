"""Random networks: what is drawn, and the counts against jaxsens.boolean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from command.line import UserError
from experiments import priors
from experiments.reports import priors as drawn
from jaxsens import boolean
from jaxsens.measures.bits import sensitivity_counts
from jaxsens.models.random_start import STARTS, redraw

CONFIG = priors.Config(network=("lstm",), width=8, heads=2, networks=3, strings=16)


@pytest.mark.parametrize("network", priors.NETWORKS)
def test_statistics_are_those_of_the_tables(network):
    """The same draws, evaluated at all strings and counted by jaxsens.boolean."""
    kind = priors.Kind(network, "xavier", 4, 2)
    found = priors.measure(CONFIG, kind)
    keys = jax.random.split(jax.random.split(jax.random.key(0))[1], 3)
    model = priors.build(kind, width=8, heads=2)
    outputs = jax.jit(lambda key: redraw(model, key, start="xavier")(boolean.cube(4)))
    profiles, means = [], []
    for key in keys:
        table = np.where(np.asarray(outputs(key)) > 0, 1, -1)
        profiles.append(boolean.sensitivity_profile(table))
        means.append(boolean.normalised_sensitivity(table))
    np.testing.assert_allclose(found["histogram"], np.mean(profiles, 0), atol=1e-12)
    assert found["sensitivity"] == pytest.approx(np.mean(means))
    assert found["sensitivity_stderr"] == pytest.approx(np.std(means, ddof=1) / 3**0.5)
    assert found["zero"] == pytest.approx(np.mean(profiles, 0)[0])
    assert found["smallest"] == pytest.approx(np.mean([np.flatnonzero(p)[0] for p in profiles]))
    assert found["low"] == np.mean(np.array(means) <= priors.LOW)


@pytest.mark.parametrize("start", STARTS)
def test_weights_are_drawn_from_the_distribution_of_the_start(start):
    kind = priors.Kind("transformer", start, 40, 1)
    model = redraw(priors.build(kind, width=64, heads=2), jax.random.key(0), start=start)
    block = model.blocks[0]
    matrix, out = block.up.kernel[...], block.attention.out.kernel[...]
    deviation = {"gaussian": 10, "uniform": 10 / 3**0.5, "xavier": (2 / 192) ** 0.5}[start]
    assert np.std(matrix) == pytest.approx(deviation, rel=0.05)
    assert not np.array_equal(matrix[:64, :64], out)
    others = {"gaussian": (1.0, 3**-0.5), "uniform": (deviation,) * 2, "xavier": (1.0, 1.0)}[start]
    for array, expected in zip((model.embedding, model.positions), others, strict=True):
        assert np.std(array[...]) == pytest.approx(expected, rel=0.15)
    head = {"gaussian": 1.0, "uniform": deviation, "xavier": (2 / 65) ** 0.5}[start]
    assert np.std(model.head.kernel[...]) == pytest.approx(head, rel=0.3)
    assert not model.head.bias[...].any()
    assert not block.up.bias[...].any()
    assert (block.mlp_norm.scale[...] == 1).all()


def test_the_transformer_is_its_equations():
    """Width 4, one head, one block, by NumPy loops."""
    kind = priors.Kind("transformer", "gaussian", 3, 1)
    model = redraw(
        priors.build(kind, width=4, heads=1), jax.random.key(1), start="gaussian", scale=0.5
    )
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), nnx.to_pure_dict(nnx.state(model)))
    block = p["blocks"][0]
    attention = block["attention"]

    def norm(x):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5)

    def through(layer, x):
        return x @ layer["kernel"]

    points = np.array([[1, -1, -1], [-1, -1, 1.0]])
    expected = []
    for string in points:
        ids = [*(0 if bit > 0 else 1 for bit in string), 2]
        x = np.stack([2 * p["embedding"][i] + p["positions"][t] for t, i in enumerate(ids)])
        seen = np.stack([norm(row) for row in x])
        query = through(attention["query"], seen[-1])
        scores = np.array([query @ through(attention["key"], row) for row in seen]) / 2
        weights = np.exp(scores - scores.max())
        mixed = sum(
            w * through(attention["value"], row)
            for w, row in zip(weights / weights.sum(), seen, strict=True)
        )
        y = x[-1] + through(attention["out"], mixed)
        y = y + through(block["down"], np.maximum(through(block["up"], norm(y)), 0))
        expected.append(norm(y) @ p["head"]["kernel"][:, 0])
    np.testing.assert_allclose(model(points.astype(np.float32)), expected, rtol=2e-5)


def test_wrong_starts_are_refused():
    model = priors.build(priors.Kind("mlp", "xavier", 3, 1), width=4, heads=1)
    with pytest.raises(ValueError, match="start is 'normal': expected one of gaussian"):
        redraw(model, jax.random.key(0), start="normal")
    with pytest.raises(ValueError, match="scale must be a positive number, got -1"):
        redraw(model, jax.random.key(0), start="gaussian", scale=-1)


def test_outputs_that_are_nan_are_not_called_insensitive(monkeypatch):
    def undefined(points):
        return jnp.where(points[:, 0] > 0, jnp.nan, points[:, 1])

    counts, _ = sensitivity_counts(undefined, boolean.cube(2))
    assert (counts == -1).all()  # each has a neighbour without an answer
    monkeypatch.setattr(priors, "_measure", lambda *_: (counts[None], counts[None] > 0))
    with pytest.raises(UserError, match="lstm, xavier, 2 bits, depth 1: outputs are NaN"):
        priors.measure(CONFIG, priors.Kind("lstm", "xavier", 2, 1))


def test_the_verdict_names_the_extremes():
    line = {"network": "lstm", "bits": 20, "sensitivity_stderr": 0.01}
    said = drawn.verdict(
        [{**line, "start": "xavier", "sensitivity": 0.03},
         {**line, "start": "gaussian", "sensitivity": 0.46}]
    )  # fmt: skip
    assert said == ["lstm, 20 bits: from 0.030 ± 0.010 (xavier) to 0.460 ± 0.010 (gaussian)"]
