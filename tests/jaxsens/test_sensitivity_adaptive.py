"""The adaptive allocation on tables of known flip probabilities, without a model."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxsens import Bits, Flip, Gaussian, Scatter, SensitivityEstimate, sensitivity
from jaxsens._adaptive import FOLDS, Allocation, Oracle, allocate
from jaxsens._neyman import decreasing, design, falling
from jaxsens._plan import rates
from jaxsens._statistics import clustered_variance

KEY = jax.random.key(0)
phi = np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)), otypes=[float])


@dataclasses.dataclass(frozen=True)
class Population:
    """Flip probabilities p(x, t) = Phi(-margin / gain) of 6,000 examples and 16 tokens."""

    p: np.ndarray
    margin: np.ndarray

    @classmethod
    def draw(cls, scale, spread):
        """Gains vary between cells, tokens and examples, as they do in trained networks."""
        rng = np.random.default_rng(0)
        margin = scale * rng.gamma(1.0, size=6000)
        gain = spread * rng.normal(size=(6000, 16)) + 0.3 * rng.normal(size=16)[None]
        gain = np.exp(gain + 0.2 * rng.normal(size=(6000, 1)))
        return cls(phi(-margin[:, None] / gain), margin)

    @property
    def value(self):
        return self.p.mean()

    @property
    def exact_cost(self):
        """Variance times passes of the paper's protocol, all 16 tokens x 5 draws."""
        within = (self.p * (1 - self.p)).mean() / (16 * 5)
        return (self.p.mean(1).var() + within) * 81

    def measure(self, seed, n, **options):
        """An adaptive estimate from n random members, as one of a model would be."""
        rng = np.random.default_rng(seed)
        members = rng.integers(len(self.p), size=n)
        p, margin = self.p[members], self.margin[members]
        oracle = Oracle(
            lambda examples: margin[examples],
            lambda examples, draws, first: rng.binomial(draws, p[examples])[None],
            np.ones(p.shape, bool),
            5,
        )

        def estimate(found):
            return SensitivityEstimate(
                rates(found.flips[0], found.draws), found.passes, False, found.weights,
                found.strata,
            )  # fmt: skip

        error = lambda found: estimate(found).half_width() / 1.96  # noqa: E731
        return estimate(allocate(oracle, rng, error=error, **options))


def check(population, repetitions, n, target, gain, coverage, too_large=0.05):
    """Unbiased, errors as large as they say, intervals that cover, and fewer passes."""
    found = [population.measure(seed, n, target=target) for seed in range(repetitions)]
    values, stderrs, passes = (
        np.array([getattr(est, name) for est in found])
        for name in ("value", "stderr", "forward_passes")
    )
    intervals = np.array([est.interval() for est in found])
    covered = (intervals[:, 0] <= population.value) & (population.value <= intervals[:, 1])
    fewer = population.exact_cost / (values.var() * passes.mean())
    print(
        f"S {population.value:.4f}, target {target}: bias {values.mean() - population.value:.1e} ± "
        f"{values.std() / math.sqrt(repetitions):.1e}, stderr {stderrs.mean():.2e} for "
        f"{values.std():.2e}, passes {passes.mean():.0f}, {fewer:.1f} times fewer, "
        f"covered {covered.mean():.3f}"
    )
    error = values.std() / math.sqrt(repetitions)
    assert abs(values.mean() - population.value) < 2.6 * error
    assert (stderrs <= target).all()
    spread = 1 / math.sqrt(2 * repetitions)
    assert -0.05 - 3 * spread < stderrs.mean() / values.std() - 1 < too_large + 3 * spread
    assert fewer > gain * (1 - 3 * math.sqrt(2 / repetitions))
    assert coverage[0] <= covered.mean() <= coverage[1]


FREQUENT = Population.draw(16.0, 0.7)
RARE = Population.draw(110.0, 0.7)


def test_on_a_table_in_a_second():
    check(FREQUENT, 30, 3000, 0.004, 10, (0.85, 1.0))


