"""jaxsens.sensitivity against closed forms, exhaustive enumeration and Fourier weights."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsens
from jaxsens import (
    Bits,
    Flip,
    Gaussian,
    Patches,
    Positions,
    Replacement,
    Scatter,
    Whole,
    boolean,
    sensitivity,
)

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


def lookup(table, x):
    """The Boolean function with that truth table, ordered as boolean.cube."""
    d = x.shape[1]
    return table[((x < 0) * 2 ** jnp.arange(d - 1, -1, -1)[None, :]).sum(1)]


D = 6
FUNCTIONS = {
    "parity": boolean.parity(D),
    "parity of three": boolean.parity(D, (0, 2, 3)),
    "majority of five": np.repeat(np.asarray(boolean.majority(D - 1)), 2),
    "dictator": boolean.dictator(D, 2),
    "tribes": boolean.tribes(D, 2),
    "random": boolean.random(D, key=KEY),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_boolean_functions_against_enumeration_and_fourier_weights(name):
    table, cube = np.asarray(FUNCTIONS[name], np.int32), np.asarray(boolean.cube(D))
    est = sensitivity(
        jax.tree_util.Partial(lookup, table), cube, key=KEY, tokens=Bits(), noise=Flip()
    )
    # Exhaustive, in plain Python.
    value = {tuple(x): f for x, f in zip(cube.tolist(), table.tolist(), strict=True)}
    flipped = np.array(
        [[value[tuple(x)] != value[tuple(x * (1 - 2 * np.eye(D)[i]))] for i in range(D)]
         for x in cube]
    )  # fmt: skip
    np.testing.assert_array_equal(est.rates, flipped)
    assert est.forward_passes == 2**D * (1 + D)  # a flip is deterministic: drawn once
    # Fourier: S(f) = sum_U |U| f_hat(U)^2, with the characters written out.
    subsets = np.array(list(itertools.product([0, 1], repeat=D)), bool)
    characters = np.where(subsets[:, None, :], cube[None], 1).prod(2)
    weights = (characters * table).mean(1) ** 2
    assert est.value * D == pytest.approx((subsets.sum(1) * weights).sum(), abs=1e-12)
    assert est.value == pytest.approx(boolean.normalised_sensitivity(table), abs=1e-12)
    np.testing.assert_allclose(est.per_token, boolean.influences(table), atol=1e-12)
    np.testing.assert_allclose(est.per_example * D, boolean.sensitivity_at(table), atol=1e-12)


def test_named_functions_by_their_formulas():
    """Models written as formulas, not tables, with their textbook sensitivities."""
    cube = np.asarray(boolean.cube(7))
    measure = functools.partial(sensitivity, key=KEY, tokens=Bits(), noise=Flip())
    assert measure(lambda x: x.prod(1), cube).value == 1
    assert measure(lambda x: x[:, 3], cube).value == pytest.approx(1 / 7)
    majority = 7 * math.comb(6, 3) / 2**6
    assert measure(lambda x: x.sum(1), cube).value * 7 == pytest.approx(majority)


def synthetic(n, n_s, n_d, n_f, m, vocabulary, seed):
    """Tokens and labels of the synthetic task (paper A, Section 4.1), positions shuffled."""
    rng = np.random.default_rng(seed)
    frequent = {1: np.arange(2, 2 * m + 2, 2), -1: np.arange(3, 2 * m + 2, 2)}
    irrelevant = np.arange(2 * m + 2, vocabulary)
    assert len(frequent[1]) == len(frequent[-1]) == m
    own = (n_f + n_d) // 2
    y = rng.choice([-1, 1], size=n)
    rows = [
        rng.permutation(
            np.concatenate(
                [
                    np.full(n_s, 0 if label > 0 else 1),
                    rng.choice(frequent[label], own),
                    rng.choice(frequent[-label], n_f - own),
                    rng.choice(irrelevant, 50 - n_f - n_s),
                ]
            )
        )
        for label in y
    ]
    return np.eye(vocabulary, dtype=np.float32)[np.array(rows)], y


def score(direction, x):
    return (x @ direction).sum(1)


# (n_s, n_d), (n_f, m), the figures of Tables 1 and 3: sparse-only and frequent-only predictor.
TABLES = [
    ((3, 1), (3, 6), 0, 0.1315),
    ((3, 1), (5, 16), 0, 0.2878),
    ((3, 1), (7, 28), 0, 0.4502),
    ((1, 7), (7, 10), 0.0339, 0),
    ((1, 7), (17, 20), 0.0339, 0),
    ((1, 7), (32, 36), 0.0339, 0),
]


@pytest.mark.parametrize(("sparse", "frequent", "printed_sparse", "printed_frequent"), TABLES)
def test_ideal_predictors_of_tables_1_and_3(sparse, frequent, printed_sparse, printed_frequent):
    (n_s, n_d), (n_f, m) = sparse, frequent
    vocabulary = 59 if n_s == 3 else 75
    x, y = synthetic(300, n_s, n_d, n_f, m, vocabulary, seed=n_f)
    v_sparse, v_frequent = np.zeros(vocabulary, "f4"), np.zeros(vocabulary, "f4")
    v_sparse[:2] = 1, -1
    v_frequent[2 : 2 * m + 2] = np.tile([1, -1], m)
    measured = {}
    for name, v in (("sparse", v_sparse), ("frequent", v_frequent)):
        assert (np.sign(score(v, x)) == y).all()  # both predict every label
        measured[name] = sensitivity(
            jax.tree_util.Partial(score, v), x, key=KEY, tokens=Positions(),
            noise=Replacement(np.eye(vocabulary, dtype=np.float32)), repeats=2, batch_size=256,
        )  # fmt: skip
    f = m / vocabulary
    exact = {
        "sparse": 0 if n_s > 2 else ((1 - 1 / vocabulary) + 49 / vocabulary) / 50,
        "frequent": 0 if n_d > 2 else ((n_f + 1) / 2 * (1 - f) + (50 - n_f) * f) / 50,
    }
    assert exact["frequent"] == pytest.approx(printed_frequent, abs=6e-5)
    assert exact["sparse"] == pytest.approx(printed_sparse, abs=1.2e-3)  # the paper's is sampled
    for name, est in measured.items():
        if exact[name] == 0:
            assert est.value == 0
        else:
            assert 0 < est.stderr < 0.01
            assert abs(est.value - exact[name]) < 3 * est.stderr


def test_zero_is_a_third_decision():
    """Replacing the one informative token by an uninformative one is a tie, and counts."""
    x = np.array([[1, 0], [-1, 0]])
    est = sensitivity(lambda x: x.sum(1), x, key=KEY, tokens=Positions(), noise=Replacement([0]))
    np.testing.assert_array_equal(est.rates, [[1, 0], [1, 0]])
    got = jaxsens.decision(jnp.array([-2.0, 0.0, 3.0, jnp.nan]))
    np.testing.assert_array_equal(got, [-1, 0, 1, -2])
    np.testing.assert_array_equal(jaxsens.decision(jnp.array([[1.0, 1.0], [0.0, 2.0]])), [0, 1])
