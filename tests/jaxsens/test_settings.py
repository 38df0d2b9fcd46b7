"""JAX's settings and the forms that arrays and keys come in change no number."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsens import Bits, Gaussian, Patches, Positions, Replacement, Scatter, sensitivity

X = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
IMAGES = np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype(np.float32)
KEY = jax.random.key(0)
one = functools.partial(sensitivity, key=KEY, tokens=Bits(), noise=Gaussian(1.0), repeats=2)


def measure(x, model=lambda x: x[:, :3], **options):
    return one(model, x, **options)


flat = lambda x: x.reshape(len(x), -1)[:, :3]  # noqa: E731
CALLS = {
    "bits": lambda: measure(X).rates,
    "patches": lambda: _images(Patches(2)),
    "scatter": lambda: _images(Scatter(2)),
    "ids": lambda: sensitivity(
        lambda x: x[:, :2], np.arange(12).reshape(4, 3), key=KEY, tokens=Positions(),
        noise=Replacement(np.arange(12)),
    ).rates,
    "module": lambda: sensitivity(
        nnx.Linear(6, 3, rngs=nnx.Rngs(0)), X, key=KEY, tokens=Bits(), noise=Gaussian(1.0)
    ).rates,
}  # fmt: skip


def _images(tokens):
    return sensitivity(flat, IMAGES, key=KEY, tokens=tokens, noise=Gaussian(1.0), repeats=2).rates


SETTINGS = {
    "x64": lambda: jax.enable_x64(True),
    "disable_jit": jax.disable_jit,
    "transfer_guard": lambda: jax.transfer_guard("disallow"),
    "strict dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "debug_nans": lambda: jax.debug_nans(True),
    "tracer leaks": jax.check_tracer_leaks,
    "rbg keys": lambda: jax.default_prng_impl("rbg"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings(setting):
    for name in ("bits",) if setting == "disable_jit" else ("patches",):
        want = CALLS[name]()
        with SETTINGS[setting]():
            np.testing.assert_array_equal(CALLS[name](), want, err_msg=name)


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.float64, np.longdouble])
def test_floating_point_of_every_kind(dtype):
    np.testing.assert_array_equal(measure(X.astype(dtype)).rates, measure(X).rates)


def test_whole_numbers_of_every_kind():
    ids = np.arange(12).reshape(4, 3)
    draw = functools.partial(
        sensitivity, lambda x: x[:, :2], key=KEY, tokens=Positions(),
        noise=Replacement(np.arange(12)),
    )  # fmt: skip
    want = draw(ids).rates
    for dtype in (">i4", ">u2", np.int64, np.uint64, np.int8):
        np.testing.assert_array_equal(draw(ids.astype(dtype)).rates, want)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (X.astype(np.float64) * 1e300, "beyond the range of float32 in 12 of 12 examples"),
        (np.arange(12).reshape(4, 3) + 2**31, "beyond the range of int32 in 4 of 4 examples"),
    ],
)
def test_numbers_that_would_become_others(inputs, said):
    with pytest.raises(ValueError, match=said):
        measure(inputs)


def test_keys():
    want = measure(X).rates
    data = np.asarray(jax.random.key_data(KEY))
    for key in (jax.random.PRNGKey(0), data, jax.random.key(0)):
        np.testing.assert_array_equal(measure(X, key=key).rates, want)
    for wrong, said in {
        nnx.Rngs(0): "got Rngs; pass key=rngs", 0: "got 0", np.int64(3): "got np.int64",
        "0": "got '0'",
    }.items():  # fmt: skip
        with pytest.raises(TypeError, match=said) as caught:
            measure(X, key=wrong)
        assert "\n" not in str(caught.value)


def test_bfloat16_is_no_false_alarm():
    """Rows of a deep network in half precision, whose rounding depends on where in a batch."""
    rng = np.random.default_rng(0)
    layers = jnp.asarray(rng.normal(size=(6, 16, 16)) / 4, jnp.bfloat16)

    def model(x):
        x = jnp.pad(x, ((0, 0), (0, 10))).astype(jnp.bfloat16)
        for layer in layers[:3]:
            x = x + jax.nn.gelu(x @ layer)
        return x[:, :3].astype(jnp.float32)

    for batch_size in (None, 7):
        assert 0 < measure(X, model=model, batch_size=batch_size).value < 1


@pytest.mark.slow
def test_x64_changes_no_draw():
    for name, call in CALLS.items():
        want = call()
        with jax.enable_x64(True):
            np.testing.assert_array_equal(call(), want, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_ENABLE_X64": "1"},
        {"JAX_NUMPY_DTYPE_PROMOTION": "strict"},
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    ],
    ids=lambda e: next(iter(e)),
)
def test_the_tests_themselves(environment):
    """A part of these tests in a process of its own, with the setting on from the start."""
    tests = Path(__file__).parent
    names = ["callables", "witness", "outputs"]
    if "JAX_NUMPY_DTYPE_PROMOTION" in environment:  # models of the others mix types themselves
        names = names[:1]
    files = [tests / f"test_sensitivity_{name}.py" for name in names]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files],
        cwd=tests.parents[1], env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
