"""jaxsens.sensitivity of functions of symbols: enumeration, Fourier weights, printed tables."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsens
from jaxsens import Bits, Flip, Positions, Replacement, boolean, sensitivity

KEY = jax.random.key(0)


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
