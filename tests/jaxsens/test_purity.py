"""Is the model a deterministic function of each row: what the check finds, what it lets be."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens._decision import judge
from jaxsens._purity import check_rows, other_company, rounding

N, EACH, BATCH = 24, 8, 32  # examples, rows of each, rows of a batch
X = np.random.default_rng(0).normal(size=(N * EACH, 6)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
PLACES = np.repeat(np.arange(N), EACH)
KEEP = jnp.asarray(np.random.default_rng(2).random((512, 6)) < 0.5)
CALLS = itertools.count()


def batch_norm(x):
    return (x - x.mean(0)[None]) / jnp.sqrt(x.var(0) + 1e-5)[None] @ W


def dropout(x):
    return jnp.where(KEEP[: len(x)], 2 * x, 0) @ W


def random(x):
    noise = jax.random.normal(jax.random.key(next(CALLS)), (len(x), 1))
    return x @ W + 0.1 * noise * jnp.arange(3.0)[None]


def capacity(x):
    """Sends the first rows alone to an expert, as routers with a capacity do."""
    return jnp.where(jnp.arange(len(x))[:, None] < len(x) - 3, x @ W, x @ -W)


def transposed(x):
    return jnp.roll(x, 1, axis=0) @ W


def quantised(x):
    scale = jnp.abs(x).max() / 7  # over the batch
    return jnp.round(x / scale) @ W


IMPURE = {
    batch_norm: "other rows of the batch",
    dropout: "place in the batch",
    random: "second time",
    capacity: "place in the batch",
    transposed: "place in the batch",
    lambda x: x @ W - (x @ W).mean(0)[None]: "other rows",
    lambda x: x[:, 0] + 0.05 * x[:, 0].mean(): "other rows",
    quantised: "other rows",
    lambda x: jnp.argmax(batch_norm(x), 1): "other rows",
}
PURE = {
    "linear": lambda x: x @ W,
    "far from zero": lambda x: x @ W + 1000,
    "scalar": lambda x: x @ W[:, 0],
    "labels": lambda x: jnp.argmax(x @ W, 1) == 1,
    "layer norm": lambda x: (x - x.mean(1, keepdims=True)) @ W,
    "infinite": lambda x: jnp.where(x[:, :1] > 1, jnp.inf, x[:, 0:1])[:, 0],
    "constant": lambda x: jnp.ones((len(x), 2)),
    "zero": lambda x: jnp.zeros(len(x)),
}


def check(model, batch=BATCH, decision=None, eps=2.0**-23, noise=0.0, x=X, places=PLACES):
    rng = np.random.default_rng(3)

    def run(index):
        outputs = model(jnp.asarray(x[index]))
        if noise:
            outputs = outputs * (1 + noise * jnp.asarray(rng.normal(size=outputs.shape)))
        found = judge(outputs.astype(jnp.float32) if noise else outputs, decision)
        return type(found)(*map(np.asarray, found))

    parts = [run(part) for part in np.array_split(np.arange(len(x)), max(1, len(x) // batch))]
    joined = [np.concatenate(column) for column in list(zip(*parts, strict=True))[:3]]
    recorded = type(parts[0])(*joined, parts[0].reading)
    check_rows(run, recorded, places, batch, block=6, eps=eps)


@pytest.mark.parametrize("model", IMPURE, ids=lambda m: m.__name__)
def test_impure(model):
    with pytest.raises(ValueError, match=IMPURE[model]) as caught:
        check(model)
    assert len(str(caught.value)) < 240


@pytest.mark.parametrize("batch", [2, 3, 7])
@pytest.mark.parametrize("model", [batch_norm, dropout])
def test_impure_in_small_batches(model, batch):
    with pytest.raises(ValueError, match="batch"):
        check(model, batch)


@pytest.mark.parametrize("model", [batch_norm, dropout])
def test_impure_where_one_batch_holds_everything(model):
    with pytest.raises(ValueError, match="batch"):
        check(model, 4 * EACH, x=X[: 4 * EACH], places=PLACES[: 4 * EACH])


@pytest.mark.parametrize("name", PURE)
@pytest.mark.parametrize("batch", [1, 2, 32])
def test_pure(name, batch):
    check(PURE[name], batch)


def test_rounding_is_no_dependence_and_half_precision_hides_no_training_mode():
    check(lambda x: x @ W, noise=1e-6)
    check(lambda x: x @ W, noise=4e-3, eps=2.0**-7)
    check(lambda x: x @ W + 10, noise=4e-3, eps=2.0**-7)
    for model in (batch_norm, dropout):
        with pytest.raises(ValueError, match=r"batch|second time"):
            check(model, noise=4e-3, eps=2.0**-7)


def test_a_users_decision():
    def decision(flip):
        from jaxsens._decision import Own

        return Own(lambda out: jnp.argmax(out, 1) + flip * (jnp.arange(len(out)) % 2))

    check(lambda x: x @ W, decision=decision(0))
    with pytest.raises(ValueError, match="place in the batch"):
        check(lambda x: x @ W, decision=decision(1))


@pytest.mark.parametrize("size", [1, 2, 5, 32, 100])
def test_other_company(size):
    index = other_company(PLACES, size, block=3)
    assert index.shape == (size,)
    assert len(np.unique(PLACES[index])) <= 3
    if size == 32:
        values, counts = np.unique(index, return_counts=True)
        assert (counts.max(), len(values)) == (9, 24)


def test_the_coarsest_rounding():
    def eps(function, x, backend="cpu"):
        return rounding(jax.make_jaxpr(function)(x).jaxpr, backend)

    half = lambda x: (x.astype(jnp.bfloat16) @ W.astype(jnp.bfloat16)).astype(jnp.float32)  # noqa: E731
    nested = lambda x: jax.lax.fori_loop(0, 2, lambda i, y: y + half(x), jnp.zeros((5, 3)))  # noqa: E731
    x = jnp.ones((5, 6))
    assert eps(lambda x: x @ W, x) == 2.0**-23
    assert eps(half, x) == eps(jax.jit(nested), x) == 2.0**-7
    assert eps(lambda x: x @ W, x, "gpu") == 2.0**-10
    with jax.default_matmul_precision("highest"):
        assert eps(lambda x: x @ W, x, "gpu") == 2.0**-23