@pytest.mark.slow
def test_flips_that_are_frequent():
    """S = 0.03, at a fifteenth of it. Measured: 17.0 times fewer, covered 0.948, no bias."""
    check(FREQUENT, 1000, 6000, 0.002, 10, (0.93, 0.97))


@pytest.mark.slow
def test_flips_that_are_rare():
    """S = 0.005, at a fifth of it. Measured: 23.3 times fewer, covered 0.940, no bias."""
    check(RARE, 1000, 6000, 0.001, 20, (0.93, 0.99))


@pytest.mark.slow
def test_a_target_that_few_examples_meet():
    """Measured: 15.0 times fewer, covered 0.956."""
    check(FREQUENT, 1000, 1500, 0.008, 8, (0.93, 0.97))


def test_a_budget_is_kept_and_spent():
    for budget in (1500, 6000):
        passes = [FREQUENT.measure(seed, 6000, passes=budget).forward_passes for seed in range(5)]
        assert 0.85 * budget <= np.mean(passes) <= 1.15 * budget


def test_folds_are_decided_by_the_others_alone():
    """Other flips and margins of a fold change what is decided for the others, and not for it."""
    oracle = Oracle(
        lambda examples: examples % 97 + 1.0,
        lambda examples, draws, first: (draws > 1).astype(int)[None],
        np.ones((500, 8), bool),
        5,
    )
    state = Allocation(oracle, np.random.default_rng(0))
    state.look(state.order)
    state.draw(np.full(500, 9))
    before = [state.known(fold) for fold in range(FOLDS)]
    mine = state.fold == 1
    state.flipped[:, mine] += 3
    state.strata[mine] = 0
    after = [state.known(fold) for fold in range(FOLDS)]
    for one, other in zip(before[1], after[1], strict=True):
        np.testing.assert_array_equal(one, other)
    for fold in (0, 2):
        assert all((a != b).any() for a, b in zip(before[fold][:2], after[fold][:2], strict=True))


def test_pool_adjacent_violators():
    np.testing.assert_allclose(
        decreasing(np.array([3.0, 1.0, 2.0, 2.0, 0.0]), np.array([1.0, 1.0, 2.0, 1.0, 1.0])),
        [3.0, 1.75, 1.75, 1.75, 0.0],
    )


def test_the_curve_of_exponential_rates():
    place, draws = np.arange(7.0), np.full(7, 1e6)
    rate = 0.3 * np.exp(-0.8 * place)
    np.testing.assert_allclose(falling(place, draws * rate, draws), rate, rtol=1e-3)
    assert (falling(place, np.zeros(7), draws) < 1e-5).all()
    flat = falling(place, draws * np.arange(1, 8) / 100, draws)  # never rising
    np.testing.assert_allclose(flat, 0.04, rtol=1e-3)


def test_the_design_is_the_cheapest_of_a_fine_grid():
    """Two strata, bits for both from a grid: variance x cost, without bounds, cannot be less."""
    shares, mu = np.array([0.2, 0.8]), np.array([[0.3, 0.01]])
    vb = 0.1 * mu * (1 - mu)
    vw = mu * (1 - mu) - vb

    def product(bits):
        each = np.where(bits >= 1, vb + vw / np.maximum(bits, 1), (vb + vw) / np.minimum(bits, 1))
        outer = (shares * (mu - (shares * mu).sum()) ** 2).sum()
        return (outer + (shares * each).sum()) * (1 + shares @ bits)

    # A target so far off that one flip never counts for much.
    found = design(shares, mu, vb, vw, target=1e-4, most_bits=80, most_examples=10**9)
    grid = np.linspace(0.02, 12, 600)
    best = min(product(np.array([a, b])) for a in grid[::4] for b in grid[:150])
    assert product(found.bits) <= 1.02 * best
    few = design(shares, mu, vb, vw, target=0.004, most_bits=80, most_examples=2000)
    assert 1900 <= few.examples <= 2000
    assert few.bits.sum() > found.bits.sum()
    spent = design(shares, mu, vb, vw, passes=5000, most_bits=80, most_examples=10**9)
    assert spent.examples * (1 + shares @ spent.bits) == pytest.approx(5000)


