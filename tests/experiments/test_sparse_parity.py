"""Sparse parity from the command to the record; the exact sensitivity beside the sampled one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import sparse_parity
from experiments.reports import sparse_parity as sparse_parity_report
from experiments.run.measure import measured
from experiments.run.record import RunRecord


def test_a_run_learns_and_its_sample_agrees_with_the_whole_cube(finished):
    record = RunRecord(finished("sparse_parity"))
    finals = record.read("result.json")["final"]
    assert [line["seed"] for line in finals] == [0, 1]
    assert max(line["test_accuracy"] for line in finals) == 1.0
    for line in finals:
        assert abs(line["sensitivity"] - line["sensitivity_exact"]) <= 4 * max(
            line["sensitivity_stderr"], 1e-9
        )
        if line["test_accuracy"] == 1.0:
            assert line["sensitivity_exact"] == 2 / 6
            assert line["fourier_weight_exact"] == line["fourier_weight"] == 1.0
        assert line["blowup"] > 0
        assert line["norm"] > 0
        assert line["sharpness_stderr"] > 0
    assert "exact" in sparse_parity_report.summary(record)


def test_the_parity_itself_measures_p_over_d_and_weight_one():
    points = np.asarray(jax.random.rademacher(jax.random.key(0), (64, 40)), np.float32)
    places = (3, 8, 20, 39)
    mask = jnp.isin(jnp.arange(40), jnp.array(places))
    compute = jax.tree_util.Partial(lambda mask, x: jnp.where(mask[None], x, 1.0).prod(1), mask)
    found = measured(
        sparse_parity.measures(points, places, tokens=None), compute, jax.random.key(1)
    )
    assert found["sensitivity"] == pytest.approx(0.1, rel=1e-15)
    assert found["fourier_weight"] == 1.0
