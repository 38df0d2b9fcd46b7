"""Sparse and frequent tokens: counts, the single head, and sensitivity in closed form."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxsens
from jaxsens.data import DataError
from jaxsens.data.synthetic import SparseFrequent, vote
from jaxsens.losses import accuracy, logistic
from jaxsens.models.single_head import SingleHead

SETTINGS = [
    (3, 1, 3, 6),
    (3, 1, 5, 16),
    (3, 1, 7, 28),
    (1, 7, 7, 10),
    (1, 7, 17, 20),
    (1, 7, 32, 36),
]
TABLE_3 = [(0, 0.1315), (0, 0.2878), (0, 0.4502), (0.0339, 0), (0.0339, 0), (0.0339, 0)]


def task(setting):
    return SparseFrequent(*setting, vocabulary=59 if setting[0] == 3 else 75)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("flip", [False, True])
def test_every_example_holds_what_the_definition_says(setting, flip):
    data = task(setting)
    split = data.sample(200, key=jax.random.key(1), flip_sparse=flip)
    assert split.inputs.shape == (200, 50)
    assert 60 < (split.labels > 0).sum() < 140
    for tokens, y in zip(split.inputs, split.labels, strict=True):
        sparse = {1: 0, -1: 1}[int(-y if flip else y)]
        assert (tokens == sparse).sum() == data.n_s
        assert (tokens == 1 - sparse).sum() == 0
        frequent = tokens[(tokens >= 2) & (tokens < 2 * data.m + 2)]
        votes = np.where(frequent % 2 == 0, 1, -1)
        assert len(votes) == data.n_f
        assert (votes == y).sum() == (data.n_f + data.n_d) // 2
        assert votes.sum() * y in data.surpluses
        assert tokens.max() < data.vocabulary


@pytest.mark.parametrize(("setting", "paper"), list(zip(SETTINGS, TABLE_3, strict=True)))
def test_closed_form_gives_the_papers_table(setting, paper):
    # The paper's sparse column is a Monte-Carlo figure; the others agree to all printed digits.
    for exact, printed, slack in zip(
        task(setting).ideal_sensitivity(), paper, (2e-3, 5e-5), strict=True
    ):
        assert exact == pytest.approx(printed, abs=slack)


def test_the_surplus_that_is_not_whole_is_rounded_as_said():
    for rounding, expected in {"down": {6}, "up": {8}, "either": {6, 8}}.items():
        data = SparseFrequent(1, 7, 32, 36, vocabulary=75, rounding=rounding)
        split = data.sample(400, key=jax.random.key(1))
        margins = data.votes()[1][split.inputs].sum(1) * split.labels
        assert set(margins) == expected
        if rounding == "either":
            assert abs(margins.mean() - 7) < 4 / 400**0.5
    whole = [
        SparseFrequent(1, 7, 7, 10, vocabulary=75, rounding=rounding)
        .sample(20, key=jax.random.key(1))
        .inputs
        for rounding in ("down", "up", "either")
    ]
    np.testing.assert_array_equal(whole[0], whole[1])
    np.testing.assert_array_equal(whole[0], whole[2])


@hypothesis.given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(2, 8), st.integers(0, 3)
)
@hypothesis.settings(max_examples=60)
def test_closed_form_equals_enumeration_of_every_replacement(n_s, n_d, n_f, m, spare):
    try:
        data = SparseFrequent(n_s, n_d, n_f, m, vocabulary=2 * m + 3 + spare, length=14)
    except DataError:
        hypothesis.reject()
    tokens = data.sample(3, key=jax.random.key(0)).inputs
    for votes, exact in zip(data.votes(), data.ideal_sensitivity(), strict=True):
        for row in tokens:
            before = np.sign(votes[row].sum())
            after = np.sign(votes[row].sum() - votes[row][:, None] + votes[None])
            assert (after != before).mean() == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("setting", [SETTINGS[1], SETTINGS[3]])
def test_estimator_measures_the_closed_form(setting):
    data = task(setting)
    tokens = data.sample(300, key=jax.random.key(2)).inputs
    for votes, exact in zip(data.votes(), data.ideal_sensitivity(), strict=True):
        estimate = jaxsens.sensitivity(
            jax.tree_util.Partial(vote, weights=jnp.asarray(votes, jnp.float32)),
            tokens,
            key=jax.random.key(3),
            tokens=jaxsens.Positions(),
            noise=jaxsens.Replacement(jnp.arange(data.vocabulary)),
            repeats=2,
        )
        assert abs(estimate.value - exact) <= 4 * estimate.stderr


def test_single_head_is_its_equation_on_one_hot_tokens():
    model = SingleHead(vocabulary=7, length=4, dim=3, scale=1.0, rngs=nnx.Rngs(0))
    tokens = np.random.default_rng(0).integers(0, 7, (5, 4))
    q, k, v, u = (
        np.asarray(p[...], np.float64) for p in (model.query, model.key, model.value, model.readout)
    )
    for row, found, attention in zip(
        tokens, model(jnp.asarray(tokens)), model.attention(jnp.asarray(tokens)), strict=True
    ):
        x = np.eye(7)[row]
        scores = np.exp(x @ q @ k.T @ x.T)
        weights = scores / scores.sum(1, keepdims=True)
        np.testing.assert_allclose(attention, weights, rtol=1e-5)
        assert float(found) == pytest.approx(np.trace(u.T @ weights @ x @ v), rel=1e-4)
    np.testing.assert_allclose(model.directions(), u @ v.T, rtol=1e-4, atol=1e-6)


def test_logistic_loss_and_accuracy():
    outputs, labels = jnp.array([2.0, -3.0, 80.0]), jnp.array([1.0, 1, -1])
    losses = logistic(outputs, labels)
    np.testing.assert_allclose(losses, np.logaddexp(0, [-2.0, 3.0, 80.0]), rtol=1e-6)
    np.testing.assert_array_equal(accuracy(outputs, labels), [1, 0, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_s": 4}, "n_s <= n_f"),
        ({"n_s": 0}, "n_s >= 1"),
        ({"m": 3}, "n_f < min"),
        ({"n_d": 4}, "n_d <= n_f"),
        ({"n_f": 4}, "say nothing of the label"),
        ({"vocabulary": 14}, "at least 2m"),
        ({"rounding": "nearest"}, "rounding down, up, either, not 'nearest'"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(arguments, message):
    usual = {"n_s": 3, "n_d": 1, "n_f": 3, "m": 6, "vocabulary": 59}
    with pytest.raises(DataError, match=message) as caught:
        SparseFrequent(**{**usual, **arguments})
    assert "\n" not in str(caught.value)


def test_single_head_refuses_another_length():
    model = SingleHead(vocabulary=7, length=4, dim=3, scale=1.0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"expected \(N, 4\)"):
        model(jnp.zeros((2, 5), int))
