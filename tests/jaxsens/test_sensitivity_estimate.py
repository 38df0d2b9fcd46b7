"""SensitivityEstimate: means, standard errors and intervals against slow, obvious NumPy."""

import statistics
import warnings

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
    for flips, n in ((3, 150), (300, 1000), (997, 1000)):
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
    # Four more examples that might flip at every token or at none: 2 % at 3,000 examples.
    p, variance = est.value, est.stderr**2
    unseen = 4 * (p * (1 - p) - 3000 * variance) / (3000 * 3004)
    half = 1.96 * np.sqrt(variance + unseen)
    np.testing.assert_allclose(est.interval(), (p - half, p + half), rtol=1e-3)
    assert est.half_width() == pytest.approx(half, rel=2e-3)
    assert half == pytest.approx(1.96 * est.stderr, rel=0.03)


RATES = {
    "lognormal": lambda rng, n: np.minimum(0.02 * np.exp(rng.normal(size=n)), 1),
    "wide lognormal": lambda rng, n: np.minimum(0.02 * np.exp(1.5 * rng.normal(size=n)), 1),
    "beta": lambda rng, n: rng.beta(0.2, 6, size=n),
    "one in five": lambda rng, n: (rng.random(n) < 0.2).astype(float),
    "one in twenty often": lambda rng, n: np.where(rng.random(n) < 0.05, 0.9, 0.02),
}


@pytest.mark.parametrize("kind", RATES)
def test_intervals_of_few_examples_cover(kind):
    """600 repetitions, known to 1 %. Where nothing shows the rare kind, a warning says so."""
    draw, rng = RATES[kind], np.random.default_rng(0)
    truth = draw(np.random.default_rng(1), 2_000_000).mean()
    for n in (10, 30, 100):
        covered = []
        for _ in range(600):
            flips = rng.binomial(80, draw(rng, n))
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                low, high = SensitivityEstimate(flips[:, None] / 80, 0).interval()
            covered.append(low <= truth <= high)
            assert len(said) == (n < 100)
        # Most samples of 30 hold none or one of the 5 % that flip often.
        least = 0.7 if (kind, n) == ("one in twenty often", 30) else 0.92
        assert np.mean(covered) >= least


def weighted(seed=0):
    """Two strata of 60 and 240 examples, all of the first and a sixth of the second measured."""
    rng = np.random.default_rng(seed)
    rates = rng.binomial(3, np.where(np.arange(300) < 60, 0.4, 0.05)[:, None], (300, 4)) / 3
    rates[100:] = np.nan
    strata = (np.arange(300) >= 60).astype(int)
    weights = np.where(np.arange(300) < 60, 1 / 300, 240 / 300 / 40)
    weights[100:] = 0
    return SensitivityEstimate(rates, 9, weights=weights, strata=strata)


def test_strata_against_loops():
    est = weighted()
    y = est.per_example
    first, second = y[:60], y[60:100]
    value = 0.2 * first.mean() + 0.8 * second.mean()
    assert est.value == pytest.approx(value)
    variance = 0.2**2 * first.var(ddof=1) / 60 + 0.8**2 * second.var(ddof=1) / 40
    between = 0.2 * (first.mean() - value) ** 2 + 0.8 * (second.mean() - value) ** 2
    assert est.stderr == pytest.approx(np.sqrt(variance + between / 300))
    by_token = 0.2 * est.rates[:60].mean(0) + 0.8 * est.rates[60:100].mean(0)
    np.testing.assert_allclose(est.per_token, by_token)
    assert est.per_token.mean() == pytest.approx(est.value)
    assert (est.per_token_stderr > est.stderr).all()
    assert np.isnan(y[100:]).all()
    low, high = est.interval()
    assert low < est.value < high


def test_weighted_standard_error_against_monte_carlo():
    found = [weighted(seed) for seed in range(300)]
    values = np.array([est.value for est in found])
    assert abs(values.mean() - 0.12) < 4 * values.std() / np.sqrt(300)
    # The strata's sizes are fixed here, so that the part between them is not in the values.
    within = np.sqrt(0.2**2 * 0.4 * 0.6 / 12 / 60 + 0.8**2 * 0.05 * 0.95 / 12 / 40)
    assert values.std() == pytest.approx(within, rel=0.15)
    assert np.mean([est.stderr for est in found]) == pytest.approx(
        np.hypot(within, np.sqrt(0.2 * 0.8 * 0.35**2 / 300)), rel=0.05
    )


def test_sampled_tokens_stand_for_all_of_their_example():
    """One token of each example measured: long examples must count at each token all the same."""
    real = np.where(np.arange(4000) % 2, 2, 8)
    rng = np.random.default_rng(0)
    token = rng.integers(real)
    rates = np.full((4000, 8), np.nan)
    # Short examples always flip, long ones never.
    rates[np.arange(4000), token] = (real == 2).astype(float)
    est = SensitivityEstimate(rates, 0, real=real)
    np.testing.assert_allclose(est.per_token[:2], 0.5, atol=0.1)
    assert (est.per_token[2:] == 0).all()
    assert abs(est.per_token[0] - 0.5) < 4 * est.per_token_stderr[0]


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

    Measured with 500: mean of stderr^2 over the variance of the values 1.02 and 0.94 (1 and 3
    draws); by examples alone 0.07 and 0.08.
    """
    w = np.zeros((6, 6, 1), np.float32)
    w[:2, :2] = 1.0
    model, rng = jax.tree_util.Partial(linear, w), np.random.default_rng(0)
    values, squares, naive = [], [], []
    for seed in range(200):
        x = rng.normal(size=(60, 6, 6, 1)).astype(np.float32)
        est = sensitivity(
            model, x, key=jax.random.key(seed), tokens=Scatter(2), noise=Gaussian(9.0),
            repeats=repeats, batch_size=3000,
        )  # fmt: skip
        values.append(est.value)
        squares.append(est.stderr**2)
        naive.append(SensitivityEstimate(est.rates, 0).stderr ** 2)
    variance = np.var(values, ddof=1)  # known to 1 / sqrt(100) = 10 %
    assert abs(np.mean(squares) / variance - 1) < 0.25
    assert np.mean(naive) < 0.7 * variance  # examples alone would claim too much