W = np.array([1, 0.5, 2, 1, 0.3, 0, 1, 1.5], np.float32)
MODEL = Partial(lambda w, x: x @ w, W)
X = np.random.default_rng(0).normal(size=(3000, 8)).astype("f4")


def test_of_a_model():
    """The closed form of a linear threshold model, and draws that are the exact protocol's."""
    options = {"key": KEY, "tokens": Bits(), "noise": Gaussian(0.25), "repeats": 2}
    est = sensitivity(MODEL, X, target_stderr=0.006, **options)
    exact = np.mean(np.arctan(0.5 * np.abs(W) / np.linalg.norm(W)) / np.pi)
    assert est.stderr <= 0.006
    assert abs(est.value - exact) < 3.5 * est.stderr
    everything = sensitivity(MODEL, X, batch_size=4096, **options)
    assert est.forward_passes < everything.forward_passes / 4
    measured = ~np.isnan(est.rates)
    # Where both draws of a token were taken, they are those of the exact protocol.
    assert (abs(est.rates - everything.rates)[measured] <= 0.5).all()
    np.testing.assert_allclose(
        est.per_token[measured.sum(0) > 100],
        everything.per_token[measured.sum(0) > 100],
        atol=6 * est.per_token_stderr.max(),
    )
    again = sensitivity(MODEL, X, target_stderr=0.006, **options)
    np.testing.assert_array_equal(est.rates, again.rates)
    assert 0 < est.per_token[5] < 1e-9 or est.per_token[5] == 0  # a token that is not read


def test_a_target_out_of_reach_measures_everything_once():
    x = np.sign(X[:300])
    options = {"key": KEY, "tokens": Bits(), "noise": Flip()}
    with pytest.warns(UserWarning, match=r"^target_stderr=0\.0001 was not reached with all 300"):
        est = sensitivity(MODEL, x, target_stderr=1e-4, **options)
    exact = sensitivity(MODEL, x, **options)
    np.testing.assert_array_equal(est.rates, exact.rates)
    assert est.value == pytest.approx(exact.value, rel=0.2)
    assert est.forward_passes == exact.forward_passes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allocation": "best"}, "allocation must be 'uniform' or 'adaptive', got 'best'"),
        ({"allocation": "adaptive"}, "needs either target_stderr or passes, got neither"),
        ({"passes": 100, "target_stderr": 0.1}, "got both"),
        ({"passes": 100, "tokens_per_example": 1}, "tokens_per_example"),
        ({"passes": 100, "allocation": "uniform"}, "not for 'uniform'"),
        ({"passes": 0}, "passes must be at least 1"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        sensitivity(MODEL, X, key=KEY, tokens=Bits(), noise=Gaussian(1.0), **options)


def test_shared_tokens_are_refused_by_name_and_measured_uniformly_otherwise():
    x = X[:200].reshape(200, 4, 2, 1)
    model = Partial(lambda w, x: jnp.tensordot(x, w, 3), W.reshape(4, 2, 1))
    options = {"key": KEY, "tokens": Scatter(2), "noise": Gaussian(1.0), "target_stderr": 0.2}
    with pytest.raises(ValueError, match="all examples share"):
        sensitivity(model, x, allocation="adaptive", **options)
    assert sensitivity(model, x, **options).weights is None


def test_joined_strata_of_unequal_weights():
    """The squares are weighted: spread as if all weights were equal was three times too large."""
    rng = np.random.default_rng(0)
    rates, counts = np.array([0.3, 0.02]), np.array([80, 20])  # the second joins the first
    strata = np.repeat([0, 1], counts)
    weights = np.repeat(0.5 / counts, counts)
    draws = (rng.random((2000, 100)) < rates[strata]).astype(float)
    told = [clustered_variance(values, weights, strata, 10**9) for values in draws]
    # About the mean of both, the rates' own difference counts too: it errs upwards.
    each = 0.5 * ((rates - rates.mean()) ** 2 + rates * (1 - rates)) / (2 * counts)
    np.testing.assert_allclose(np.mean(told), each.sum(), rtol=0.03)
    assert (draws @ weights).var() < np.mean(told) < 1.6 * (draws @ weights).var()
