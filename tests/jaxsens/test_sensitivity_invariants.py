"""What must not change the estimate, and what must: properties over random models and inputs."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from jaxsens import (
    Bits,
    Flip,
    Gaussian,
    Patches,
    Positions,
    Replacement,
    Scatter,
    Whole,
    sensitivity,
)

KEY = jax.random.key(0)
N, D, C = 12, 6, 4
seeds = st.integers(0, 2**32 - 1)
gaussian = functools.partial(
    sensitivity, key=KEY, tokens=Bits(), noise=Gaussian(1.0), repeats=2, batch_size=512
)
flip = functools.partial(sensitivity, key=KEY, tokens=Bits(), noise=Flip(), batch_size=512)


def logits(w, order, scale, x):
    """Linear class logits, relabelled and scaled; the products are summed one by one, exactly."""
    return scale * (x[:, :, None] * w[None]).sum(1)[:, order]


def model(w, order=None, scale=1.0):
    order = np.arange(C) if order is None else np.asarray(order)
    return jax.tree_util.Partial(logits, w, order, np.float32(scale))


def drawn(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(D, C)).astype("f4"), rng.normal(size=(N, D)).astype("f4")


@given(seed=seeds, order=st.permutations(range(C)))
def test_relabelling_classes(seed, order):
    w, x = drawn(seed)
    np.testing.assert_array_equal(
        gaussian(model(w), x).rates, gaussian(model(w, order), x).rates
    )  # fmt: skip


@given(seed=seeds, power=st.integers(-20, 20))
def test_scaling_logits(seed, power):
    w, x = drawn(seed)
    scaled = gaussian(model(w, scale=2.0**power), x)
    np.testing.assert_array_equal(gaussian(model(w), x).rates, scaled.rates)


@given(seed=seeds, order=st.permutations(range(N)))
def test_permuting_examples(seed, order):
    """Exactly so for a deterministic noise; random noise belongs to an example's number."""
    w, x = drawn(seed)
    x = np.sign(x)
    est, permuted = flip(model(w), x), flip(model(w), x[order])
    np.testing.assert_array_equal(est.rates[order], permuted.rates)
    assert permuted.value == pytest.approx(est.value, abs=1e-12)
    assert permuted.stderr == pytest.approx(est.stderr, abs=1e-12)


@given(seed=seeds, variance=st.floats(1e-3, 1e3))
def test_per_token_and_per_example_average_to_value(seed, variance):
    w, x = drawn(seed)
    est = gaussian(model(w), x, noise=Gaussian(variance))
    assert est.per_token.shape == (D,)
    assert est.per_example.shape == (N,)
    assert est.per_token.mean() == pytest.approx(est.value, abs=1e-12)
    assert est.per_example.mean() == pytest.approx(est.value, abs=1e-12)
    assert set(np.unique(est.rates)) <= {0.0, 0.5, 1.0}
    assert est.forward_passes == N * (1 + 2 * D)


@given(seed=seeds)
def test_variance_to_zero_gives_zero(seed):
    w, x = drawn(seed)
    assert gaussian(model(w), x, noise=Gaussian(1e-30)).value == 0


@given(seed=seeds, exponents=st.lists(st.integers(-4, 3), min_size=2, max_size=2, unique=True))
def test_the_threshold_moves_as_the_standard_deviation(seed, exponents):
    """Inputs and noise scaled together leave a linear model's flips where they were."""
    w, x = drawn(seed)
    a, b = (2.0**e for e in exponents)
    one = gaussian(model(w), (a * x).astype("f4"), noise=Gaussian(a * a))
    two = gaussian(model(w), (b * x).astype("f4"), noise=Gaussian(b * b))
    np.testing.assert_array_equal(one.rates, two.rates)


def embedded(table, x):
    return table[x].sum((1, 2))


