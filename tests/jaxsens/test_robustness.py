"""Accuracy under corruptions, and whether two quantities of many models go together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsens.corruptions import NAMES, applicable, corrupt
from jaxsens.data.dataset import as_bytes, normalise
from jaxsens.measures import robustness
from jaxsens.measures.association import (
    bootstrap,
    correlation,
    partial_spearman,
    ranks,
    slope,
    spearman,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (23, 8, 8, 1)).astype(np.uint8)
LABELS = RNG.integers(0, 3, 23).astype(np.int32)


class Linear(nnx.Module):
    def __init__(self, seed):
        self.dense = nnx.Linear(64, 3, rngs=nnx.Rngs(seed))

    def __call__(self, x):
        return self.dense(x.reshape(len(x), -1))


def test_accuracies_are_those_of_the_images_one_by_one():
    models, key = [Linear(0), Linear(1)], jax.random.key(3)
    sets = robustness.corrupted(
        IMAGES, LABELS, key=key, names=["contrast", "gaussian_noise"], severities=(2, 5)
    )
    told = []
    found = robustness.accuracies(
        models, sets, batch_size=10, done=lambda one: told.append(one[:2])
    )
    assert told == [(n, s) for n in ("contrast", "gaussian_noise") for s in (2, 5)]
    for name, by_severity in found.items():
        for severity, values in by_severity.items():
            pixels = normalise(corrupt(IMAGES, name, severity, key=key)).reshape(23, -1)
            for model, value in zip(models, values, strict=True):
                kernel, bias = (np.asarray(a[...]) for a in (model.dense.kernel, model.dense.bias))
                right = (pixels @ kernel + bias).argmax(1) == LABELS
                assert value == right.mean()
    table = {name: {s: 1 - v for s, v in by.items()} for name, by in found.items()}
    expected = np.mean([np.mean(list(by.values()), 0) for by in table.values()], 0)
    np.testing.assert_allclose(robustness.mean_corruption_error(found), expected)
    np.testing.assert_allclose(1 - robustness.mean_accuracy(found), expected)
    reference = {name: {s: 0.5 for s in by} for name, by in found.items()}
    np.testing.assert_allclose(
        robustness.mean_corruption_error(found, reference), 2 * expected, rtol=1e-6
    )
    assert robustness.mean_accuracy(found, ["contrast"]) == pytest.approx(
        np.mean(list(found["contrast"].values()), 0)
    )
    for wrong, message in (
        ({"contrast": {2: 0.1, 5: 0.1}}, "the reference lacks gaussian_noise"),
        ({name: dict.fromkeys((2, 5), 1.0) for name in found}, "the reference makes no error"),
    ):
        with pytest.raises(ValueError, match=message):
            robustness.mean_corruption_error(found, wrong)
    with pytest.raises(ValueError, match="none of fog was measured; there are contrast"):
        robustness.mean_accuracy(found, ["fog"])


def test_an_image_whose_logits_are_nan_is_not_right():
    def model(x):
        broken = (jnp.arange(len(x)) % 2 == 0)[:, None] & (jnp.arange(3) == 1)[None]
        return jnp.where(broken, jnp.nan, jax.nn.one_hot(jnp.full(len(x), 1), 3))

    # All labels are the class that is NaN in every other row, and the largest in the rest.
    one = robustness.Corrupted("fog", 1, IMAGES, np.ones_like(LABELS))
    found = robustness.accuracies([model], [one])
    assert found["fog"][1] == pytest.approx([11 / 23])


def test_wrong_names_and_severities_are_refused_before_anything_is_made():
    assert len([*robustness.corrupted(IMAGES[:1], LABELS[:1], key=jax.random.key(0))]) == 18 * 5
    assert "saturate" not in applicable(1)
    for change, message in (
        ({"names": ["fog", "mist"]}, f"no corruption 'mist'; expected one of {NAMES[0]}, "),
        ({"severities": (1, 6)}, "severity must be a whole number from 1 to 5, got 6"),
        ({"severities": (0,)}, "severity must be a whole number from 1 to 5, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            robustness.corrupted(IMAGES, LABELS, key=jax.random.key(0), **change)


def test_bytes_are_what_was_normalised():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(as_bytes(normalise(every)), every)
    np.testing.assert_array_equal(as_bytes(np.array([-2.0, 2.0])), [0, 255])


numbers = st.lists(st.integers(-5, 5), min_size=4, max_size=12)


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_rank_correlations_are_scipy_s(data):
    x = np.array(data.draw(numbers), float)
    same = st.lists(st.integers(-5, 5), min_size=len(x), max_size=len(x))
    y, z = (np.array(data.draw(same), float) for _ in range(2))
    np.testing.assert_array_equal(ranks(x), scipy.stats.rankdata(x))
    if min(map(np.ptp, (x, y, z))) == 0:
        assert np.isnan(spearman(np.zeros(4), np.arange(4.0)))
        return
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
    a, b, c = map(ranks, (x, y, z))
    design = np.stack([np.ones_like(c), c], 1)
    left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (a, b)]
    if min(np.abs(v).max() for v in left) > 1e-9:  # correlation of what the ranks of z leave
        assert partial_spearman(x, y, z) == pytest.approx(correlation(*left), abs=1e-6)


def test_slopes_within_groups_and_intervals_that_cover():
    rng = np.random.default_rng(1)
    groups = ["a"] * 10 + ["b"] * 10
    x = rng.normal(size=20) + 5 * np.array([g == "b" for g in groups])
    y = -2 * x + 30 * np.array([g == "b" for g in groups])
    assert slope(x, y, groups) == pytest.approx(-2)
    assert slope(x, y) > 0  # what the groups hide
    inside = 0
    for trial in range(40):
        rng = np.random.default_rng(trial)
        x = rng.normal(size=30)
        found = bootstrap(slope, x, 3 * x + rng.normal(size=30), draws=300)
        inside += found.low < 3 < found.high
        assert found.low < found.value < found.high
    assert inside >= 33  # 95 %, less what so few rows cost


def test_seeds_of_one_network_are_drawn_together():
    x = np.repeat([0.0, 1.0, 2.0, 3.0], 50)
    y = np.repeat([1.0, 0.0, 3.0, 2.0], 50)
    alone = bootstrap(spearman, x, y, draws=300)
    together = bootstrap(spearman, x, y, clusters=x.tolist(), draws=300)
    assert together.high - together.low > 4 * (alone.high - alone.low)
    few = bootstrap(spearman, x[:100], y[:100], clusters=x[:100].tolist())
    assert np.isnan([few.low, few.high]).all()
    with pytest.raises(ValueError, match="columns differ in length"):
        bootstrap(spearman, x, y[1:])
