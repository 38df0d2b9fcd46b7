"""Progress measures against networks built by hand and slow projections."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxsens import boolean
from jaxsens.measures import fourier as progress

P = 11


def pairs(p):
    return np.array(list(itertools.product(range(p), repeat=2)))


def cosine_logits(p, frequencies, amplitude=1.0):
    """sum_k cos(w_k (a + b - c)), the network of Nanda et al., written as its formula."""
    a, b = pairs(p).T
    c = np.arange(p)[None]
    return amplitude * sum(np.cos(2 * np.pi * k * ((a + b)[:, None] - c) / p) for k in frequencies)


def slow_component(logits, p, k):
    """Orthogonal projection of each logit on cos and sin of w_k (a + b), by inner products."""
    angle = 2 * np.pi * k * pairs(p).sum(1) / p
    found = np.zeros_like(logits)
    for wave in (np.cos(angle), np.sin(angle)):
        found += wave[:, None] * (wave @ logits)[None] / (wave @ wave)
    return found


def slow_loss(logits, labels):
    return np.mean(
        [-row[y] + np.log(np.sum(np.exp(row))) for row, y in zip(logits, labels, strict=True)]
    )


def test_hand_built_network_has_its_frequencies_and_no_other():
    power = progress.frequency_power(cosine_logits(P, [2, 5]))
    expected = np.zeros(5)
    expected[[1, 4]] = P / 2  # a cosine has mean square 1/2, and there are P logits
    np.testing.assert_allclose(power, expected, atol=1e-12)
    assert progress.key_frequencies(cosine_logits(P, [2, 5])) == (2, 5)


def test_hand_built_network_restricted_and_excluded_loss():
    logits = cosine_logits(P, [2, 5], amplitude=20.0)
    labels = pairs(P).sum(1) % P
    assert progress.restricted_loss(logits, (2, 5)) == pytest.approx(
        slow_loss(logits, labels), rel=1e-9
    )
    # Without its frequencies nothing is left: the uniform guess.
    assert progress.excluded_loss(logits, (2, 5), pairs(P)) == pytest.approx(np.log(P), rel=1e-12)
    # Only frequency 2 left; and only frequency 5.
    assert progress.excluded_loss(logits, (5,), pairs(P)) == pytest.approx(
        slow_loss(cosine_logits(P, [2], 20.0), labels), rel=1e-9
    )


@hypothesis.given(st.integers(0, 1000), st.sampled_from([3, 5, 7, 11]))
def test_measures_equal_slow_projections(seed, p):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(p * p, p + 1))
    half = (p - 1) // 2
    components = [slow_component(logits, p, k) for k in range(1, half + 1)]
    power = progress.frequency_power(logits)
    np.testing.assert_allclose(power, [(c**2).mean(0).sum() for c in components], rtol=1e-9)
    assert power.sum() <= logits.var(axis=0).sum() * (1 + 1e-12)

    chosen = tuple(int(k) for k in rng.permutation(half)[: rng.integers(1, half + 1)] + 1)
    labels = pairs(p).sum(1) % p
    kept = logits.mean(0)[None] + sum(components[k - 1] for k in chosen)
    assert progress.restricted_loss(logits, chosen) == pytest.approx(slow_loss(kept, labels))
    some = rng.permutation(p * p)[: max(1, p)]
    rest = (logits - sum(components[k - 1] for k in chosen))[some]
    assert progress.excluded_loss(logits, chosen, pairs(p)[some]) == pytest.approx(
        slow_loss(rest, labels[some])
    )


def test_embedding_of_one_frequency_is_sparse_and_noise_is_not():
    angle = 2 * np.pi * 3 * np.arange(113) / 113
    power = progress.embedding_power(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    assert power.argmax() + 1 == 3
    assert power[2] == pytest.approx(1.0)
    assert progress.gini(power) == pytest.approx(1 - 1 / 56)
    noise = np.random.default_rng(0).normal(size=(113, 128))
    assert progress.gini(progress.embedding_power(noise)) < 0.15


@hypothesis.given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20))
def test_gini_is_the_mean_difference_over_twice_the_mean(values):
    x = np.array(values)
    slow = np.abs(x[:, None] - x[None]).mean() / (2 * x.mean())
    assert progress.gini(x) == pytest.approx(slow, abs=1e-9)
    assert progress.gini(3 * x) == pytest.approx(progress.gini(x), abs=1e-9)


def test_fourier_weight_is_unbiased_and_its_error_honest():
    f = np.asarray(boolean.majority(5), float)
    chi = np.asarray(boolean.parity(5, [1]), float)
    exact = boolean.fourier_coefficients(f)[0b01000] ** 2
    assert exact == pytest.approx(0.375**2)
    rng = np.random.default_rng(0)
    found = np.array(
        [progress.fourier_weight(f[i], chi[i]) for i in rng.integers(0, 32, (2000, 200))]
    )
    value, error = found.T
    assert abs(value.mean() - exact) < 4 * value.std() / np.sqrt(len(value))
    assert error.mean() == pytest.approx(value.std(), rel=0.05)


def test_weight_of_the_parity_itself_is_one():
    chi = np.asarray(boolean.parity(4), float)
    assert progress.fourier_weight(chi, chi) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: progress.by_sum(np.zeros((10, 3))), "all pairs"),
        (lambda: progress.by_sum(np.zeros((16, 4))), "odd p"),
        (lambda: progress.restricted_loss(np.zeros((9, 3)), (2,)), r"lie in 1\.\.1"),
        (lambda: progress.restricted_loss(np.zeros((9, 3)), ()), "at least one"),
        (lambda: progress.key_frequencies(np.zeros((9, 3))), "do not depend"),
        (lambda: progress.gini(np.zeros(0)), "not all 0"),
        (lambda: progress.fourier_weight(np.ones(1), np.ones(1)), "N >= 2"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
