"""jaxsens.sensitivity of linear models under Gaussian noise, against closed forms."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import Bits, Gaussian, Patches, Positions, Scatter, Whole, sensitivity

KEY = jax.random.key(0)


def phi(z):
    return np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)))(z)


def linear(w, x):
    """A threshold model with weights of the shape of one example."""
    return jnp.tensordot(x, w, axes=w.ndim)


def images(n, side=8, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(side, side, channels)).astype(np.float32)
    return rng.normal(size=(n, side, side, channels)).astype(np.float32), weights


def flip_probability(margin, variance, norms):
    """Phi(-|margin| / (sigma ||w_token||)) for every example and token."""
    with np.errstate(divide="ignore"):
        return phi(-np.abs(margin)[:, None] / (np.sqrt(variance) * np.asarray(norms)[None, :]))


def assert_rates(rates, exact, repeats):
    """Cells are independent binomials: their sum within 4.5 standard errors, and their spread."""
    variance = exact * (1 - exact) / repeats
    assert abs((rates - exact).sum()) < 4.5 * np.sqrt(variance.sum())
    rare = variance * repeats > 0.01
    z2 = ((rates - exact) ** 2)[rare] / variance[rare]
    assert rare.sum() > 20
    assert abs(z2.mean() - 1) < 6 * z2.std() / np.sqrt(len(z2))
    assert (rates[variance == 0] == exact[variance == 0]).all()


def test_patches_of_a_linear_model():
    x, w = images(40)
    w[:4, 4:] = 0  # the second patch of four by four pixels is not read
    est = sensitivity(
        jax.tree_util.Partial(linear, w), x, key=KEY, tokens=Patches(4), noise=Gaussian(9.0),
        repeats=100,
    )  # fmt: skip
    norms = [np.linalg.norm(w[r : r + 4, c : c + 4]) for r in (0, 4) for c in (0, 4)]
    assert norms[1] == 0
    exact = flip_probability(np.tensordot(x, w, 3), 9.0, norms)
    assert_rates(est.rates, exact, 100)
    assert (est.per_token[1], est.forward_passes) == (0, 40 * (1 + 4 * 100))


def test_variance_is_a_variance():
    """A quarter of the variance is half the standard deviation, so twice the distance in Phi."""
    x, w = np.ones((2000, 1), np.float32), jnp.ones(1)
    for variance, exact in ((4.0, phi(-0.5)), (1.0, phi(-1.0)), (0.25, phi(-2.0))):
        est = sensitivity(
            jax.tree_util.Partial(linear, w), x, key=KEY, tokens=Bits(), noise=Gaussian(variance)
        )
        assert abs(est.value - exact) < 4 * math.sqrt(exact * (1 - exact) / 10_000)


def test_positions_of_a_linear_model():
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(60, 5, 3)).astype(np.float32), rng.normal(size=(5, 3)).astype("f4")
    mask = np.arange(5) < rng.integers(1, 6, size=(60, 1))
    est = sensitivity(
        jax.tree_util.Partial(linear, w), x, key=KEY, tokens=Positions(mask), noise=Gaussian(4.0),
        repeats=100,
    )  # fmt: skip
    exact = flip_probability(np.tensordot(x, w, 2), 4.0, np.linalg.norm(w, axis=1))
    assert_rates(est.rates[mask], exact[mask], 100)
    assert np.isnan(est.rates[~mask]).all()
    by_hand = np.mean([est.rates[i, mask[i]].mean() for i in range(60)])
    assert est.value == pytest.approx(by_hand, abs=1e-12)
    assert est.forward_passes == 60 + 100 * mask.sum()


def test_whole_input_of_a_linear_model():
    x, w = images(300)
    est = sensitivity(
        jax.tree_util.Partial(linear, w), x, key=KEY, tokens=Whole(), noise=Gaussian(0.5),
        repeats=40,
    )  # fmt: skip
    assert est.rates.shape == (300, 1)
    exact = flip_probability(np.tensordot(x, w, 3), 0.5, [np.linalg.norm(w)])
    assert_rates(est.rates, exact, 40)


def test_class_logits_decide_by_argmax():
    """Two logits that differ by the margin flip as its sign does."""
    x, w = images(40)

    def logits(w, x):
        return jnp.stack([1 + 0 * linear(w, x), 1 + linear(w, x)], axis=1)

    est = sensitivity(
        jax.tree_util.Partial(logits, w), x, key=KEY, tokens=Patches(4), noise=Gaussian(9.0),
        repeats=100,
    )  # fmt: skip
    norms = [np.linalg.norm(w[r : r + 4, c : c + 4]) for r in (0, 4) for c in (0, 4)]
    assert_rates(est.rates, flip_probability(np.tensordot(x, w, 3), 9.0, norms), 100)


def test_scatter_is_its_expectation_over_pixel_sets_and_not_patches():
    """A model of one patch: Patches flips on one token in four, Scatter on nearly every set."""
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(200, 4, 4, 1)).astype("f4"), np.zeros((4, 4, 1), np.float32)
    w[:2, :2, 0] = [[1.0, 2.0], [-1.0, 1.0]]
    model = jax.tree_util.Partial(linear, w)
    margin, variance = np.tensordot(x, w, 3), 4.0
    patches = sensitivity(
        model, x, key=KEY, tokens=Patches(2), noise=Gaussian(variance), repeats=50
    )
    only = flip_probability(margin, variance, [np.linalg.norm(w)])[:, 0]
    assert_rates(patches.rates[:, :1], only[:, None], 50)
    assert (patches.rates[:, 1:] == 0).all()

    sets = np.array(list(itertools.combinations(range(16), 4)))
    norms = np.sqrt((w.reshape(-1)[sets] ** 2).sum(1))
    exact = flip_probability(margin, variance, norms).mean()
    # 4 tokens x 400 draws are 1,600 pixel sets, shared by the examples.
    scatter = sensitivity(
        model, x, key=KEY, tokens=Scatter(2), noise=Gaussian(variance), repeats=400
    )
    between_sets = flip_probability(margin, variance, norms).mean(0).std() / np.sqrt(1600)
    assert abs(scatter.value - exact) < 4 * between_sets
    assert abs(scatter.value - patches.value) > 20 * between_sets


def test_scatter_shares_its_pixels_among_examples_but_not_its_noise():
    x = np.zeros((30, 6, 6, 1), np.float32)

    def which(tokens):
        seen = []

        def model(x):
            jax.debug.callback(lambda a: seen.append(np.array(a)), x)
            return x.sum((1, 2))

        sensitivity(model, x, key=KEY, tokens=tokens, noise=Gaussian(1.0), repeats=2)
        jax.effects_barrier()
        return np.concatenate(seen)[: 30 * (1 + 9 * 2)].reshape(30, 19, 36)[:, 1:]

    noised = which(Scatter(2))
    places = noised != 0
    assert (places.sum(2) == 4).all()
    assert (places == places[:1]).all()
    assert len(np.unique(places[0], axis=0)) > 10
    assert len(np.unique(noised[:, places[0]])) == 30 * 18 * 4
