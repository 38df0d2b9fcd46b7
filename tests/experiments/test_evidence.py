"""The rule by which a number of ours is set against a paper's."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import paper
from experiments.paper import Claim
from experiments.run import evidence
from experiments.run.evidence import Evidence, all_hold, shown, verdict


def judged(printed, ours, stderr=None, holds=None):
    return verdict(Evidence(Claim("A", "Fig. 4", "a", "b", printed, "c"), ours, stderr, holds))


@pytest.mark.parametrize(
    ("printed", "ours", "stderr", "expected"),
    [
        (0.0829, 0.0770, 0.0100, "agrees"),  # within two errors
        (0.0829, 0.0770, 0.0010, "agrees"),  # within a tenth
        (0.0829, 0.0730, 0.0010, "same order"),
        (0.0827, 0.2340, 0.0200, "same order"),
        (0.0098, 0.0373, 0.0023, "disagrees"),
        (0.0098, 0.0309, 0.0001, "same order"),
        (0.0098, 0.0311, 0.0001, "disagrees"),
        (0.0, 0.0, 0.0, "agrees"),
        (0.0, 0.0004, 0.0, "agrees"),  # printed as 0
        (0.0, 0.0060, 0.0022, "disagrees"),
        (500.0, 505.0, None, "agrees"),
        (0.5, -0.5, 0.1, "disagrees"),
        (0.5, math.nan, 0.1, "undecided"),
    ],
)
def test_numbers(printed, ours, stderr, expected):
    assert judged(printed, ours, stderr) == expected


def test_half_an_accuracy_is_not_of_the_same_order():
    claim = Claim("A", "A.6", "a", "final test accuracy, %", 100.0, "c")
    assert [verdict(Evidence(claim, ours)) for ours in (99.9, 91, 49)] == [
        "agrees", "agrees", "disagrees"
    ]  # fmt: skip


def test_words_go_by_what_came_out():
    outcomes = [judged("lower", "-0.01 ± 0.02", holds=holds) for holds in (True, False, None)]
    assert outcomes == ["agrees", "disagrees", "undecided"]
    assert [shown(d, 1.0) for d in (2.1, 2.0, -2.0, -2.1, math.nan)] == [
        True, None, None, False, None
    ]  # fmt: skip


@given(st.floats(1e-4, 1e4), st.floats(1e-4, 1e4), st.floats(0, 10))
def test_a_verdict_only_improves_as_ours_comes_nearer(printed, ours, stderr):
    order = ["agrees", "same order", "disagrees"]
    halfway = (printed + ours) / 2
    places = [order.index(judged(printed, at, stderr)) for at in (printed, halfway, ours)]
    assert places[0] == 0
    assert all(a <= b for a, b in itertools.pairwise(places))


def test_the_rule_is_said_with_its_constants():
    assert f"within {evidence.ERRORS:g} of our standard errors" in evidence.RULE
    assert f"within {100 * evidence.SHARE:g}%" in evidence.RULE
    assert pytest.approx(10) == evidence.ORDER_FACTOR**2


def test_claims_are_found_by_what_they_are_of():
    assert paper.claim("Fig. 4", "ConvMixer", "sensitivity").value == 0.0829
    with pytest.raises(KeyError, match=r"0 claims for A, Fig\. 4, CNN"):
        paper.claim("Fig. 4", "CNN", "sensitivity")
    with pytest.raises(KeyError, match="6 claims"):
        paper.claim("Tables 1, 3", "sparse-only predictor", "sensitivity")


@pytest.mark.parametrize(
    ("told", "holds"),
    [([], True), ([True, True], True), ([True, None], None), ([None, False, True], False)],
)
def test_a_claim_of_several_parts_fails_with_one_and_waits_for_one(told, holds):
    assert all_hold(told) is holds
