"""The rule for the phases of grokking, on curves whose turning points are known."""

import numpy as np
import pytest

from jaxsens.measures.phases import grokking_phases, half_way, running_median

EPOCHS = np.arange(0, 10001, 10)


def curve(*points):
    return np.interp(EPOCHS, *zip(*points, strict=True))


TRAIN = curve((0, 0.0), (200, 1.0), (10000, 1.0))
TEST = curve((0, 0.0), (200, 0.3), (8000, 0.3), (8400, 1.0), (10000, 1.0))


def test_four_phases_are_found_where_they_are():
    s = curve((0, 0.6), (500, 0.02), (3000, 0.2), (6000, 0.01), (10000, 0.01))
    rng = np.random.default_rng(0)
    found = grokking_phases(EPOCHS, TRAIN, TEST, s * (1 + 0.05 * rng.normal(size=len(s))))
    assert found.memorised == 200
    assert found.jump == pytest.approx(8200, abs=20)
    assert found.lowest == pytest.approx(500, abs=60)
    assert found.peak == pytest.approx(3000, abs=150)
    assert found.fall == pytest.approx(3000 + 3000 * 0.1 / 0.19, abs=100)
    assert found.lead == found.jump - found.fall


def test_no_rise_gives_no_peak_and_the_fall_counts_from_memorisation():
    s = curve((0, 0.6), (200, 0.4), (1200, 0.0), (10000, 0.0))
    found = grokking_phases(EPOCHS, TRAIN, TEST, s)
    assert found.lowest is None
    assert found.peak is None
    assert found.fall == pytest.approx(700, abs=20)


def test_a_fall_after_the_jump_is_a_negative_lead():
    s = curve((0, 0.6), (500, 0.05), (3000, 0.4), (9000, 0.4), (9500, 0.0), (10000, 0.0))
    found = grokking_phases(EPOCHS, TRAIN, TEST, s)
    assert found.lead == pytest.approx(8200 - 9250, abs=50)


def test_what_did_not_happen_is_none():
    never = np.zeros_like(TRAIN)
    s = np.full_like(TRAIN, 0.3)
    assert grokking_phases(EPOCHS, never, never, s) == (None,) * 5
    found = grokking_phases(EPOCHS, TRAIN, np.minimum(TEST, 0.3), s)
    assert (found.memorised, found.jump, found.fall, found.lead) == (200, None, None, None)


def test_running_median_and_half_way():
    np.testing.assert_array_equal(
        running_median(np.array([0.0, 9, 0, 0, 5]), 3), [4.5, 0, 0, 0, 2.5]
    )
    epochs = np.array([0, 10, 20, 30])
    assert half_way(epochs, np.array([4.0, 3.5, 1.5, 0.0])) == 20
    assert half_way(epochs, np.array([0.0, 3.5, 1.5, 4.0])) == 10
    assert half_way(epochs, np.ones(4)) is None
