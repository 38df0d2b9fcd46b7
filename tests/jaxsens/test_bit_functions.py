"""Functions of bit strings: known sensitivities, tables, and batches drawn on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import boolean
from jaxsens.data.bit_functions import (
    BUILT_IN,
    FromTable,
    average_sensitivity_of,
    checked_table,
    fresh,
    labels_of,
    points_of,
    rows_of,
)

EXACT = {  # n = 4, 10, 20
    "parity": (4, 10, 20),
    "majority": (1.5, 2.4609375, 3.5239410400390625),
    "first": (1, 1, 1),
    "mean": (0.25, 0.1, 0.05),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_average_sensitivity_in_closed_form_is_that_of_the_table(name):
    for n in (1, 5, 10):
        values = 2 * np.asarray(BUILT_IN[name](boolean.cube(n)), float) - 1
        weights = boolean.weights_by_degree(values)
        measured = weights @ np.arange(n + 1)
        assert average_sensitivity_of(name, n) == pytest.approx(measured, rel=1e-6)
    assert [average_sensitivity_of(name, n) for n in (4, 10, 20)] == pytest.approx(EXACT[name])
    assert average_sensitivity_of("majority", 30) == pytest.approx(4.334, abs=5e-4)


def test_the_functions_are_those_of_the_bits():
    points = boolean.cube(4)
    bits = np.arange(16)[:, None] >> np.arange(3, -1, -1)[None] & 1
    expected = {
        "parity": bits.sum(1) % 2, "majority": bits.sum(1) > 2, "first": bits[:, 0],
        "mean": bits.mean(1),
    }  # fmt: skip
    for name, function in BUILT_IN.items():
        np.testing.assert_array_equal(function(points), expected[name].astype(np.float32))
    np.testing.assert_array_equal(rows_of(points), np.arange(16))
    np.testing.assert_array_equal(points_of(jnp.arange(16), 4), points)


def test_batches_are_fresh_uniform_and_labelled_by_the_function_asked_for():
    drawn = {}
    for name in BUILT_IN:
        source = fresh(BUILT_IN, name, n=6, batch=200)
        plan, _ = source.plan(jax.random.key(0), jnp.int32(3), 2)
        one, other = source.batch(plan[0]), source.batch(plan[1])
        np.testing.assert_allclose(one.labels, BUILT_IN[name](one.inputs), atol=1e-6)
        assert np.any(one.inputs != other.inputs)
        drawn[name] = source
    assert {source.draw for source in drawn.values()} == {drawn["mean"].draw}  # one program
    assert abs(float(one.inputs.mean())) < 4 / np.sqrt(1200)


def test_a_table_labels_the_strings_of_a_subset_alone():
    table = np.asarray(jax.random.bernoulli(jax.random.key(0), 0.5, (64,)), np.float32)
    order = np.asarray(jax.random.permutation(jax.random.key(1), 64))
    draw = FromTable(6, 500)
    batch = draw(jax.random.key(2), {"table": table, "order": order, "count": np.int32(5)})
    rows = np.asarray(rows_of(batch.inputs))
    assert set(rows) == set(order[:5])
    np.testing.assert_array_equal(batch.labels, table[rows])
    whole = draw(jax.random.key(2), {"table": table})
    assert set(np.asarray(rows_of(whole.inputs))) == set(range(64))


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda points: points, ValueError, r"returned shape \(2, 3\)"),
        (lambda points: None, TypeError, "returned NoneType"),
        (lambda points: points[:, 0] * 1j, TypeError, "returned complex64"),
    ],
)
def test_a_function_that_gives_no_labels_is_told(function, error, message):
    with pytest.raises(error, match=message):
        labels_of(function, jnp.ones((2, 3)))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros(7), r"shape \(7,\); expected .* \(2\^3,\) = \(8,\)"),
        (np.array(list("abcdefgh")), "expected bits or real numbers"),
        (np.full(8, np.nan), "not real and finite"),
    ],
)
def test_a_table_that_is_none_is_told(table, message):
    with pytest.raises(ValueError, match=message):
        checked_table(table, n=3)
