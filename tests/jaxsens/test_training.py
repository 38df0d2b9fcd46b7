"""Compiled epochs against a slow NumPy loop, seeds together against seeds alone, resumed runs."""

import collections
import dataclasses
import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxsens._finite import check_losses
from jaxsens.data.batches import Fresh, Shuffled
from jaxsens.losses import accuracy, cross_entropy, plain
from jaxsens.training import Split, State, Trainer, fit

EXAMPLES, FEATURES, CLASSES, BATCH = 23, 6, 3, 5
SGD = optax.sgd(0.1, momentum=0.9)


class Linear(nnx.Module):
    """Softmax regression, whose gradients NumPy can write down; counts its traces."""

    traces = 0

    def __init__(self, *, rngs, features=FEATURES):
        self.dense = nnx.Linear(features, CLASSES, rngs=rngs)

    def __call__(self, x, *, rngs=None):
        type(self).traces += 1
        return self.dense(x)


class Noisy(nnx.Module):
    """BatchNorm and Dropout, both of which act differently in training."""

    def __init__(self, *, rngs):
        self.norm = nnx.BatchNorm(FEATURES, momentum=0.9, rngs=rngs)
        self.drop = nnx.Dropout(0.5)
        self.dense = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

    def __call__(self, x, *, rngs=None):
        return self.dense(self.drop(self.norm(x), rngs=rngs))


def data(examples=EXAMPLES, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, 1.5, (examples, FEATURES)).astype(np.float32)
    return Split(x, rng.integers(0, CLASSES, examples).astype(np.int32))


