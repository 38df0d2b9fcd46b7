"""Steps within an epoch, inputs with a mask, losses with noise, sources of batches."""

import dataclasses
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from witnesses.small_training import (
    BATCH,
    CLASSES,
    EXAMPLES,
    FEATURES,
    SGD,
    Linear,
    Noisy,
    data,
    identical,
    keys,
    last,
    trainer,
)

from jaxsens.data.batches import Fresh, Shuffled
from jaxsens.losses import accuracy, cross_entropy
from jaxsens.training import Split, Trainer, fit


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
