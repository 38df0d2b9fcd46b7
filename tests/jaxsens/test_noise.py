"""Noise classes: their distributions, and what they refuse."""

import math
import statistics

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from jaxsens import Flip, Gaussian, Patches, Positions, Replacement
from jaxsens.noise import _erf_inv, _mixed

KEYS = jax.random.split(jax.random.key(0), 20_000)


def draws(noise, token, keys=KEYS):
    return np.asarray(jax.jit(jax.vmap(lambda key: noise(token, key=key)))(keys))


@pytest.mark.parametrize("variance", [0.01, 1.0, 15.0])
def test_gaussian_is_normal_with_that_variance(variance):
    """Mean, variance and the whole distribution (Kolmogorov-Smirnov at 1e-6)."""
    token = jnp.array([3.0, -1.0])
    noise = draws(Gaussian(variance), token) - np.asarray(token)
    n, sigma = len(noise), math.sqrt(variance)
    assert abs(noise.mean(0)).max() < 4.5 * sigma / math.sqrt(n)
    assert abs(noise.var(0) / variance - 1).max() < 4.5 * math.sqrt(2 / n)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 4.5 / math.sqrt(n)
    ordered = np.sort(noise[:, 0])
    cdf = np.vectorize(statistics.NormalDist(0, sigma).cdf)(ordered)
    assert abs(cdf - (np.arange(n) + 0.5) / n).max() < 2.7 / math.sqrt(n)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", None])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (4, 3)])
def test_gaussian_in_every_shape_and_from_every_kind_of_key(impl, shape):
    """Numbers of one token are distinct, independent, and moments are right to the fourth."""
    key = jax.random.PRNGKey(1) if impl is None else jax.random.key(1, impl=impl)
    size = math.prod(shape)
    noise = draws(Gaussian(1.0), jnp.zeros(shape), jax.random.split(key, 4000)).reshape(-1, size)
    assert len(np.unique(noise)) > 0.99 * noise.size  # 23 bits collide
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((noise**power).mean() - moment) < 4.5 * math.sqrt(spread / noise.size)
    if size > 1:
        off = np.corrcoef(noise.T)[~np.eye(size, dtype=bool)]
        assert abs(off).max() < 5 / math.sqrt(4000)
        squares = np.corrcoef((noise**2).T)[~np.eye(size, dtype=bool)]
        assert abs(squares).max() < 5.5 / math.sqrt(4000)


def test_inverse_error_function():
    x = np.linspace(-1 + 2**-24, 1 - 2**-24, 100_001).astype("f4")
    x = x[abs(x) < 1]
    np.testing.assert_allclose(_erf_inv(x), jax.lax.erf_inv(x), rtol=1e-5, atol=1e-7)


def test_bits_of_neighbouring_counters_and_keys_are_independent():
    """Bit by bit: of one key's numbers, and of keys that differ in one bit."""
    n = 2**14
    words = np.asarray(_mixed(_mixed(np.arange(n, dtype="u4") * np.uint32(0x9E3779B9) + 7) ^ 9))
    others = [np.asarray(_mixed(_mixed(np.arange(n, dtype="u4") * np.uint32(0x9E3779B9) + a) ^ b))
              for a, b in ((6, 9), (7, 8), (7 + 2**31, 9), (7, 9 + 2**31))]  # fmt: skip
    for other in (np.roll(words, 1), np.roll(words, 25), *others):
        differs = (words ^ other)[:, None] >> np.arange(32, dtype="u4") & 1
        assert abs(differs.mean(0) - 0.5).max() < 4.5 * 0.5 / math.sqrt(n)
        assert abs(differs.sum(1).mean() - 16) < 4.5 * math.sqrt(8 / n)
        assert differs.sum(1).var() == pytest.approx(8, rel=4.5 * math.sqrt(2 / n))


def test_gaussian_tails():
    noise = draws(Gaussian(1.0), jnp.zeros(400), KEYS[:5000]).ravel()
    assert np.isfinite(noise).all()
    for z in (2.0, 3.0, 4.0):
        tail = math.erfc(z / math.sqrt(2))
        assert abs((abs(noise) > z).mean() - tail) < 4.5 * math.sqrt(tail / noise.size)


def test_a_small_variance_survives_half_precision():
    noise = draws(Gaussian(1e-8), jnp.zeros(1, jnp.float16), KEYS[:500])
    assert noise.dtype == np.float16
    assert noise.astype(float).std() == pytest.approx(1e-4, rel=0.2)


def test_replacement_is_uniform_and_may_be_the_token_itself():
    got = draws(Replacement(np.arange(5)), jnp.int32(2))
    share = np.bincount(got, minlength=5) / len(got)
    assert abs(share - 0.2).max() < 4.5 * math.sqrt(0.2 * 0.8 / len(got))
    assert got.dtype == np.int32


def test_replacement_from_data_draws_every_real_token():
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype("f4")
    noise = Replacement.from_data(Patches(2), images)
    got = draws(noise, jnp.zeros((2, 2, 1)), KEYS[:2000])
    rows = {tuple(p) for p in Patches(2).read(images).reshape(12, 4)}
    assert {tuple(p) for p in got.reshape(-1, 4)} == rows
    ids = Replacement.from_data(Positions([[1, 1, 0], [1, 0, 0]]), [[7, 8, 0], [9, 0, 0]])
    np.testing.assert_array_equal(ids.vocabulary, [7, 8, 9])


@given(pair=st.tuples(st.integers(-50, 50), st.integers(-50, 50)).filter(lambda p: p[0] != p[1]))
def test_flip_exchanges_the_two_values(pair):
    noise = Flip(pair)
    token = jnp.array(pair, jnp.int32)
    np.testing.assert_array_equal(noise(token, key=KEYS[0]), pair[::-1])
    np.testing.assert_array_equal(noise(noise(token, key=KEYS[0]), key=KEYS[1]), pair)


def test_flip_of_booleans_and_bytes():
    for dtype in (bool, np.uint8, np.float32, jnp.bfloat16):
        token = jnp.array([0, 1, 1], dtype)
        Flip((0, 1)).check(np.asarray(token))
        flipped = Flip((0, 1))(token, key=KEYS[0])
        assert flipped.dtype == dtype
        np.testing.assert_array_equal(flipped.astype(int), [1, 0, 0])


def test_settings_that_are_lists_still_hash():
    assert Flip([0, 1]) == Flip((0, 1))
    assert hash(Flip([0, 1])) == hash(Flip((0, 1)))


def test_variance_is_traced_and_values_are_not():
    assert jax.tree.leaves(Gaussian(2.0)) == [2.0]
    assert jax.tree.structure(Gaussian(2.0)) == jax.tree.structure(Gaussian(3.0))
    assert jax.tree.structure(Flip()) != jax.tree.structure(Flip((0, 1)))
