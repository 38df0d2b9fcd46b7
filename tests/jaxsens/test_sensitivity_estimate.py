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
    assert "forward_passes=123" in repr(est)


def wilson(successes, trials, z):
    """The two shares p at which |successes / trials - p| is z sqrt(p (1 - p) / trials)."""
    s = successes / trials
    return np.sort(np.roots([1 + z**2 / trials, -2 * s - z**2 / trials, s**2]).real)


def test_interval_of_independent_trials_is_wilsons():
    """One token, one draw: n Bernoulli trials. Few flips widen z to Student's t."""
    for flips, n in ((3, 50), (300, 1000), (997, 1000)):
        rates = (np.arange(n) < flips).astype(float)[:, None]
        est = SensitivityEstimate(rates, 0)
        events = min(flips, n - flips)
        assert est.events == pytest.approx(events)
        # stderr has n - 1 where a binomial variance has n.
        for level, z in ((0.95, 1.959964), (0.8, 1.281552)):
            expected = wilson(flips / n * (n - 1), n - 1, z * (1 + (z**2 + 1) / (4 * events)))
            np.testing.assert_allclose(est.interval(level), np.clip(expected, 0, 1), rtol=1e-5)
    t_of_10 = 2.228139
    assert pytest.approx(t_of_10, rel=0.02) == 1.959964 * (1 + (1.959964**2 + 1) / 40)


def test_interval_of_many_flips_is_two_standard_errors():
    rng = np.random.default_rng(0)
    est = SensitivityEstimate(rng.binomial(5, 0.3, size=(3000, 7)) / 5, 0)
    expected = est.value - 1.96 * est.stderr, est.value + 1.96 * est.stderr
    np.testing.assert_allclose(est.interval(), expected, rtol=1e-3)
    assert est.half_width() == pytest.approx(1.96 * est.stderr, rel=2e-3)


def test_events_count_equal_flips():
    rates = np.zeros((100, 4))
    rates[:9, 0] = 1
    assert SensitivityEstimate(rates, 0).events == pytest.approx(9)
    assert SensitivityEstimate(1 - rates, 0).events == pytest.approx(9)
    assert SensitivityEstimate(rates, 0, shared=True).events == 4
    rates[0] = 1
    assert SensitivityEstimate(rates, 0).events == pytest.approx(12**2 / (8 + 16))


def test_one_example_has_no_standard_error():
    est = SensitivityEstimate(np.array([[0.0, 1.0]]), 3)
    assert est.value == 0.5
    assert np.isnan(est.stderr)
    assert np.isnan(est.per_token_stderr).all()
    assert np.isnan(est.half_width())


@pytest.mark.parametrize("base", [np.zeros(7), np.ones(7), np.arange(7) / 10, np.eye(7)[0]])
def test_equal_rates_still_have_an_interval(base):
    """Also where the equal means differ by rounding: as of N trials, and never of width zero."""
    rates = np.array([np.roll(base, i) for i in range(100)])
    est = SensitivityEstimate(rates, 0)
    assert est.stderr == 0
    trials = 100 + 1.96**2
    assert est.half_width() >= 1.96**2 / 2 / trials * 0.999
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