def keys(*seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


@functools.cache  # a trainer keeps its compiled programs
def trainer(model=Linear, seeds=(0, 1), batch_size=BATCH, optimizer=SGD, **settings):
    models = [model(rngs=nnx.Rngs(seed)) for seed in seeds]
    return Trainer(models, optimizer, batch_size=batch_size, **settings)


def last(states):
    return collections.deque(states, maxlen=1).pop()


def identical(a, b):
    return all(
        (np.asarray(x) == np.asarray(y)).all()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def visited(key, epoch, examples, steps, size):
    """The documented order: the permutation of the epoch's key, without the remainder."""
    order_key, _ = jax.random.split(jax.random.fold_in(key, epoch))
    order = np.asarray(jax.random.permutation(order_key, examples))
    return order[: steps * size].reshape(steps, size)


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


def test_steps_within_an_epoch_compile_once_and_change_nothing():
    class Counted(Linear):
        traces = 0

    subject, train = trainer(Counted), data()
    states, traces = [], []
    for state in fit(subject, train, keys=keys(0, 1), steps=12, every=3):  # an epoch has 4
        states.append(jax.tree.map(np.array, state))
        traces.append(Counted.traces)
    assert [int(state.step[0]) for state in states] == [0, 3, 6, 9, 12]
    assert traces[1] == traces[-1]  # wherever in an epoch the steps lie
    whole = last(fit(subject, train, keys=keys(0, 1), epochs=3))
    for a, b in zip(jax.tree.leaves(states[-1]), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    saved = jax.tree.map(jnp.asarray, states[1])
    assert identical(last(fit(subject, train, keys=keys(0, 1), steps=12, every=3, state=saved)),
                     states[-1])  # fmt: skip


class Masked(nnx.Module):
    """The mean of the real rows of a sequence, then softmax regression."""

    def __init__(self, *, rngs):
        self.dense = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

    def __call__(self, inputs, *, rngs=None):
        mask = inputs["mask"][..., None]
        return self.dense((inputs["rows"] * mask).sum(1) / mask.sum(1))


def test_inputs_may_be_a_tree_with_a_mask():
    rng = np.random.default_rng(3)
    mask = np.arange(4)[None] < rng.integers(1, 5, (EXAMPLES, 1))
    rows = rng.normal(size=(EXAMPLES, 4, FEATURES)).astype(np.float32)
    train = Split({"rows": rows, "mask": mask.astype(np.float32)}, data().labels)
    padded = np.where(mask[..., None], rows, 77.0).astype(np.float32)
    other = Split({"rows": padded, "mask": mask.astype(np.float32)}, data().labels)
    subject = trainer(Masked)
    a, b = (last(fit(subject, each, keys=keys(0, 1), epochs=2)) for each in (train, other))
    assert identical(a, b)
    assert not identical(a, subject.initial)
    found = subject.evaluate(a, train, batch_size=7)
    assert identical(found, subject.evaluate(a, other, batch_size=7))


@dataclasses.dataclass(frozen=True)
class Jittered:
    """(1 - p) CE + p |l - l'|^2, l' the logits of inputs with noise of a stream of its own."""

    strength: float

    def __call__(self, model, inputs, labels, rngs):
        noise = jax.random.normal(rngs.noise(), inputs.shape)
        clean, noisy = model(inputs, rngs=rngs), model(inputs + noise, rngs=rngs)
        square = ((clean - noisy) ** 2).sum(-1)
        return (1 - self.strength) * cross_entropy(clean, labels) + self.strength * square


METRICS = {"loss": cross_entropy, "accuracy": accuracy}


def test_a_loss_with_noise_of_its_own_is_not_what_evaluation_shows():
    train = data()
    jittered = {p: trainer(Noisy, loss=Jittered(p), metrics=Metrics(METRICS)) for p in (0.0, 0.5)}
    subject = trainer(Noisy)
    states = {p: last(fit(t, train, keys=keys(0, 1), epochs=1)) for p, t in jittered.items()}
    # At p = 0 only the second pass remains, which moves the running averages, not the parameters:
    # drawing noise leaves the stream of dropout alone.
    reference = last(fit(subject, train, keys=keys(0, 1), epochs=1))
    for a, b in zip(
        jax.tree.leaves(states[0.0].params), jax.tree.leaves(reference.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert not identical(states[0.5].params, states[0.0].params)
    for state in states.values():
        shown = jittered[0.5].evaluate(state, train)
        assert identical(shown, subject.evaluate(state, train))


class Metrics(dict):
    """A mapping that the cache of trainers can look up."""

    def __hash__(self):
        return hash(tuple(self.items()))


def draw(key):
    x = jax.random.normal(key, (BATCH, FEATURES))
    return Split(x, jnp.argmax(x[:, :CLASSES], axis=1))


def relabelled(key, table):
    x, labels = draw(key)
    return Split(x, table[labels])


def test_examples_drawn_afresh_are_learned_and_repeat_when_resumed():
    subject = trainer(seeds=(0, 1))
    states = [
        jax.tree.map(np.array, state)
        for state in fit(subject, Fresh(draw), keys=keys(0, 1), steps=200, every=100)
    ]
    fresh = draw(jax.random.key(9))
    before, after = (subject.evaluate(state, fresh)["loss"] for state in (states[0], states[-1]))
    assert (np.asarray(after) < 0.5 * np.asarray(before)).all()
    saved = jax.tree.map(jnp.asarray, states[1])
    resumed = last(fit(subject, Fresh(draw), keys=keys(0, 1), steps=200, every=100, state=saved))
    assert identical(resumed, states[-1])
    assert Fresh(draw, steps_per_epoch=7).steps_per_epoch == 7


def test_seeds_may_have_data_of_their_own():
    tables = jnp.stack([jnp.arange(CLASSES), (jnp.arange(CLASSES) + 1) % CLASSES])
    subject = trainer(seeds=(0, 0))
    source = Fresh(relabelled, tables, per_seed=True)
    state = last(fit(subject, source, keys=keys(4, 4), steps=200, every=100))
    shown = [
        subject.evaluate(state, relabelled(jax.random.key(9), table))["loss"] for table in tables
    ]
    assert shown[0][0] < 0.5 < shown[0][1]
    assert shown[1][1] < 0.5 < shown[1][0]
    one, other = data(), data(seed=5)
    both = Split(*(np.stack(leaves) for leaves in zip(one, other, strict=True)))
    together = last(fit(subject, Shuffled(both, BATCH, per_seed=True), keys=keys(4, 4), epochs=1))
    for number, each in enumerate((one, other)):
        alone = last(fit(trainer(seeds=(0,)), each, keys=keys(4), epochs=1))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[number], b[0], rtol=1e-4, atol=1e-6)


def test_a_trainer_is_freed_with_its_arrays():
    model = Linear(rngs=nnx.Rngs(0))
    subject = Trainer([model], SGD, batch_size=BATCH)
    state = last(fit(subject, data(), keys=keys(0), epochs=1))
    subject.evaluate(state, data())
    watched = [weakref.ref(subject), *map(weakref.ref, jax.tree.leaves(subject.initial))]
    del subject, model, state
    gc.collect()
    assert [reference() for reference in watched] == [None] * len(watched)


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


def schedule(count):
    return jnp.where(count < 5, 0.1, jnp.inf)


@pytest.mark.parametrize(
    ("rate", "named"), [(1e38, r" \(learning rate 1e\+38\)"), (schedule, r" \(learning rate inf\)")]
)
def test_a_loss_that_is_not_finite_names_the_place(rate, named):
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=rate)
    subject = trainer(optimizer=optimizer)
    message = rf"not finite at epoch \d+, step \d+, seed number [01]{named}; lower the learning"
    with pytest.raises(FloatingPointError, match=message):
        last(fit(subject, data(), keys=keys(0, 1), epochs=3))


def test_the_first_bad_loss_in_time_is_named():
    losses = np.zeros((3, 8))  # after 2 steps of epoch 11 of 4 steps each
    losses[0, 5] = losses[2, 3] = np.nan
    losses[1, 4] = -np.inf
    with pytest.raises(FloatingPointError, match="epoch 12, step 2, seed number 2; lower"):
        check_losses(losses, first_step=42, steps_per_epoch=4)


def test_a_last_update_that_overflows_is_caught_before_it_is_measured():
    subject = trainer(seeds=(0, 1), batch_size=None, optimizer=optax.sgd(float("inf")))
    states = fit(subject, data(), keys=keys(0, 1), epochs=1)
    next(states)
    with pytest.raises(FloatingPointError, match="not finite after epoch 1, step 1, seed"):
        next(states)


def test_optimizers_without_one_learning_rate_are_fine():
    both = optax.chain(
        optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
        optax.inject_hyperparams(optax.sgd)(learning_rate=0.2),
    )
    last(fit(trainer(optimizer=both), data(), keys=keys(0, 1), epochs=1))


def mean_loss(outputs, labels):
    return cross_entropy(outputs, labels).mean()


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: trainer(seeds=()), "models is empty"),
        (lambda: Trainer([Linear(rngs=nnx.Rngs(0)), Noisy(rngs=nnx.Rngs(0))], optax.sgd(1),
                         batch_size=1), "models differ in structure"),
        (lambda: Trainer([Linear(rngs=nnx.Rngs(0), features=n) for n in (4, 5)], optax.sgd(1),
                         batch_size=1), "models differ in structure"),
        (lambda: trainer(batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda: next(fit(trainer(), data(), keys=keys(0), epochs=1)), "one for each of 2 models"),
        (lambda: next(fit(trainer(), data(), keys=keys(0, 1), epochs=1, every=0)), "every must be"),
        (lambda: last(fit(trainer(), data(0), keys=keys(0, 1), epochs=1)), "0 inputs and 0 labels"),
        (lambda: last(fit(trainer(), Split(data().inputs, data().labels[:9]), keys=keys(0, 1),
                          epochs=1)), "23 inputs and 9 labels"),
        (lambda: trainer().evaluate(trainer().initial, data(0)), "0 inputs and 0 labels"),
        (lambda: trainer().evaluate(trainer().initial, data(), batch_size=0), "batch_size must be"),
        (lambda: last(fit(trainer(), data(), keys=keys(0, 1))), "give either epochs or steps"),
        (lambda: last(fit(trainer(), data(), keys=keys(0, 1), epochs=1, steps=1)), "either epochs"),
        (lambda: trainer(loss=lambda *args: None), "metrics is missing"),
        (lambda: trainer(loss=plain(mean_loss)).evaluate(trainer().initial, data()),
         r"loss has shape \(\); expected one value per example, \(23,\)"),
        (lambda: last(fit(trainer(loss=plain(mean_loss)), data(), keys=keys(0, 1), epochs=1)),
         r"loss has shape \(\); expected one value per example, \(5,\)"),
    ],
)  # fmt: skip
def test_misuse_is_one_line(attempt, message):
    with pytest.raises(ValueError, match=message) as error:
        attempt()
    assert "\n" not in str(error.value)


def test_a_state_is_the_documented_tuple():
    initial = trainer(Noisy, (0, 1, 2)).initial
    assert isinstance(initial, State)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(initial))
