"""The regularised loss against a statement of it row by row, its gradient against differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from witnesses.small_training import CLASSES, SGD, Linear, keys

from jaxsens import Flip, Gaussian, Patches, Positions, Replacement, Whole
from jaxsens.losses import accuracy, cross_entropy
from jaxsens.regularised import Regularised, Squares
from jaxsens.training import Split, Trainer

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(6, 4, 4, 2)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, 6).astype(np.int32)


class Net(nnx.Module):
    """Two layers with dropout between them."""

    def __init__(self, rngs, features=32):
        self.first, self.last = (
            nnx.Linear(features, 5, rngs=rngs),
            nnx.Linear(5, CLASSES, rngs=rngs),
        )
        self.drop = nnx.Dropout(0.5)

    def __call__(self, x, *, rngs=None):
        return self.last(self.drop(jnp.tanh(self.first(x.reshape(len(x), -1))), rngs=rngs))


@functools.partial(jax.jit, static_argnums=0)
def perturbed(loss, given, inputs, key):
    return loss.perturbed(given, inputs, key)


def weights(net):
    return [np.asarray(a, np.float64) for layer in (net.first, net.last)
            for a in (layer.kernel[...], layer.bias[...])]  # fmt: skip


def slow(w, clean, noisy, labels, masks, p):
    """The loss of each example, one at a time, in float64; ``masks`` of dropout for either pass."""

    def logits(x, mask):
        return (np.tanh(x.ravel() @ w[0] + w[1]) * mask / 0.5) @ w[2] + w[3]

    found = []
    for x, other, label, first, second in zip(clean, noisy, labels, *masks, strict=True):
        a, b = logits(np.float64(x), first), logits(np.float64(other), second)
        entropy = np.log(np.exp(a - a.max()).sum()) + a.max() - a[label]
        found.append((1 - p) * entropy + p * sum((a - b) ** 2) / CLASSES)
    return np.array(found)


def test_loss_and_gradient_are_the_slow_statement():
    net, loss = Net(nnx.Rngs(0)), Regularised(Patches(2), Gaussian(1.0), strength=0.25)
    streams = lambda: nnx.Rngs(7, dropout=8)  # noqa: E731
    noisy = np.asarray(perturbed(loss, IMAGES, IMAGES, streams().noise()))
    # The masks, as the layer draws them one after the other.
    rngs = streams()
    masks = [np.asarray(net.drop(jnp.ones((6, 5)), rngs=rngs)) > 0 for _ in range(2)]
    assert (masks[0] != masks[1]).any()

    def mean(net):
        return loss(net, IMAGES, LABELS, streams()).mean()

    np.testing.assert_allclose(
        nnx.jit(lambda net: loss(net, IMAGES, LABELS, streams()))(net),
        slow(weights(net), IMAGES, noisy, LABELS, masks, 0.25),
        rtol=2e-5,
    )
    gradient = nnx.jit(nnx.grad(mean))(net)
    found = weights(gradient)
    for number, way in enumerate(RNG.normal(size=w.shape) for w in weights(net)):
        ends = []
        for step in (1e-5, -1e-5):
            moved = weights(net)
            moved[number] = moved[number] + step * way
            ends.append(slow(moved, IMAGES, noisy, LABELS, masks, 0.25).mean())
        along = (ends[0] - ends[1]) / 2e-5
        assert (found[number] * way).sum() == pytest.approx(along, rel=2e-3, abs=1e-5)


def test_one_patch_of_each_image_changes_and_every_patch_comes_up():
    loss = Regularised(Patches(2), Gaussian(4.0))
    many = jnp.zeros((400, 4, 4, 2))
    noise = np.asarray(perturbed(loss, many, many, jax.random.key(0)))
    changed = (
        (noise != 0).all(-1).reshape(400, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(400, 4, 4)
    )
    assert (changed.all(-1).sum(1) == 1).all()
    assert (changed.sum((1, 2)) == 4).all()
    assert np.abs(changed.all(-1).mean(0) - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 400)
    assert noise[noise != 0].std() == pytest.approx(2.0, rel=0.05)


def test_squares_lie_anywhere_but_on_the_last_row_and_column():
    tokens = Squares(2)
    assert tokens.count((1, 4, 4, 2)) == 4
    assert tokens.count((1, 32, 32, 3)) == 30 * 30
    many = jnp.zeros((300, 4, 4, 1))
    noise = perturbed(Regularised(tokens, Gaussian(1.0)), many, many, jax.random.key(1))
    places = (np.asarray(noise)[..., 0] != 0).reshape(300, -1)
    corners = {tuple(np.unravel_index(p.argmax(), (4, 4))) for p in places}
    assert (places.sum(1) == 4).all()
    assert corners == {(0, 0), (0, 1), (1, 0), (1, 1)}


def embed(net, batch):
    return {"tokens": jnp.tile(batch["ids"][..., None], 3), "mask": batch["mask"]}


def outputs(net, given, rngs):
    return net((given["tokens"] * given["mask"][..., None]).reshape(len(given["mask"]), -1))


@pytest.mark.parametrize(("tokens", "each"), [(Positions("mask"), 1), (Whole("mask"), None)])
def test_padding_of_embedded_tokens_is_never_touched(tokens, each):
    mask = np.arange(4) < RNG.integers(1, 5, (50, 1))
    batch = {"ids": jnp.ones((50, 4)), "mask": jnp.asarray(mask)}
    loss = Regularised(tokens, Gaussian(1.0), perturb="tokens", embed=embed, apply=outputs)
    given = embed(None, batch)
    noised = perturbed(loss, given, batch, jax.random.key(0))
    assert (noised["mask"] == mask).all()
    changed = (noised["tokens"] != given["tokens"]).all(-1)
    assert not (changed & ~mask).any()
    assert (changed.sum(1) == (mask.sum(1) if each is None else each)).all()
    net = Linear(rngs=nnx.Rngs(0), features=12)
    found = jax.jit(lambda batch: loss(net, batch, jnp.zeros(50, int), nnx.Rngs(0)))(batch)
    key = nnx.Rngs(0).noise()
    clean, noisy = (outputs(net, x, None) for x in (given, perturbed(loss, given, batch, key)))
    entropy, change = cross_entropy(clean, jnp.zeros(50, int)), ((clean - noisy) ** 2).mean(1)
    expected = 0.75 * entropy + 0.25 * change
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_strength_0_is_the_cross_entropy_and_the_trainer_takes_the_loss():
    net = Linear(rngs=nnx.Rngs(0), features=32)
    flat, metrics = IMAGES.reshape(6, -1), {"loss": cross_entropy, "accuracy": accuracy}
    plain = Regularised(Positions(), Gaussian(1.0), strength=0.0)
    np.testing.assert_array_equal(
        plain(net, flat, LABELS, nnx.Rngs(0)), cross_entropy(net(flat), LABELS)
    )
    loss = Regularised(Positions(), Gaussian(1.0), strength=0.98)
    trainer = Trainer([net], SGD, batch_size=6, loss=loss, metrics=metrics)
    initial = jax.tree.map(jnp.copy, trainer.initial)
    state, _ = trainer.train(initial, Split(flat, LABELS), keys(0), steps=300)
    # What noise on one number does is the square of its weights: they shrink.
    before, after = (np.square(n.dense.kernel[...]).sum() for n in (net, trainer.models(state)[0]))
    assert after < 0.8 * before


def test_a_noise_of_values_may_be_used_within_a_compiled_step():
    bits = jnp.asarray(np.sign(IMAGES.reshape(6, -1)))
    loss = Regularised(Positions(), Flip())
    flipped = perturbed(loss, bits, bits, jax.random.key(0))
    assert ((flipped != bits).sum(1) == 1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": 1.0}, "strength must be at least 0 and below 1, got 1.0"),
        ({"strength": -0.1}, "strength must be at least 0 and below 1, got -0.1"),
        ({"strength": float("nan")}, "strength must be at least 0 and below 1, got nan"),
        ({"strength": "strong"}, "strength must be a number from 0 and below 1, got 'strong'"),
        ({"tokens": None}, "tokens must be given"),
        ({"tokens": Positions(np.ones((2, 2)))}, "a mask of one batch is not that of the next"),
    ],
)
def test_settings_that_cannot_be_are_one_line(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Regularised(**{"tokens": Patches(2), "noise": Gaussian(1.0), **settings})


@pytest.mark.parametrize(
    ("tokens", "noise", "inputs", "message"),
    [
        (Patches(3), Gaussian(1.0), IMAGES, "does not divide images of 4 x 4"),
        (Squares(4), Gaussian(1.0), IMAGES, r"sides above 4, got shape \(6, 4, 4, 2\)"),
        (Patches(2), Gaussian(1.0), LABELS, "needs floating-point inputs, got int32"),
        (Patches(2), Replacement(np.arange(3)), IMAGES, "vocabulary has dtype"),
        (Positions("pad"), Gaussian(1.0), {"a": IMAGES}, "mask='pad' names no array"),
        (Positions(), Gaussian(1.0), {"a": IMAGES, "b": IMAGES}, "say which one holds the tokens"),
    ],
)
def test_inputs_without_such_tokens_are_one_line(tokens, noise, inputs, message):
    inputs = jax.tree.map(jnp.asarray, inputs)
    with pytest.raises((TypeError, ValueError), match=message):
        Regularised(tokens, noise).perturbed(inputs, inputs, jax.random.key(0))
