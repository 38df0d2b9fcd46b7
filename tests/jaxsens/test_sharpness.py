"""Flatness against closed forms: a linear model, a quadratic loss, a two-way table."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.stats import norm

from jaxsens import curvature, sharpness
from jaxsens._weights import Weights, crossed, nudge

SIGMA = 0.3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)
W = RNG.normal(size=6).astype(np.float32)
EIGENVALUES = np.array([5.0, 2.0, 1.0, 0.5, 0.25])
BASIS = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
HESSIAN = (BASIS * EIGENVALUES) @ BASIS.T


def linear(weights, x):
    return x @ weights


def quadratic(model, inputs, labels):
    """1/2 w^T H w, with weights of mean 1 over the examples."""
    w = model.args[0]
    return labels * 0.5 * (w @ jnp.asarray(HESSIAN, w.dtype) @ w)


def part(w):
    return jax.tree_util.Partial(linear, jnp.asarray(w, jnp.float32))


def test_a_linear_model_moves_by_a_folded_normal_and_flips_by_its_margin():
    found = sharpness.outputs(part(W), X, key=jax.random.key(0), size=SIGMA, draws=800)
    lengths = SIGMA * np.linalg.norm(X, axis=1)
    # Each example apart: the change is |N(0, lengths^2)|, and the sign flips past the margin.
    wanted = lengths * np.sqrt(2 / np.pi)
    error = lengths * np.sqrt((1 - 2 / np.pi) / 800)
    assert (np.abs(found.change.mean(0) - wanted) < 5 * error).all()
    rates = norm.cdf(-np.abs(X @ W) / lengths)
    assert (
        np.abs(found.flips.mean(0) - rates) < 5 * np.sqrt(rates * (1 - rates) / 800) + 1e-9
    ).all()
    assert found.shop == pytest.approx(found.change.mean())
    assert found.shpred == pytest.approx(found.flips.mean())


def test_logits_are_averaged_or_summed():
    table = RNG.normal(size=(6, 4)).astype(np.float32)
    one, other = (
        sharpness.outputs(part(table), X, key=jax.random.key(0), draws=3, reduce=how)
        for how in ("mean", "sum")
    )
    np.testing.assert_allclose(4 * one.change, other.change, rtol=1e-5)


def test_neither_batches_nor_draws_held_at_once_change_a_value(monkeypatch):
    table = RNG.normal(size=(6, 4)).astype(np.float32)

    def run(**more):
        return sharpness.outputs(part(table), X, key=jax.random.key(1), draws=5, **more)

    whole = run()
    np.testing.assert_allclose(run(batch_size=7).change, whole.change, atol=2e-6)
    monkeypatch.setattr(sharpness, "AT_ONCE", 2 * table.nbytes)
    again = run(batch_size=11)
    np.testing.assert_allclose(again.change, whole.change, atol=2e-6)
    np.testing.assert_array_equal(again.flips, whole.flips)
    assert again.shop_stderr == pytest.approx(whole.shop_stderr, rel=1e-3)


def test_a_second_call_traces_nothing():
    traced = []

    def counted(weights, x):
        traced.append(x.shape)
        return x @ weights

    def loss(model, inputs, labels):
        return (model(inputs) - labels) ** 2

    after = []
    for number in range(2):
        model = jax.tree_util.Partial(counted, jnp.asarray(W + number))
        settings = {"key": jax.random.key(number), "size": 0.1 + number, "draws": 3}
        sharpness.outputs(model, X, **settings)
        sharpness.average_direction(loss, model, X, X[:, 0], **settings)
        after.append(len(traced))
    assert after[0] == after[1] > 0


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("std", 0.1, 0.5 * 0.01 * EIGENVALUES.sum()),
        ("norm", 0.4, 0.5 * 0.16 * EIGENVALUES.mean()),
        ("sphere", 0.4, 0.5 * 0.16 * EIGENVALUES.mean()),
    ],
)
def test_a_quadratic_loss_rises_by_half_the_trace(kind, size, expected):
    w = RNG.normal(size=5)
    labels = np.array([0.5, 1.5, 1.0])
    found = sharpness.average_direction(
        quadratic, part(w), X[:3], labels, key=jax.random.key(2), size=size, kind=kind, draws=20_000
    )
    draws = found.increase.mean(1)
    assert abs(found.value - expected) < 5 * draws.std() / len(draws) ** 0.5


def test_noise_relative_to_a_tensor_and_on_the_sphere():
    arrays = [jnp.full((400,), 3.0), jnp.full((30, 30), -0.5)]
    a, b = nudge(arrays, jax.random.key(0), size=0.1, kind="relative")
    assert float(a.std()) == pytest.approx(0.3, rel=0.15)
    assert float(b.std()) == pytest.approx(0.05, rel=0.1)
    flat = jnp.concatenate(
        [n.ravel() for n in nudge(arrays, jax.random.key(0), size=2.0, kind="sphere")]
    )
    assert float(jnp.linalg.norm(flat)) == pytest.approx(2, rel=1e-5)


def test_the_worst_direction_and_the_largest_curvature_of_a_quadratic():
    labels = np.array([0.5, 1.5, 1.0])
    zero = part(np.zeros(5))
    settings = {"key": jax.random.key(3), "batch_size": 2}
    rise = curvature.worst_case(quadratic, zero, X[:3], labels, radius=0.2, steps=30, **settings)
    assert rise == pytest.approx(0.5 * 5.0 * 0.04, rel=1e-3)
    largest = curvature.hessian_eigenvalue(
        quadratic, part(RNG.normal(size=5)), X[:3], labels, **settings
    )
    assert largest == pytest.approx(5.0, rel=1e-3)


def test_the_error_covers_draws_and_examples_as_crossed_clusters():
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        table = (
            2 + 0.5 * rng.normal(size=(8, 1)) + rng.normal(size=(1, 25)) + rng.normal(size=(8, 25))
        )
        mean, error = crossed(table)
        covered.append(abs(mean - 2) < 1.96 * error)
    assert 0.88 < np.mean(covered) < 0.98  # one error of all 200 values would cover 45 %
    assert np.isnan(crossed(np.ones((1, 4)))[1])


def test_only_parameters_are_nudged_and_the_callers_module_is_not_touched():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(6, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs))
    before = jax.tree.map(np.asarray, jax.tree.leaves(model))
    weights = Weights(model)
    assert not any("mean" in path or "var" in path for path in weights.paths)
    named = Weights(model, where=lambda path, leaf: path.endswith("kernel"))
    assert set(p.split(".")[-1] for p in named.paths) == {"kernel"}
    sharpness.outputs(model, X[:2], key=jax.random.key(0), draws=1)
    for a, b in zip(before, jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout_of_the_nudged_model_is_drawn_for_each_draw_where_asked_for():
    model = nnx.Sequential(
        nnx.Linear(6, 32, rngs=nnx.Rngs(0)), nnx.Dropout(0.5), nnx.Linear(32, 3, rngs=nnx.Rngs(1))
    )

    def training(net, x, key):
        return net(x, rngs=nnx.Rngs(dropout=key))

    settings = {"key": jax.random.key(0), "size": 1e-7, "draws": 4}
    still = sharpness.outputs(model, X, **settings)
    moved = sharpness.outputs(model, X, nudged=training, **settings)
    assert still.shop < 1e-4 < 1e-2 < moved.shop
    assert (moved.change[0] != moved.change[1]).any()


def test_an_equinox_module_serves():
    single = eqx.nn.MLP(6, 3, 8, 1, key=jax.random.key(0))
    model = jax.tree_util.Partial(lambda net, x: jax.vmap(net)(x), single)
    found = sharpness.outputs(model, X, key=jax.random.key(0), draws=2)
    assert found.change.shape == (2, 40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0.0}, "size must be finite and greater than 0"),
        ({"kind": "gaussian"}, "kind must be one of std, relative, norm, sphere"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"reduce": "max"}, "reduce must be mean or sum"),
        ({"where": lambda path, leaf: False}, "no weights to nudge"),
    ],
)
def test_arguments_that_cannot_be_are_one_line(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        sharpness.outputs(part(W), X, **{"key": jax.random.key(0), **change})
    assert "\n" not in str(caught.value)


def test_outputs_that_are_nan_are_one_line():
    with pytest.raises(ValueError, match="NaN for draw 0 and example 0; make size"):
        sharpness.outputs(part(W * np.nan), X, key=jax.random.key(0))
