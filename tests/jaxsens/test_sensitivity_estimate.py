"""SensitivityEstimate: means, standard errors and intervals against slow, obvious NumPy."""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import (
    Bits,
    Flip,
    Gaussian,
    Scatter,
    SensitivityEstimate,
    sensitivity,
)

KEY = jax.random.key(0)


def ragged(seed=0, n=40, t=7):
    rng = np.random.default_rng(seed)
    rates = rng.integers(0, 6, (n, t)) / 5
    rates[rng.random((n, t)) < 0.4] = np.nan
    rates[np.arange(n), rng.integers(0, t, n)] = 0.2
    rates[3] = np.nan  # never measured
    return rates


def test_against_loops():
    rates = ragged()
    est = SensitivityEstimate(rates, 123)
    per_example = [[r for r in row if not np.isnan(r)] for row in rates]
    means = [statistics.mean(row) if row else float("nan") for row in per_example]
    np.testing.assert_allclose(est.per_example, means, atol=1e-12)
    measured = [m for m in means if not np.isnan(m)]
    assert est.examples == len(measured) == 39
    assert est.value == pytest.approx(statistics.mean(measured))
    assert est.stderr == pytest.approx(statistics.stdev(measured) / 39**0.5)
    columns = [[r for r in column if not np.isnan(r)] for column in rates.T]
    np.testing.assert_allclose(est.per_token, list(map(statistics.mean, columns)))
    np.testing.assert_allclose(
        est.per_token_stderr, [statistics.stdev(c) / len(c) ** 0.5 for c in columns]
    )
    low, high = est.interval(0.9)
    assert (low + high) / 2 == pytest.approx(est.value)
    assert (high - low) / 2 == pytest.approx(1.6448536 * est.stderr)
    assert "forward_passes=123" in repr(est)


def test_one_example_has_no_standard_error():
    est = SensitivityEstimate(np.array([[0.0, 1.0]]), 3)
    assert est.value == 0.5
    assert np.isnan(est.stderr)
    assert np.isnan(est.per_token_stderr).all()


@pytest.mark.parametrize("base", [np.zeros(7), np.ones(7), np.arange(7) / 10, np.eye(7)[0]])
def test_equal_rates_still_have_an_interval(base):
    """Also where the equal means differ by rounding: about 3 / N, and never of width zero."""
    rates = np.array([np.roll(base, i) for i in range(100)])
    est = SensitivityEstimate(rates, 0)
    assert est.stderr == 0
    assert est.half_width() == pytest.approx(1 - 0.05 ** (1 / 100))
    low, high = est.interval()
    assert 0 <= low < high <= 1


@pytest.mark.parametrize("level", [0, 1, -0.5, 95, float("nan")])
def test_level_out_of_range(level):
    with pytest.raises(ValueError, match=r"^level must lie between 0 and 1, got .*$"):
        SensitivityEstimate(np.zeros((3, 2)), 9).interval(level)


def test_a_ragged_set_of_clusters_is_not_a_set_of_cells():
    """Duplicated tokens carry no information: stderr must not shrink, as it would over cells."""
    x = np.random.default_rng(0).choice([-1, 1], size=(64, 4))
    one = sensitivity(lambda x: x.sum(1) + 0.5, x, key=KEY, tokens=Bits(), noise=Flip())
    doubled = SensitivityEstimate(np.tile(one.rates, (1, 10)), 0)
    assert doubled.stderr == pytest.approx(one.stderr)


def linear(w, x):
    return jnp.tensordot(x, w, axes=w.ndim)


@pytest.mark.parametrize("repeats", [1, 3])
def test_scatter_standard_error_against_monte_carlo(repeats):
    """Few pixels matter, so the shared choice of pixels is a large part of the variance.

    Measured: mean of stderr^2 over the variance of the values 1.02 and 0.94 (1 and 3 draws);
    by examples alone 0.07 and 0.08.
    """
    w = np.zeros((6, 6, 1), np.float32)
    w[:2, :2] = 1.0
    model, rng = jax.tree_util.Partial(linear, w), np.random.default_rng(0)
    values, squares, naive = [], [], []
    for seed in range(500):
        x = rng.normal(size=(60, 6, 6, 1)).astype(np.float32)
        est = sensitivity(
            model, x, key=jax.random.key(seed), tokens=Scatter(2), noise=Gaussian(9.0),
            repeats=repeats, batch_size=3000,
        )  # fmt: skip
        values.append(est.value)
        squares.append(est.stderr**2)
        naive.append(SensitivityEstimate(est.rates, 0).stderr ** 2)
    variance = np.var(values, ddof=1)  # known to 1 / sqrt(250) = 6 %
    assert abs(np.mean(squares) / variance - 1) < 0.25
    assert np.mean(naive) < 0.7 * variance  # examples alone would claim too much
