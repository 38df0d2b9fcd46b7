"""Compiled once for each structure and shape, in memory bounded by batch_size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsens import (
    Bits,
    Flip,
    Gaussian,
    Patches,
    Positions,
    Replacement,
    _batch,
    sensitivity,
)
from jaxsens._inference import inference
from jaxsens._plan import Plan
from jaxsens._run import Settings, decide

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


class Counting(nnx.Module):
    """Counts how often it is traced, by a Python side effect."""

    traces = 0

    def __init__(self, rngs):
        self.linear = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        Counting.traces += 1
        return self.linear(x)


def traces(*calls):
    before = Counting.traces
    for call in calls:
        call()
    return Counting.traces - before


def test_a_second_call_retraces_nothing():
    def measure(seed=0, key=0, variance=1.0, x=X, **options):
        return lambda: sensitivity(
            Counting(nnx.Rngs(seed)), x, key=jax.random.key(key), tokens=Bits(),
            noise=Gaussian(variance), **options,
        )  # fmt: skip

    assert traces(measure()) == 2  # once to see how large its arrays are, once to compile
    assert traces(measure()) == 0
    assert traces(measure(key=1), measure(variance=2.0), measure(variance=3), measure(seed=1)) == 0
    assert traces(measure(x=X + 1), measure(x=X.astype(np.float64))) == 0
    assert traces(measure(x=jnp.asarray(X))) == 0
    assert traces(measure(batch_size=64)) == 1  # another shape
    # The number of examples is no shape of the program once a batch is full.
    assert traces(measure(batch_size=64, x=X[:33])) == 0
    assert traces(measure(batch_size=64, tokens_per_example=2, key=1)) == 1
    assert traces(measure(batch_size=64, tokens_per_example=2, key=2)) == 0


def test_rounds_towards_a_target_share_one_program():
    x = np.random.default_rng(0).normal(size=(4000, 6)).astype(np.float32)

    def measure(key, target):
        return lambda: sensitivity(
            Counting(nnx.Rngs(0)), x, key=jax.random.key(key), tokens=Bits(), noise=Gaussian(0.5),
            tokens_per_example=1, repeats=1, target_stderr=target,
        )  # fmt: skip

    assert 1 <= traces(measure(0, 0.01)) <= 2  # its size may be known from another test
    assert traces(measure(1, 0.01), measure(2, 0.02), measure(3, 0.03)) == 0


def test_other_masks_and_vocabularies_of_the_same_shape_share_one_program():
    ids = np.random.default_rng(0).integers(0, 5, size=(200, 6))
    masks = [np.arange(6) < np.random.default_rng(s).integers(2, 7, size=(200, 1)) for s in (0, 1)]

    class Embedding(Counting):
        def __call__(self, x):
            return super().__call__(x.astype(jnp.float32))

    def measure(mask, shift=0):
        return lambda: sensitivity(
            Embedding(nnx.Rngs(0)), ids, key=KEY, tokens=Positions(mask),
            noise=Replacement(np.arange(5) + shift), batch_size=64,
        )  # fmt: skip

    assert masks[0].sum(1).min() == masks[1].sum(1).min() == 2
    assert traces(measure(masks[0])) == 1
    assert traces(measure(masks[1]), measure(masks[0], 1)) == 0


def test_a_plain_function_is_traced_once_a_call():
    calls = []

    def model(x):
        calls.append(x.shape)
        return x.sum(1)

    for n in (1, 2):
        sensitivity(model, np.sign(X), key=KEY, tokens=Bits(), noise=Flip(), batch_size=32)
        assert calls == [(32, 6)] * n


def compiled(n, repeats, batch_size, sampled=None):
    """The program of a measurement of n images, as XLA compiled it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 8, 8, 3)).astype(np.float32)
    hidden = rng.normal(size=(192, 64)).astype(np.float32)
    model = jax.tree_util.Partial(lambda w, x: jnp.tanh(x.reshape(len(x), -1) @ w), hidden)
    draws = np.full((n, 16), repeats)
    draws[:, sampled:] = 0
    plan = Plan(np.arange(n), draws)
    _, call = next(plan.calls(batch_size, 2, plan.block(batch_size)))
    program = decide((inference(model),), Settings(Patches(2), Gaussian(1.0), 0))
    args = KEY, (x[call.chunk], None), call.offsets, call.rows, call.batches
    return program.func.lower(*program.args, *args).compile().memory_analysis()


@pytest.mark.parametrize("sampled", [16, 1])
def test_memory_is_bounded_by_batch_size(sampled):
    def total(memory):
        return (
            memory.temp_size_in_bytes
            + memory.argument_size_in_bytes
            + memory.output_size_in_bytes
        )  # fmt: skip

    small = compiled(20, 1, 32, sampled)
    assert small.temp_size_in_bytes >= 32 * 8 * 8 * 3 * 4 / 2  # it does hold the perturbed rows
    for n, repeats in ((2000, 1), (20, 200), (300, 30)):
        assert total(compiled(n, repeats, 32, sampled)) <= total(small)
    larger = compiled(20, 1, 256, sampled)
    assert larger.temp_size_in_bytes > 4 * small.temp_size_in_bytes


def test_the_default_batch_size_follows_the_activations(monkeypatch):
    """The largest array for each row, found by hand; a bound on a CPU, another elsewhere."""
    x = np.ones((4000, 6), np.float32)

    def rows(width):
        seen = []

        def model(x):
            seen.append(len(x))
            wide = jnp.tile(x, (1, width))  # float32 (rows, 6 width), and constants of any size
            return (wide @ jnp.ones((6 * width, 3))).astype(jnp.float32)

        sensitivity(model, x, key=KEY, tokens=Bits(), noise=Flip((0, 1)), decision="argmax")
        return seen[-1]

    assert rows(1) == 512
    assert rows(2**13) == 128  # 2^25 bytes over 6 * 2^13 * 4 is 170
    monkeypatch.setattr(_batch, "CPU_BYTES", 2**10)
    assert rows(2**4) == 8
