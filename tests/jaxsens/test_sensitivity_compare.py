"""Models side by side: paired differences, their errors and intervals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxsens import Bits, Gaussian, SensitivityEstimate, compare, sensitivity
from jaxsens._compare import Comparison, Difference

KEY = jax.random.key(0)
W = np.array([1, 0.5, 2, 1, 0.3, 0, 1, 1.5], np.float32)
V = np.array([1, 0.5, 2, 1, 0.3, 0.6, 1, 1.5], np.float32)
X = np.random.default_rng(0).normal(size=(400, 8)).astype("f4")
OPTIONS = {"key": KEY, "tokens": Bits(), "noise": Gaussian(1.0), "repeats": 2}


def linear(w, x):
    return (x * w[None]).sum(1)


def exact(w):
    return np.mean(np.arctan(np.abs(w) / np.linalg.norm(w)) / np.pi)


def test_the_same_as_each_alone_and_paired():
    found = compare({"w": Partial(linear, W), "v": Partial(linear, V)}, X, **OPTIONS)
    for name, w in (("w", W), ("v", V)):
        alone = sensitivity(Partial(linear, w), X, **OPTIONS)
        np.testing.assert_array_equal(found[name].rates, alone.rates)
    difference = found.difference("v", "w")
    by_example = found["v"].per_example - found["w"].per_example
    assert difference.value == pytest.approx(found["v"].value - found["w"].value)
    assert difference.stderr == pytest.approx(by_example.std(ddof=1) / 20)
    independent = np.hypot(found["v"].stderr, found["w"].stderr)
    assert difference.stderr < 0.7 * independent
    low, high = difference.interval()
    assert low < difference.value < high
    assert found.differences["v"].value == difference.value
    assert found.difference("w", "v").value == -difference.value
    lines = repr(found).splitlines()
    assert lines[0].split() == ["model", "S", "stderr", "minus", "w", "paired", "stderr"]
    assert f"{difference.value:+.5f}" in lines[2]
    # Of estimates made before, the same.
    later = compare([found["v"], sensitivity(Partial(linear, W), X, **OPTIONS)])
    assert later.difference("0", "1").stderr == difference.stderr


def test_adaptive_plans_are_shared():
    models = [Partial(linear, w) for w in (W, V, 2 * W)]
    found = compare(models, np.tile(X, (5, 1)), target_stderr=0.02, **OPTIONS)
    a, b, c = (found[name] for name in "012")
    np.testing.assert_array_equal(np.isnan(a.rates), np.isnan(b.rates))
    np.testing.assert_array_equal(a.weights, b.weights)
    np.testing.assert_array_equal(a.rates, c.rates)  # the same decisions
    assert max(a.stderr, b.stderr) <= 0.02
    assert (found.difference("0", "2").value, found.difference("0", "2").stderr) == (0, 0)
    low, high = found.difference("0", "2").interval()
    assert -0.1 < low < 0 < high < 0.1
    assert abs(found.difference("1", "0").value - (exact(V) - exact(W))) < 0.08
    with pytest.raises(ValueError, match="an adaptive plan is shared only within one call"):
        compare([a, sensitivity(models[0], X, target_stderr=0.05, **OPTIONS)])


def tables(repetitions, n, seed=0):
    """Two tables of independent rates a repetition, alike in what examples share."""
    rng = np.random.default_rng(seed)
    common = rng.beta(0.3, 3, size=(repetitions, n, 1))
    for p in common:
        flips = rng.random((n, 4)) < p
        other = np.where(rng.random((n, 4)) < 0.1, rng.random((n, 4)) < 0.3, flips)
        yield flips.astype(float), other.astype(float)


def test_paired_intervals_cover():
    """True difference 0.1 (0.3 - mean rate); 300 repetitions, known to 1.3 %."""
    truth = 0.1 * (0.3 - 0.3 / 3.3)
    covered, values, stderrs = [], [], []
    for first, second in tables(300, 150):
        estimates = [SensitivityEstimate(r, 1, fingerprint="same") for r in (second, first)]
        difference = Difference(*estimates)
        low, high = difference.interval()
        covered.append(low <= truth <= high)
        values.append(difference.value)
        stderrs.append(difference.stderr)
    assert 0.91 <= np.mean(covered) <= 0.985
    assert abs(np.mean(values) - truth) < 4 * np.std(values) / np.sqrt(300)
    assert np.mean(stderrs) == pytest.approx(np.std(values), rel=0.15)


def test_embeddings_by_model():
    ids = np.random.default_rng(0).integers(5, size=(200, 8))
    tables = [np.random.default_rng(s).normal(size=5).astype("f4") for s in (1, 2)]
    embed = [Partial(lambda t, x: t[x], table) for table in tables]
    models = {"a": Partial(linear, W), "b": Partial(linear, W)}
    found = compare(models, ids, embed=dict(zip("ab", embed, strict=True)), **OPTIONS)
    for name, one in zip("ab", embed, strict=True):
        alone = sensitivity(models[name], ids, embed=one, **OPTIONS)
        np.testing.assert_array_equal(found[name].rates, alone.rates)


ONE = SensitivityEstimate(np.zeros((3, 2)), 1)
WRONG = {
    "other key": (
        lambda: compare(
            [
                sensitivity(Partial(linear, W), X, **{**OPTIONS, "key": jax.random.key(seed)})
                for seed in (0, 1)
            ]
        ),
        ValueError,
        "not paired",
    ),
    "other inputs": (
        lambda: compare([sensitivity(Partial(linear, W), x, **OPTIONS) for x in (X, X + 1)]),
        ValueError,
        "not paired",
    ),
    "made by hand": (lambda: compare([ONE, ONE]), ValueError, "not paired"),
    "one estimate": (lambda: compare([ONE]), ValueError, "at least two"),
    "one model": (lambda: compare([linear], X, **OPTIONS), ValueError, "at least two"),
    "no inputs": (lambda: compare([linear, linear]), TypeError, "must be an estimate"),
    "a module": (lambda: compare(jnp.sum, X, **OPTIONS), TypeError, "mapping or a sequence"),
    "embed of other names": (
        lambda: compare({"a": linear, "b": linear}, X, embed={"a": linear}, **OPTIONS),
        ValueError,
        "embed has",
    ),
    "embed of another length": (
        lambda: compare([linear, linear], X, embed=[linear], **OPTIONS), ValueError, "1 entries",
    ),
    "no tokens": (lambda: compare([linear, linear], X, key=KEY), TypeError, "tokens must be given"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_one_clear_line(name):
    call, kind, message = WRONG[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_unknown_names():
    with pytest.raises(KeyError):
        Comparison(
            {n: SensitivityEstimate(np.zeros((3, 2)), 1, fingerprint="x") for n in "ab"}
        ).difference("a", "c")