@given(seed=seeds, tokens_per_example=st.sampled_from([None, 1]))
def test_padding_never_counts(seed, tokens_per_example):
    """Token 0 embeds to 0, and so does token 1, written over the padding."""
    rng = np.random.default_rng(seed)
    table = np.concatenate([np.zeros((2, 3)), rng.normal(size=(7, 3))]).astype("f4")
    lengths = rng.integers(1, 6, size=N)
    mask = rng.permuted(np.arange(5) < lengths[:, None], axis=1)
    x = np.where(mask, rng.integers(2, 9, size=(N, 5)), 0)
    measure = functools.partial(
        sensitivity, jax.tree_util.Partial(embedded, table), key=KEY, tokens=Positions(mask),
        noise=Replacement(np.arange(2, 9)), repeats=3, batch_size=64,
        tokens_per_example=tokens_per_example,
    )  # fmt: skip
    est = measure(x)
    assert np.isnan(est.rates[~mask]).all()
    np.testing.assert_array_equal(measure(np.where(mask, x, 1)).rates, est.rates)
    measured = (~np.isnan(est.rates)).sum(1)
    np.testing.assert_array_equal(measured, lengths if tokens_per_example is None else 1)
    assert est.forward_passes == N + 3 * measured.sum()


def weighted(w, x):
    return (x * w[None]).sum((1, 2))


@given(seed=seeds)
def test_a_model_of_the_padding_alone_has_sensitivity_zero(seed):
    rng = np.random.default_rng(seed)
    w, x = rng.normal(size=(5, 2)).astype("f4"), rng.normal(size=(N, 5, 2)).astype("f4")
    w[:3] = 0
    mask = np.tile(np.arange(5) < 3, (N, 1))
    linear = jax.tree_util.Partial(weighted, w)
    measure = functools.partial(
        sensitivity, linear, x, key=KEY, noise=Gaussian(100.0), repeats=2, batch_size=512
    )
    assert measure(tokens=Positions(mask)).value == 0
    assert measure(tokens=Positions(~mask)).value > 0


def counted(threshold, x):
    """Whole numbers, so that no order of summation matters."""
    return (x > threshold).reshape(len(x), -1).astype(jnp.float32).sum(1) - x[0].size // 2


IMAGES = np.random.default_rng(0).normal(size=(9, 4, 4, 1)).astype("f4")
IDS = np.random.default_rng(0).integers(-5, 6, size=(9, 4))
VALID = np.arange(4) < np.random.default_rng(1).integers(1, 5, size=(9, 1))
SETTINGS = {
    "patches": (IMAGES, Patches(2), Gaussian(1.0), {}),
    "sampled": (IMAGES, Patches(2), Gaussian(1.0), {"tokens_per_example": 2}),
    "scatter": (IMAGES, Scatter(2), Gaussian(1.0), {}),
    "whole": (IMAGES, Whole(), Gaussian(1.0), {}),
    "from data": (IMAGES, Patches(2), Replacement.from_data(Patches(2), IMAGES), {}),
    "ids": (IDS, Positions(VALID), Replacement(np.arange(-5, 6)), {}),
    "bits": (np.sign(IDS + 0.5), Bits(), Flip(), {}),
    "target": (IMAGES, Patches(2), Gaussian(1.0), {"target_stderr": 1.0}),
    "uniform": (IMAGES, Patches(2), Gaussian(1.0), {"target_stderr": 1.0, "allocation": "uniform"}),
}


@pytest.mark.parametrize(
    ("setting", "impl"), [*((name, "threefry2x32") for name in SETTINGS), ("patches", "rbg")]
)
def test_the_same_key_gives_the_same_flips_for_any_batch_size(setting, impl):
    x, tokens, noise, options = SETTINGS[setting]
    linear = jax.tree_util.Partial(counted, np.float32(0))
    first, *others = (
        sensitivity(
            linear, x, key=jax.random.key(3, impl=impl), tokens=tokens, noise=noise, repeats=3,
            batch_size=batch_size, **options,
        )
        for batch_size in ((1, 7, 64, None) if setting == "patches" else (7, None))
    )  # fmt: skip
    assert 0 < first.value < 1
    for other in others:
        np.testing.assert_array_equal(other.rates, first.rates)
        assert other.forward_passes == first.forward_passes


