"""Every wrong argument: one line, of the right type, with what was got and what was expected."""

# ruff: noqa: E501 (a table: one wrong argument, one line)

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsens
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
IMAGES, ROWS = np.zeros((3, 8, 8, 1), np.float32), np.ones((3, 6), np.float32)
NOT_FINITE = ROWS.copy()
NOT_FINITE[2, 1] = np.nan
INFINITE = ROWS.copy()
INFINITE[1, 1] = -np.inf


def call(inputs=ROWS, model=lambda x: x.reshape(len(x), -1).sum(1), **options):
    options = {"key": KEY, "tokens": Bits(), "noise": Gaussian(1.0), **options}
    return functools.partial(sensitivity, model, inputs, **options)


def nan_if_noised(x):
    return jnp.where((x == 1).all(1), 1.0, jnp.nan)


class Holes:
    """Tokens that claim to be padding in the second example."""

    shared = False

    def count(self, shape):
        return 2

    def valid(self, shape):
        return np.array([[True, True], [False, False], [True, True]])

    def replace(self, example, token, noise, shared_key):
        return noise(example)


# name: (call, type, what the line must hold)
WRONG = {
    "rank for patches": (call(ROWS, tokens=Patches(4)), ValueError, ["(N, H, W, C)", "(3, 6)"]),
    "grey images": (call(IMAGES[..., 0], tokens=Patches(4)), ValueError, ["images[..., None]"]),
    "rank for scatter": (call(ROWS, tokens=Scatter(4)), ValueError, ["Scatter", "(3, 6)"]),
    "rank for bits": (call(IMAGES), ValueError, ["(N, d)", "(3, 8, 8, 1)"]),
    "rank for positions": (call(ROWS[:, 0], tokens=Positions()), ValueError, ["(N, T, ...)", "(3,)"]),
    "patch does not divide": (call(IMAGES, tokens=Patches(3)), ValueError, ["Patches(3)", "8 x 8"]),
    "patch over the image": (call(IMAGES, tokens=Patches(16)), ValueError, ["Patches(16)", "8 x 8"]),
    "scatter does not divide": (call(IMAGES, tokens=Scatter(5)), ValueError, ["Scatter(5)", "8 x 8"]),
    "patch of 0": (lambda: Patches(0), ValueError, ["patch size", "at least 1", "0"]),
    "patch of 2.0": (lambda: Patches(2.0), TypeError, ["patch size", "integer", "2.0"]),
    "scatter of -1": (lambda: Scatter(-1), ValueError, ["at least 1", "-1"]),
    "variance negative": (lambda: Gaussian(-1.0), ValueError, ["variance", "greater than 0", "-1.0"]),
    "variance zero": (lambda: Gaussian(0), ValueError, ["variance", "greater than 0", "0.0"]),
    "variance NaN": (lambda: Gaussian(float("nan")), ValueError, ["variance", "finite", "nan"]),
    "variance inf": (lambda: Gaussian(np.inf), ValueError, ["variance", "finite", "inf"]),
    "variance text": (lambda: Gaussian("big"), TypeError, ["variance", "number", "big"]),
    "variance array": (lambda: Gaussian(np.ones(3)), TypeError, ["variance", "number"]),
    "repeats 0": (call(repeats=0), ValueError, ["repeats", "at least 1", "0"]),
    "repeats -1": (call(repeats=-1), ValueError, ["repeats", "-1"]),
    "repeats 2.5": (call(repeats=2.5), TypeError, ["repeats", "integer", "2.5"]),
    "repeats True": (call(repeats=True), TypeError, ["repeats", "integer", "True"]),
    "batch_size 0": (call(batch_size=0), ValueError, ["batch_size", "at least 1", "0"]),
    "tokens_per_example 0": (call(tokens_per_example=0), ValueError, ["tokens_per_example", "0"]),
    "tokens_per_example 7": (call(tokens_per_example=7), ValueError, ["at most", "7", "has 6"]),
    "tokens_per_example over the mask": (
        call(tokens=Positions([[1] * 6, [1, 1, 0, 0, 0, 0], [1] * 6]), tokens_per_example=3),
        ValueError,
        ["at most", "3", "example 1 has 2"],
    ),
    "tokens_per_example 1.5": (call(tokens_per_example=1.5), TypeError, ["tokens_per_example", "1.5"]),
    "target 0": (call(target_stderr=0), ValueError, ["target_stderr", "greater than 0"]),
    "target NaN": (call(target_stderr=float("nan")), ValueError, ["target_stderr", "nan"]),
    "no example": (call(ROWS[:0]), ValueError, ["empty", "(0, 6)"]),
    "no token": (call(ROWS[:, :0]), ValueError, ["empty", "(3, 0)"]),
    "NaN in inputs": (call(NOT_FINITE), ValueError, ["NaN or inf", "1 of 3", "example 2"]),
    "inf in inputs": (call(INFINITE), ValueError, ["NaN or inf", "1 of 3", "example 1"]),
    "no array": (call(object()), TypeError, ["inputs", "array", "object"]),
    "which array": (call({"a": ROWS, "b": ROWS}), ValueError, ["2 arrays", "'a', 'b'", "perturb=NAME"]),
    "examples in a list": (call(list(ROWS)), ValueError, ["3 arrays", "stacked"]),
    "no such array": (call({"a": ROWS}, perturb="b"), ValueError, ["perturb='b'", "'a'"]),
    "unequal numbers": (call({"a": ROWS, "b": ROWS[:2]}), ValueError, ["a: 3", "b: 2"]),
    "NaN in one of the arrays": (
        call({"a": ROWS, "b": NOT_FINITE}, perturb="a"), ValueError, ["inputs['b']", "example 2"],
    ),
    "no such mask": (
        call({"a": ROWS}, tokens=Positions("mask")), ValueError, ["mask='mask'", "'a'"],
    ),
    "mask of the whole": (
        call(tokens=Whole(np.ones((3, 5), bool))), ValueError, ["(3, 5)", "(3, 6)"],
    ),
    "a name where there are no inputs": (
        lambda: Positions("mask").read(ROWS), ValueError, ["'mask' is a name"],
    ),
    "no embed": (call(embed=3), TypeError, ["embed must be callable", "int"]),
    "embed that drops examples": (call(embed=lambda x: x[:2]), ValueError, ["embed", "(2, 6)", "8"]),
    "embed that returns two": (
        call(embed=lambda x: (x, x)), ValueError, ["embed's result", "'0', '1'", "perturb"],
    ),
    "Gaussian on embedded integers": (
        call(embed=lambda x: x.astype(int)), TypeError, ["floating-point", "int32"],
    ),
    "no tokens": (call(tokens=None), TypeError, ["tokens must be given", "tokens=Patches(4)"]),
    "no noise": (call(noise=None), TypeError, ["noise must be given", "Gaussian(variance=1.0)"]),
    "text": (call(np.array([["a", "b"]])), TypeError, ["numeric", "<U1"]),
    "complex": (call(ROWS * 1j), TypeError, ["numeric", "complex64"]),
    "a number": (call(3.0), TypeError, ["(N, ...)", "shape ()"]),
    "ragged": (call([[1.0, 2.0], [3.0]]), ValueError, ["inputs", "unequal shape"]),
    "no model": (call(model=3), TypeError, ["callable", "int"]),
    "NaN logits": (call(model=lambda x: x.sum(1) * jnp.nan), ValueError, ["NaN", "input 0 (clean)"]),
    "NaN logits when noised": (call(model=nan_if_noised), ValueError, ["input 0", "token 0 replaced"]),
    "one NaN logit": (
        call(model=lambda x: jnp.stack([x[:, 0], jnp.inf - jnp.inf + x[:, 1]], 1)),
        ValueError,
        ["NaN"],
    ),
    "output of one number": (call(model=lambda x: x.sum()), ValueError, ["()", "(N,) or (N, C)"]),
    "output of another batch": (call(model=lambda x: x[:2]), ValueError, ["(2, 6)", "(N, C)"]),
    "output of three axes": (call(model=lambda x: x[..., None]), ValueError, ["6, 1)", "(N, C)"]),
    "output of no class": (call(model=lambda x: x[:, :0]), ValueError, [", 0)", "(N, C)"]),
    "output complex": (call(model=lambda x: x * 1j), TypeError, ["complex64", "real"]),
    "two outputs": (call(model=lambda x: (x, x)), TypeError, ["tuple", "logits alone"]),
    "mask of another length": (
        call(tokens=Positions(np.ones((3, 5), bool))), ValueError, ["(3, 5)", "(3, 6)"],
    ),
    "mask of other examples": (
        call(tokens=Positions(np.ones((2, 6)))), ValueError, ["(2, 6)", "(3, 6)"],
    ),
    "mask of one axis": (lambda: Positions(np.ones(6)), ValueError, ["(N, T)", "(6,)"]),
    "mask of numbers": (lambda: Positions(np.full((3, 6), 0.5)), ValueError, ["True and False", "float64"]),
    "all masked": (lambda: Positions([[1, 0], [0, 0]]), ValueError, ["example 1", "without a real token"]),
    "all padding in tokens of one's own": (
        call(tokens=Holes()), ValueError, ["Holes.valid", "(3, 2)", "every example"],
    ),
    "tokens class": (call(tokens=Bits), TypeError, ["tokens must be", "Patches(4)", "Bits"]),
    "tokens number": (call(tokens=4), TypeError, ["tokens must be", "Patches(4)", "got 4"]),
    "noise number": (call(noise=1.0), TypeError, ["noise must be", "Gaussian(1.0)", "got 1.0"]),
    "noise class": (call(noise=Gaussian), TypeError, ["noise must be", "Gaussian"]),
    "key number": (call(key=0), TypeError, ["jax.random.key(0)", "got 0"]),
    "key missing": (call(key=None), TypeError, ["jax.random.key(0)", "None"]),
    "key of floats": (call(key=jnp.ones(2)), TypeError, ["jax.random.key(0)"]),
    "several keys": (call(key=jax.random.split(KEY)), ValueError, ["single", "(2,)"]),
    "several raw keys": (
        call(key=jax.random.split(jax.random.PRNGKey(0))), ValueError, ["single", "(2, 2)"],
    ),
    "Gaussian on ids": (call(np.ones((3, 6), int)), TypeError, ["floating-point", "int32", "Flip"]),
    "Flip of other values": (call(ROWS * 0.5, noise=Flip()), ValueError, ["-1 and 1", "0.5"]),
    "Flip of (0, 1) on signs": (call(-ROWS, noise=Flip((0, 1))), ValueError, ["0 and 1", "-1.0"]),
    "Flip of equal values": (lambda: Flip((1, 1)), ValueError, ["two different", "(1, 1)"]),
    "Flip of one value": (lambda: Flip(1), ValueError, ["two different", "1"]),
    "Flip of three": (lambda: Flip((0, 1, 2)), ValueError, ["two different", "(0, 1, 2)"]),
    "vocabulary empty": (lambda: Replacement(np.ones((0, 3))), ValueError, ["V >= 1", "(0, 3)"]),
    "vocabulary size": (lambda: Replacement(59), ValueError, ["V >= 1", "jnp.arange(M)"]),
    "vocabulary NaN": (lambda: Replacement([1.0, np.nan]), ValueError, ["NaN or inf"]),
    "vocabulary of another kind": (
        call(noise=Replacement([0, 1])), TypeError, ["int32", "float32", "both"],
    ),
    "vocabulary of another shape": (
        call(IMAGES, tokens=Patches(4), noise=Replacement(np.ones((5, 4, 4)))),
        ValueError,
        ["(4, 4)", "(4, 4, 1)"],
    ),
    "vocabulary for the whole": (
        call(tokens=Whole(), noise=Replacement(np.ones((5, 4)))), ValueError, ["(4,)", "(6,)"],
    ),
    "decision of three axes": (
        lambda: jaxsens.decision(jnp.ones((2, 3, 4))), ValueError, ["(2, 3, 4)", "(N, C)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_one_clear_line(name):
    function, kind, fragments = WRONG[name]
    with pytest.raises((ValueError, TypeError)) as caught:
        function()
    message = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in message
    assert 20 < len(message) < 240
    for fragment in fragments:
        assert fragment in message


def test_arguments_are_keyword_only():
    with pytest.raises(TypeError):
        sensitivity(lambda x: x.sum(1), ROWS, KEY)
    with pytest.raises(TypeError, match="key"):
        sensitivity(lambda x: x.sum(1), ROWS)
