"""Compiled epochs against a slow NumPy loop, seeds together against seeds alone, resumed runs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from witnesses.small_training import (
    BATCH,
    CLASSES,
    EXAMPLES,
    SGD,
    Linear,
    Noisy,
    data,
    identical,
    keys,
    last,
    trainer,
    visited,
)

from jaxsens import training
from jaxsens.losses import cross_entropy
from jaxsens.training import State, Trainer, fit


def test_epochs_are_the_plain_loop_of_sgd_with_momentum():
    train, seeds = data(), (0, 1)
    subject = trainer()
    state, losses = subject.epochs(
        jax.tree.map(jnp.copy, subject.initial), train, keys(*seeds), epochs=2
    )
    assert losses.shape == (2, 2, EXAMPLES // BATCH)  # 23 = 4 x 5 + 3: the 3 are dropped
    for number, seed in enumerate(seeds):
        dense = Linear(rngs=nnx.Rngs(seed)).dense
        weights = np.concatenate([dense.kernel[...], dense.bias[...][None]]).astype(np.float64)
        velocity, expected = np.zeros_like(weights), []
        for epoch in range(2):
            for batch in visited(jax.random.key(seed), epoch, EXAMPLES, 4, BATCH):
                assert len(set(batch)) == BATCH
                x = np.concatenate([train.inputs[batch], np.ones((BATCH, 1))], axis=1)
                logits = x @ weights
                p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                expected.append(-np.log(p[np.arange(BATCH), train.labels[batch]]).mean())
                gradient = x.T @ (p - np.eye(CLASSES)[train.labels[batch]]) / BATCH
                velocity = 0.9 * velocity + gradient
                weights -= 0.1 * velocity
        np.testing.assert_allclose(losses[number].ravel(), expected, rtol=2e-5)
        trained = subject.models(state)[number].dense
        np.testing.assert_allclose(trained.kernel[...], weights[:-1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(trained.bias[...], weights[-1], rtol=1e-4, atol=1e-5)


def test_dropout_and_batch_statistics_are_the_plain_loop():
    train, key = data(), jax.random.key(5)
    subject = trainer(Noisy)
    initial = jax.tree.map(jnp.copy, subject.initial)
    state, losses = subject.epochs(initial, train, jnp.stack([key, key]))
    model = Noisy(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, SGD, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y, key):
        def loss(model):
            return cross_entropy(model(x, rngs=nnx.Rngs(dropout=key)), y).mean()

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    _, step_key = jax.random.split(jax.random.fold_in(key, 0))
    places = zip(visited(key, 0, EXAMPLES, 4, BATCH), jax.random.split(step_key, 4), strict=True)
    expected = [
        step(model, optimizer, train.inputs[batch], train.labels[batch], key)
        for batch, key in places
    ]
    np.testing.assert_allclose(losses[0, 0], expected, rtol=1e-5)
    trained = subject.models(state)[0]
    np.testing.assert_allclose(trained.norm.mean[...], model.norm.mean[...], rtol=1e-5)
    np.testing.assert_allclose(trained.norm.var[...], model.norm.var[...], rtol=1e-5)
    np.testing.assert_allclose(
        trained.dense.kernel[...], model.dense.kernel[...], rtol=1e-4, atol=1e-5
    )
    assert (np.asarray(trained.norm.mean[...]) > 0.3).all()  # from 0 towards the data's mean of 2


def test_evaluation_predicts_and_changes_nothing():
    train, test = data(), data(17, seed=1)
    subject = trainer(Noisy)
    state = last(fit(subject, train, keys=keys(0, 1), epochs=1))
    before = jax.tree.map(np.array, state)
    first, second = (subject.evaluate(state, test, batch_size=7) for _ in range(2))
    assert identical(first, second)  # no dropout
    assert identical(before, state)  # no running averages
    for number, model in enumerate(subject.models(state)):
        norm = {k: np.asarray(getattr(model.norm, k)) for k in ("mean", "var", "scale", "bias")}
        x = (test.inputs - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * norm["scale"]
        kernel, bias = np.asarray(model.dense.kernel), np.asarray(model.dense.bias)
        logits = (x + norm["bias"]) @ kernel + bias
        expected = np.mean(
            np.log(np.exp(logits).sum(1)) - logits[np.arange(17), np.asarray(test.labels)]
        )
        np.testing.assert_allclose(first["loss"][number], expected, rtol=1e-4)
        accuracy = (logits.argmax(1) == test.labels).mean()
        np.testing.assert_allclose(first["accuracy"][number], accuracy, rtol=1e-6)


@pytest.mark.parametrize(("examples", "batch_size"), [(1, 7), (23, 5), (24, 8), (9, 500)])
def test_evaluation_is_the_mean_over_all_examples(examples, batch_size):
    test = data(examples, seed=2)
    subject = trainer(seeds=(0,))
    values = subject.evaluate(subject.initial, test, batch_size=batch_size)
    logits, labels = Linear(rngs=nnx.Rngs(0))(jnp.asarray(test.inputs)), jnp.asarray(test.labels)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(values["loss"][0], losses.mean(), rtol=1e-5)
    right = np.asarray(logits).argmax(1) == test.labels
    np.testing.assert_allclose(values["accuracy"][0], right.mean(), rtol=1e-6)


def test_seeds_together_are_the_seeds_alone():
    train = data()
    together = last(fit(trainer(Noisy), train, keys=keys(4, 9), epochs=1))
    for number, key in enumerate((4, 9)):
        alone = last(fit(trainer(Noisy, (number,)), train, keys=keys(key), epochs=1))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[number], b[0], rtol=1e-4, atol=1e-6)


def test_only_the_key_tells_equal_models_apart():
    models = [Noisy(rngs=nnx.Rngs(0)) for _ in range(2)]
    subject = Trainer(models, SGD, batch_size=BATCH)
    for other in (7, 8):
        params = last(fit(subject, data(), keys=keys(7, other), epochs=1)).params
        same = all((leaf[0] == leaf[1]).all() for leaf in jax.tree.leaves(params))
        assert same == (other == 7)


@pytest.mark.parametrize("batch_size", [None, 1000])
def test_a_batch_of_all_examples_is_one_step_an_epoch(batch_size):
    subject = trainer(seeds=(0,), batch_size=batch_size)
    _, losses = subject.epochs(jax.tree.map(jnp.copy, subject.initial), data(), keys(0), epochs=3)
    assert losses.shape == (1, 3, 1)
    expected = subject.evaluate(subject.initial, data())["loss"]
    np.testing.assert_allclose(losses[0, 0], expected, rtol=1e-5)


def test_epochs_compile_once_for_each_count():
    class Counted(Linear):
        traces = 0

    subject = trainer(Counted)
    states = fit(subject, data(), keys=keys(0, 1), epochs=6, every=2)
    next(states), next(states)
    traced = Counted.traces
    assert traced > 0
    last(states)
    last(fit(subject, data(seed=9), keys=keys(5, 6), epochs=4, every=2))
    assert Counted.traces == traced


def test_every_need_not_divide_epochs_and_changes_nothing():
    subject, train = trainer(), data()
    epochs = [
        (int(state.step[0]), jax.tree.map(np.array, state))
        for state in fit(subject, train, keys=keys(0, 1), epochs=5, every=2)
    ]
    assert [step for step, _ in epochs] == [0, 8, 16, 20]
    one_by_one = last(fit(subject, train, keys=keys(0, 1), epochs=5))
    for a, b in zip(jax.tree.leaves(epochs[-1][1]), jax.tree.leaves(one_by_one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("every", "calls"), [(64, [32, 32]), (30, [30]), (66, [22, 22, 22]), (43, [43])]
)
def test_many_steps_are_equal_calls_between_which_an_interrupt_is_heard(monkeypatch, every, calls):
    """At most MOST steps a call where that divides them; a prime number of steps stays whole."""
    subject, counts = trainer(), []

    def train(self, state, data, keys, *, steps):
        counts.append(steps)
        return original(self, state, data, keys, steps=steps)

    original = Trainer.train
    monkeypatch.setattr(Trainer, "train", train)
    monkeypatch.setattr(training, "MOST", 32)
    state = last(fit(subject, data(), keys=keys(0, 1), steps=every, every=every))
    assert counts == calls
    whole, _ = original(
        subject, jax.tree.map(jnp.copy, subject.initial), data(), keys(0, 1), steps=every
    )
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one():
    subject, train = trainer(Noisy), data()
    through = [
        jax.tree.map(np.array, state)
        for state in fit(subject, train, keys=keys(0, 1), epochs=5, every=2)
    ]
    saved = jax.tree.map(jnp.asarray, through[1])
    resumed = [
        jax.tree.map(np.array, state)
        for state in fit(subject, train, keys=keys(0, 1), epochs=5, every=2, state=saved)
    ]
    assert [int(state.step[0]) for state in resumed] == [8, 16, 20]
    for a, b in zip(resumed, through[1:], strict=True):
        assert identical(a, b)


def test_the_initial_state_survives_a_fit():
    subject = trainer()
    before = jax.tree.map(np.array, subject.initial)
    last(fit(subject, data(), keys=keys(0, 1), epochs=1))
    assert identical(before, subject.initial)
    assert [int(s.step[0]) for s in fit(subject, data(), keys=keys(0, 1), epochs=0)] == [0]


def test_a_state_is_the_documented_tuple():
    initial = trainer(Noisy, (0, 1, 2)).initial
    assert isinstance(initial, State)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(initial))