def test_another_key_gives_other_flips_and_raw_keys_work():
    x, tokens, noise, _ = SETTINGS["patches"]
    rates = [
        sensitivity(lambda x: counted(0.0, x), x, key=key, tokens=tokens, noise=noise).rates
        for key in (jax.random.key(3), jax.random.PRNGKey(3), jax.random.key(4))
    ]
    np.testing.assert_array_equal(rates[0], rates[1])
    assert (rates[0] != rates[2]).any()


def test_draws_tokens_and_examples_have_noise_of_their_own():
    """All noise of a call, read back from inside the model: no value appears twice."""
    seen = []

    def model(x):
        jax.debug.callback(lambda a: seen.append(np.array(a)), x)
        return x.sum(1)

    sensitivity(model, np.zeros((50, 6), "f4"), key=KEY, tokens=Bits(), noise=Gaussian(4.0))
    jax.effects_barrier()
    rows = np.concatenate(seen)[: 50 * 31].reshape(50, 31, 6)
    assert (rows[:, 0] == 0).all()
    noise = rows[:, 1:].reshape(50, 6, 5, 6)
    assert ((noise != 0) == np.eye(6, dtype=bool)[None, :, None]).all()
    values = noise[noise != 0]
    assert len(np.unique(values)) > 1498  # of 1,500: float32 normals may collide
    assert abs(values.mean()) < 4 * 2 / np.sqrt(1500)
    assert abs(values.var() / 4 - 1) < 4 * np.sqrt(2 / 1500)


@given(seed=seeds, k=st.integers(1, D))
def test_sampled_tokens_are_some_of_the_tokens(seed, k):
    """With a deterministic noise each sampled rate is the exact one; the number is k."""
    w, x = drawn(seed)
    x = np.sign(x)
    exact = flip(model(w), x).rates
    est = flip(model(w), x, tokens_per_example=k, key=jax.random.key(seed))
    taken = ~np.isnan(est.rates)
    assert (taken.sum(1) == k).all()
    np.testing.assert_array_equal(est.rates[taken], exact[taken])
    assert est.forward_passes == N * (1 + k)


def test_sampled_tokens_are_uniform_and_unbiased():
    w, x = drawn(0)
    x = np.sign(np.random.default_rng(0).normal(size=(20_000, D)))
    exact = flip(model(w), x, batch_size=8192)
    est = flip(model(w), x, tokens_per_example=2, batch_size=8192)
    shares = (~np.isnan(est.rates)).mean(0)
    assert abs(shares - 2 / D).max() < 4.5 * np.sqrt(2 / D * (1 - 2 / D) / 20_000)
    assert abs(est.value - exact.value) < 3 * np.sqrt(est.stderr**2 - exact.stderr**2)


def test_target_measures_a_random_part_with_the_same_noise():
    w, _ = drawn(0)
    x = np.random.default_rng(0).normal(size=(3000, D)).astype("f4")
    measure = functools.partial(gaussian, allocation="uniform")
    everything = gaussian(model(w), x)
    est = measure(model(w), x, target_stderr=0.01)
    measured = ~np.isnan(est.per_example)
    assert 100 <= measured.sum() == est.examples < 3000
    np.testing.assert_array_equal(est.rates[measured], everything.rates[measured])
    assert est.stderr <= 0.01
    assert est.forward_passes == est.examples * (1 + 2 * D)
    # Not the first examples but random ones: the mean index is that of a random sample.
    z = (np.flatnonzero(measured).mean() - 1499.5) / (3000 / np.sqrt(12 * est.examples))
    assert abs(z) < 4
    assert measured[: est.examples].sum() < est.examples
    with pytest.warns(UserWarning, match=r"^target_stderr=0\.001 was not reached with all 3000"):
        short = measure(model(w), x, target_stderr=0.001)
    np.testing.assert_array_equal(short.rates, everything.rates)
