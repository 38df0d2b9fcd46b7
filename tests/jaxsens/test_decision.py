"""How outputs are read: against one row at a time in NumPy, and what is refused."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsens._decision as d

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(40, 5)).astype(np.float32)


def verdicts(outputs, decision=None):
    found = d.judge(jnp.asarray(outputs), d.checked_decision(decision))
    return found._replace(**{n: np.asarray(v) for n, v in found._asdict().items()})


@pytest.mark.parametrize("decision", [None, "argmax"])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32])
def test_logits(decision, dtype):
    logits = jnp.asarray(LOGITS * 10).astype(dtype)
    got = verdicts(logits, decision)
    for row, decided, margin, size in zip(np.asarray(logits, np.float32), *got[:3], strict=True):
        ordered = np.sort(row)
        assert decided == row.argmax()
        assert margin == pytest.approx(ordered[-1] - ordered[-2], rel=1e-6)
        assert size == np.abs(row).max()


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
@pytest.mark.parametrize("decision", [None, "sign", 0.25, d.Threshold(0.25)])
def test_scalars(shape, decision):
    values = LOGITS[:, 0]
    got = verdicts(values.reshape(shape), decision)
    shifted = values - (0.25 if decision not in (None, "sign") else 0)
    np.testing.assert_array_equal(got.decision, np.sign(shifted))
    np.testing.assert_array_equal(got.margin, np.abs(shifted))


def test_whole_numbers_are_labels_where_both_readings_agree():
    for values in (np.array([-1, 0, 1]), np.array([True, False, True])):
        np.testing.assert_array_equal(verdicts(values).decision, values)
        np.testing.assert_array_equal(verdicts(values).margin, 1)
    labels = np.array([0, 1, 2, 3])
    np.testing.assert_array_equal(verdicts(labels).margin, [1, 1, d.INTEGERS, d.INTEGERS])
    for dtype in (int, np.float32, np.uint8):
        np.testing.assert_array_equal(verdicts(labels.astype(dtype), "label").decision, labels)
    np.testing.assert_array_equal(verdicts(labels - 2, "sign").decision, [-1, -1, 0, 1])


def test_a_function_of_ones_own():
    got = verdicts(LOGITS.reshape(8, 5, 5), lambda out: jnp.argmax(out[:, -1], -1))
    np.testing.assert_array_equal(got.decision, LOGITS.reshape(8, 5, 5)[:, -1].argmax(-1))
    other = verdicts(LOGITS.reshape(8, 5, 5) + 1, lambda out: jnp.argmax(out[:, -1], -1))
    assert (got.margin != other.margin).all()  # it changes with the outputs
    for wrong in (lambda out: out[:, 0] * 1.0, lambda out: jnp.zeros(3, int), lambda out: 3):
        with pytest.raises(ValueError, match=r"must return integers of shape \(40,\)"):
            verdicts(LOGITS, wrong)


def test_rows_that_decide_nothing():
    inf, nan = np.inf, np.nan
    rows = np.array(
        [
            [1, 2, 3],
            [inf, 0, 1],
            [inf, inf, 1],
            [-inf, 2, 1],
            [-inf] * 3,
            [nan, 1, 2],
            [inf, nan, 0],
        ]
    )
    for dtype in (np.float32, np.float16):
        got = verdicts(rows.astype(dtype))
        expected = [1, inf, d.TIED_INFINITE, 1, d.TIED_INFINITE, nan, nan]
        np.testing.assert_array_equal(got.margin, expected)
        np.testing.assert_array_equal(got.decision[:4], [2, 0, 0, 1])
    got = verdicts(np.array([inf, -inf, nan], np.float32))
    np.testing.assert_array_equal(got.margin, [inf, inf, nan])
    np.testing.assert_array_equal(got.decision[:2], [1, -1])
    for margin in (nan, d.TIED_INFINITE, d.INTEGERS):
        assert all(d.problem(margin))


@pytest.mark.parametrize(
    ("outputs", "decision"),
    [
        (LOGITS, "sign"),
        (LOGITS, 0.5),
        (LOGITS, "label"),
        (LOGITS[:, 0], "argmax"),
        (LOGITS[:, :1], "argmax"),
        (LOGITS[:, :0], None),
        (LOGITS[None], None),
    ],
)
def test_outputs_of_another_shape(outputs, decision):
    with pytest.raises(ValueError, match=r"decision=.*shape|shape.*decision="):
        verdicts(outputs, decision)


def test_either_reading_without_a_guard():
    np.testing.assert_array_equal(verdicts(LOGITS, d.decision).decision, LOGITS.argmax(1))
    np.testing.assert_array_equal(verdicts(LOGITS[:, 0], d.decision).margin, np.abs(LOGITS[:, 0]))
    seen(np.abs(LOGITS[:, 0]), d.decision)
    seen(np.ones((40, 2), np.float32), d.decision)


@pytest.mark.parametrize("wrong", ["softmax", True, int, np.ones(2), {}])
def test_no_decision(wrong):
    with pytest.raises((ValueError, TypeError), match=r"^decision must be 'argmax'.*, got "):
        d.checked_decision(wrong)
    with pytest.raises(ValueError, match="finite, got nan"):
        d.checked_decision(float("nan"))
    with pytest.raises(TypeError, match="number"):
        d.Threshold("0.5")


def seen(outputs, decision=None, examples=40):
    found = d.Seen(decision)
    for part in np.array_split(np.asarray(outputs), 3):
        found.add(verdicts(part, decision))
    found.check(examples, stacklevel=1)


@pytest.mark.parametrize("squash", [lambda z: 1 / (1 + np.exp(-z)), lambda z: (z > 1) * 0.25])
def test_probabilities_are_refused(squash):
    values = squash(LOGITS[:, 0])
    with pytest.raises(ValueError, match=r"never negative.*probabilities.*decision=0.5"):
        seen(values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen(values, 0.5)
        seen(values, "sign")


def test_labels_in_floating_point_are_refused():
    labels = LOGITS.argmax(1).astype(np.float32)
    with pytest.raises(ValueError, match=r"0 to 4\) and whole numbers.*decision='label'"):
        seen(labels)
    seen(labels, "label")
    seen((labels > 2).astype(np.float32))  # 0 and 1: its sign is the label


@pytest.mark.parametrize(
    ("outputs", "named"),
    [
        (LOGITS + np.array([9, 0, 0, 0, 0]), "argmax"),
        (-np.abs(LOGITS[:, 0]), "sign"),  # log-probabilities
        (2 + np.abs(LOGITS[:, 0]), "sign"),
        (np.ones(40, int), "label"),
    ],
)
def test_one_decision_for_everything_is_said(outputs, named):
    with pytest.warns(UserWarning, match=f"for all 40 examples.*decision='{named}'"):
        seen(outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen(outputs, named)
        seen(outputs, examples=3)  # so few may well be decided alike
        seen(LOGITS)
        seen(LOGITS[:, 0])
