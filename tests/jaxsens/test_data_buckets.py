"""Buckets: which widths waste least, what an epoch visits, and what compiles."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxsens.data.buckets import Buckets, bucket_lengths, bucketed
from jaxsens.data.split import Split
from jaxsens.losses import cross_entropy, plain
from jaxsens.training import Trainer, fit

WIDTHS = (4, 7, 12)


def texts(count=41, seed=0):
    """Texts whose first token is their number."""
    lengths = np.random.default_rng(seed).integers(2, 13, count)
    mask = np.arange(12)[None] < lengths[:, None]
    ids = np.where(mask, np.arange(count)[:, None], 0).astype(np.int32)
    return Split({"ids": ids, "mask": mask}, (lengths % 2).astype(np.int32)), lengths


@hypothesis.given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 3))
@hypothesis.settings(max_examples=60, deadline=None)
def test_widths_waste_least(lengths, count):
    lengths = np.array(lengths)
    widths = bucket_lengths(lengths, count, 4)
    assert widths[-1] == lengths.max()
    assert len(widths) <= count
    assert all(width % 4 == 0 for width in widths[:-1])

    def waste(widths):
        return np.asarray(widths)[np.searchsorted(widths, lengths)].sum()

    choices = [k for k in range(4, lengths.max(), 4)]
    others = [(lengths.max(),)]
    if count > 1:
        others += [(a, lengths.max()) for a in choices]
    if count > 2:
        others += [(a, b, lengths.max()) for a in choices for b in choices if a < b]
    assert waste(widths) == min(map(waste, others))


def test_an_epoch_visits_every_text_once_in_batches_that_fit():
    data, lengths = texts()
    source = Buckets(data, lengths, WIDTHS, 5)
    assert source.steps_per_epoch == 8
    (kinds, rows), keys = source.plan(jax.random.key(1), jnp.int32(0), 16)
    for epoch in (slice(0, 8), slice(8, 16)):
        seen = []
        for kind, row in zip(kinds[epoch], rows[epoch], strict=True):
            batch = source.batch((kind, row), int(kind))
            mask = np.asarray(batch.inputs["mask"])
            assert mask.shape[1] == WIDTHS[int(kind)]
            numbers = np.asarray(batch.inputs["ids"][:, 0])
            np.testing.assert_array_equal(mask.sum(1), lengths[numbers])
            assert int(kind) == 0 or mask.sum(1).max() > WIDTHS[int(kind) - 1]
            np.testing.assert_array_equal(batch.labels, data.labels[numbers])
            seen += numbers.tolist()
        assert len(set(seen)) == 40
    assert not np.array_equal(rows[:8], rows[8:])
    assert len({tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}) == 16
    # Where a run is taken up again, the same; another seed, other texts in batches of one shape.
    (later, _), _ = source.plan(jax.random.key(1), jnp.int32(5), 11)
    np.testing.assert_array_equal(later, kinds[5:])
    (other, others), _ = source.plan(jax.random.key(2), jnp.int32(0), 16)
    np.testing.assert_array_equal(other, kinds)
    assert not np.array_equal(others, rows)


class Bag(nnx.Module):
    """Mean of the real tokens' vectors, then a linear map; counts how often it is traced."""

    widths: list = []  # noqa: RUF012

    def __init__(self, *, rngs):
        self.table, self.head = nnx.Embed(41, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, inputs, *, rngs=None):
        Bag.widths.append(inputs["ids"].shape[1])
        mask = inputs["mask"][..., None]
        return self.head((self.table(inputs["ids"]) * mask).sum(1) / mask.sum(1))


def test_training_compiles_each_width_once_and_is_that_of_padded_batches():
    data, lengths = texts()
    source = Buckets(data, lengths, WIDTHS, 5)
    subject = Trainer(
        [Bag(rngs=nnx.Rngs(seed)) for seed in (0, 1)],
        optax.sgd(0.5),
        loss=plain(cross_entropy),
        batch_size=5,
    )
    keys = jnp.stack([jax.random.key(7), jax.random.key(8)])
    Bag.widths.clear()
    counts = []
    for state in fit(subject, source, keys=keys, steps=12, every=3):
        found = jax.tree.map(np.array, state)
        counts.append(len(Bag.widths))
    assert set(Bag.widths) == set(WIDTHS)
    assert counts[1] == counts[-1]  # nothing was traced after the first three steps
    # One step after the other, on the plan's batches at full width.
    for seed in (0, 1):
        model = Bag(rngs=nnx.Rngs(seed))
        (_, rows), _ = source.plan(keys[seed], jnp.int32(0), 12)
        for row in rows:
            batch = source.data.take(row)

            def loss(model, batch=batch):
                return cross_entropy(model(batch.inputs), batch.labels).mean()

            gradient = nnx.grad(loss)(model)
            for ours, slope in (
                (model.table.embedding, gradient["table"]["embedding"]),
                (model.head.kernel, gradient["head"]["kernel"]),
                (model.head.bias, gradient["head"]["bias"]),
            ):
                ours[...] = ours[...] - 0.5 * slope[...]
        trained = subject.models(jax.tree.map(jnp.asarray, found))[seed]
        np.testing.assert_allclose(
            trained.table.embedding[...], model.table.embedding[...], rtol=1e-4, atol=1e-6
        )
    # The switch between widths is a real one, also for seeds side by side.
    steps = jax.make_jaxpr(lambda s: subject.train(s, source, keys, steps=3))(subject.initial)
    assert "cond[" in str(steps)


def test_evaluation_by_parts_is_that_of_the_whole():
    data, lengths = texts()
    parts = bucketed(data, lengths, WIDTHS)
    assert [part.inputs["ids"].shape[1] for part in parts] == list(WIDTHS)
    assert sum(len(part.labels) for part in parts) == 41
    subject = Trainer([Bag(rngs=nnx.Rngs(0))], optax.sgd(0.1))
    whole = subject.evaluate(subject.initial, data)
    for name, value in subject.evaluate(subject.initial, parts, batch_size=6).items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("widths", "size", "said"),
    [((4, 7), 5, "at least 12"), ((7, 4, 12), 5, "ascending"), (WIDTHS, 42, "there are 41")],
)
def test_what_cannot_be_batched_is_said(widths, size, said):
    data, lengths = texts()
    lengths[0] = 12
    with pytest.raises(ValueError, match=said):
        Buckets(data, lengths, widths, size)
