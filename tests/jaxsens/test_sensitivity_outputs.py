"""No number for what is not a decision function, through the public call."""

import functools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxsens
from jaxsens import Bits, Flip, Threshold, sensitivity

X = np.random.default_rng(0).choice([-1, 1], size=(40, 6)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
measure = functools.partial(
    sensitivity, inputs=X, key=jax.random.key(0), tokens=Bits(), noise=Flip()
)
LOGITS, SCORE = lambda x: x @ W, lambda x: x @ W[:, 0]


class Norm(nnx.Module):
    """Statistics of the batch, whatever flag is set."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(6, rngs=rngs)

    def __call__(self, x):
        return self.norm(x, use_running_average=False) @ W


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


def in_training(x):
    variables = Linen().init(jax.random.key(0), X, train=False)
    return Linen().apply(variables, x, rngs={"dropout": jax.random.key(1)})


DRAWN = np.random.default_rng(5)


def sampled(x):
    shape = jax.ShapeDtypeStruct((len(x), 3), np.float32)
    draw = lambda x: np.float32(x @ W + DRAWN.normal(size=(len(x), 3)))  # noqa: E731
    return jax.pure_callback(draw, shape, x)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Norm(nnx.Rngs(0)), "other rows of the batch.*BatchNorm"),
        (in_training, "place in the batch.*dropout"),
        (sampled, "same batch a second time"),
        (lambda x: x @ W * (1 + jnp.arange(len(x))[:, None] % 2), "per-example arguments"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"batch_size": 9}, {"decision": "argmax"}])
def test_what_depends_on_more_than_its_row(model, said, options):
    with pytest.raises(ValueError, match=said) as caught:
        measure(model, **options)
    assert "\n" not in str(caught.value)


def test_a_dependence_of_pytree_inputs():
    def model(batch, mixed):
        scale = batch["x"].mean() if mixed else 1
        return batch["x"] @ W + scale * batch["shift"][:, None] * jnp.arange(3.0)[None]

    inputs = {"x": X, "shift": np.arange(40, dtype=np.float32) / 40}
    for mixed in (False, True):
        run = functools.partial(
            measure, functools.partial(model, mixed=mixed), inputs=inputs, perturb="x"
        )
        if mixed:
            with pytest.raises(ValueError, match="other rows"):
                run()
        else:
            assert 0 < run().value < 1


def test_the_check_costs_one_batch():
    rows = []

    def model(x):
        jax.debug.callback(lambda x: rows.append(len(x)), x)
        return x @ W

    measure(model, batch_size=28)
    jax.effects_barrier()
    assert rows == [28] * (40 * 7 // 28 + 1)


@pytest.mark.parametrize(
    ("model", "decision"),
    [
        (lambda x: jax.nn.sigmoid(SCORE(x))[:, None], 0.5),
        (lambda x: jax.nn.sigmoid(SCORE(x)), Threshold(0.5)),
        (lambda x: (SCORE(x) > 0) + 7, "label"),
        (lambda x: jnp.stack([x, -x], 1), lambda out: out[:, 0] @ W[:, 0] > 0),
        (lambda x: SCORE(x) > 0, None),
        (lambda x: jnp.where(SCORE(x) > 0, 1, -1), None),
        (lambda x: jnp.log(jax.nn.sigmoid(SCORE(x))) + np.log(np.float32(2)), None),
    ],
)
def test_decisions_that_are_those_of_the_score(model, decision):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = measure(model, decision=decision)
    np.testing.assert_array_equal(got.rates, measure(SCORE).rates)
    assert 0 < got.value < 1


REFUSED = {
    "probabilities": (lambda x: jax.nn.sigmoid(SCORE(x)), ["never negative", "decision=0.5"]),
    "labels": (lambda x: 1 + jnp.argmax(LOGITS(x), 1), ["integer", "input 0", "decision='label'"]),
    "float labels": (lambda x: jnp.argmax(LOGITS(x), 1) * 1.0, ["labels", "decision='label'"]),
    "overflow": (
        lambda x: (1e6 * jnp.abs(LOGITS(x))).astype(jnp.float16),
        ["all infinite", "float32"],
    ),
    "tuple": (lambda x: (LOGITS(x), x), ["tuple", "model(x)[0]"]),
    "dictionary": (lambda x: {"h": x[None], "logits": LOGITS(x)}, ["dict", "model(x)['logits']"]),
    "nothing": (lambda x: None, ["returned None"]),
    "single examples": (eqx.nn.MLP(6, 3, 4, 1, key=jax.random.key(0)), ["jax.vmap"]),
    "a single number": (lambda x: jnp.dot(W[:, 0], x), ["jax.vmap"]),
    "linen module": (Linen(), ["linen module (Linen)", "module.apply, variables"]),
    "linen apply": (Linen().apply, ["without its variables", "module.apply, variables"]),
    "a class": (Linen, ["class Linen", "instance"]),
    "fixed batch": (lambda x: x.reshape(32, 6) @ W, ["(280, 6)", "batch_size"]),
    "NumPy": (lambda x: np.asarray(x) @ W, ["jax.numpy", "pure_callback"]),
    "Python branch": (lambda x: LOGITS(x) if x[0, 0] > 0 else x, ["jax.numpy"]),
    "its own error": (lambda x: {}["missing"], ["float32 (280, 6)", "KeyError: 'missing'"]),
    "threshold on logits": (functools.partial(LOGITS), ["Threshold(0.5)", "(280, 3)"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name):
    model, fragments = REFUSED[name]
    with pytest.raises((ValueError, TypeError)) as caught:
        measure(model, decision=0.5 if name == "threshold on logits" else None)
    message = str(caught.value)
    assert "\n" not in message
    assert 20 < len(message) < 240
    for fragment in fragments:
        assert fragment in message


def test_a_model_of_one_batch_size():
    got = measure(lambda x: x.reshape(32, 6) @ W, batch_size=32)
    few = measure(lambda x: x.reshape(32, 6) @ W, inputs=X[:3], batch_size=32)
    np.testing.assert_array_equal(got.rates, measure(LOGITS).rates)
    np.testing.assert_array_equal(few.rates, got.rates[:3])


def test_one_decision_for_everything():
    model = lambda x: LOGITS(x) + 50 * jnp.eye(3)[1][None]  # noqa: E731
    with pytest.warns(UserWarning, match="decides 1 for all 40 examples"):
        assert measure(model).value == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(model, decision="argmax")


CALLER = """
import jax, numpy as np
from jaxsens import Bits, Flip, sensitivity
x, shift = np.ones((100, 3)), np.array([0, 50, 0])
sensitivity(lambda x: x + shift, x, key=jax.random.key(0), tokens=Bits(), noise=Flip())
"""


def test_a_warning_names_the_line_of_the_call(tmp_path):
    """In a process without the checks of annotations, which put frames of their own between."""
    file = tmp_path / "caller.py"
    file.write_text(CALLER)
    done = subprocess.run(
        [sys.executable, file], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.startswith(f"{file}:5: UserWarning: the model decides 1 for all 100")


def test_another_threshold_is_no_other_program():
    traces = []

    def model(w, x):
        traces.append(1)
        return x @ w

    partial = jax.tree_util.Partial(model, W[:, 0])
    a = measure(partial, decision=0.0).value
    before = len(traces)
    b = measure(partial, decision=0.8).value
    assert len(traces) == before
    assert a != b
    assert jaxsens.decision(jnp.ones(2)).tolist() == [1, 1]
