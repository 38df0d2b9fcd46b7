"""Modular addition and sparse parity: data, networks against NumPy, exact sensitivity."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxsens
from jaxsens import boolean
from jaxsens.data import DataError
from jaxsens.data.algorithmic import modular_addition, sparse_parity
from jaxsens.losses import accuracy, precise_cross_entropy
from jaxsens.models.bit_transformer import BitBlock, BitTransformer
from jaxsens.models.one_layer import OneLayerTransformer


def test_modular_addition_splits_all_pairs():
    train, test = modular_addition(113, train_fraction=0.3, key=jax.random.key(0))
    assert (len(train.labels), len(test.labels)) == (3830, 8939)
    pairs = np.concatenate([train.inputs, test.inputs])
    assert len({tuple(p) for p in pairs.tolist()}) == 113**2
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), pairs.sum(1) % 113)


def test_sparse_parity_is_the_product_of_its_places():
    train, test, places = sparse_parity(40, 4, train=500, test=100, key=jax.random.key(0))
    assert len(set(places)) == 4
    for split, count in ((train, 500), (test, 100)):
        assert split.inputs.shape == (count, 40)
        assert set(np.unique(split.inputs)) == {-1.0, 1.0}
        np.testing.assert_array_equal(
            split.labels, [np.prod([x[i] for i in places]) for x in split.inputs]
        )
    assert not np.array_equal(train.inputs[:100], test.inputs)


@pytest.mark.parametrize(("d", "p"), [(12, 3), (40, 4)])
def test_a_model_that_computes_the_parity_has_sensitivity_p_over_d(d, p):
    train, _, places = sparse_parity(d, p, train=50, test=1, key=jax.random.key(1))
    compute = jax.tree_util.Partial(
        lambda mask, x: jnp.where(mask[None], x, 1.0).prod(1),
        jnp.isin(jnp.arange(d), jnp.array(places)),
    )
    assert jnp.array_equal(compute(train.inputs), train.labels)
    estimate = jaxsens.sensitivity(
        compute, train.inputs, key=jax.random.key(0), tokens=jaxsens.Bits(), noise=jaxsens.Flip()
    )
    assert estimate.value == pytest.approx(p / d, rel=1e-15, abs=0)  # the last digit
    assert estimate.stderr == 0.0
    np.testing.assert_array_equal(np.flatnonzero(estimate.per_token), places)
    if d <= 16:
        table = boolean.evaluate(compute, d)
        np.testing.assert_array_equal(table, boolean.parity(d, places))
        assert boolean.normalised_sensitivity(table) == p / d


def test_sampled_sensitivity_agrees_with_the_exact_one():
    d = 9
    model = BitTransformer(bits=d, dim=8, heads=2, bits_per_token=3, rngs=nnx.Rngs(3))
    centre = np.median(run(model, boolean.cube(d)))
    centred = jax.tree_util.Partial(
        lambda m, c, x: m(x) - c, model, jnp.float32(centre)
    )  # else nearly constant
    exact = boolean.normalised_sensitivity(boolean.evaluate(lambda x: run(centred, x), d))
    assert exact > 0.05
    estimate = jaxsens.sensitivity(
        centred,
        np.asarray(jax.random.rademacher(jax.random.key(0), (1500, d)), np.float32),
        key=jax.random.key(1),
        tokens=jaxsens.Bits(),
        noise=jaxsens.Flip(),
        tokens_per_example=4,
    )
    assert abs(estimate.value - exact) < 4 * estimate.stderr


@jax.jit
def run(model, inputs):
    return model(inputs)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("start", ["published", "nanda"])
@pytest.mark.parametrize("residual", [False, True])
def test_one_layer_transformer_is_the_full_transformer_read_at_the_last_position(residual, start):
    model = OneLayerTransformer(
        modulus=7, dim=8, heads=2, hidden=12, residual=residual, start=start, rngs=nnx.Rngs(0)
    )
    rng = np.random.default_rng(0)
    biases = ("query_bias", "value_bias", "out_bias", "unembedding_bias")
    for name in ("positions", "up_bias", "down_bias", *(biases if start == "published" else ())):
        parameter = getattr(model, name)  # they start at 0, which would hide them
        parameter[...] = jnp.asarray(rng.normal(size=parameter[...].shape), jnp.float32)
    w = {k: np.asarray(v, np.float64) for k, v in nnx.to_pure_dict(nnx.state(model)).items()}
    affine = lambda x, name: x @ w[name] + w.get(name + "_bias", 0.0)  # noqa: E731
    pairs = np.array([[0, 0], [3, 5], [6, 1]])
    for pair, found in zip(pairs, run(model, pairs), strict=True):
        x = w["embedding"][[*pair, 7]] + w["positions"]
        q, k, v = (np.split(affine(x, name), 2, axis=1) for name in ("query", "key", "value"))
        heads = [softmax(a @ b.T / 2.0) @ c for a, b, c in zip(q, k, v, strict=True)]
        z = affine(np.concatenate(heads, axis=1), "out") + (x if residual else 0)
        out = affine(np.maximum(affine(z, "up"), 0), "down")
        logits = affine(out + (z if residual else 0), "unembedding")
        np.testing.assert_allclose(found, logits[-1], rtol=2e-4, atol=2e-4)


def test_the_published_start_has_pytorchs_scales():
    model = OneLayerTransformer(modulus=113, rngs=nnx.Rngs(0))
    w = {k: np.asarray(v) for k, v in nnx.to_pure_dict(nnx.state(model, nnx.Param)).items()}
    uniform = {
        "query": (1.5 / 128) ** 0.5, "key": (1.5 / 128) ** 0.5, "value": (1.5 / 128) ** 0.5,
        "out": 128**-0.5, "up": 128**-0.5, "up_bias": 128**-0.5, "down": 512**-0.5,
        "down_bias": 512**-0.5, "unembedding": 128**-0.5, "unembedding_bias": 128**-0.5,
    }  # fmt: skip
    for name, bound in uniform.items():
        assert np.abs(w[name]).max() <= bound
        spread = bound / 3**0.5
        # Kurtosis 1.8: the variance of n draws has a relative error of sqrt(0.8 / n).
        assert w[name].std() == pytest.approx(spread, rel=5 * (0.8 / w[name].size) ** 0.5 / 2)
    assert w["embedding"].std() == pytest.approx(1, abs=5 / (2 * 114 * 128) ** 0.5)
    for name in set(w) - set(uniform) - {"embedding"}:
        assert not w[name].any()
    norm = np.sqrt(sum(np.square(v.astype(float)).sum() for v in w.values()))
    assert norm == pytest.approx(122.6, abs=2)


@pytest.mark.parametrize("readout", ["cls", "mean"])
@pytest.mark.parametrize("bits_per_token", [1, 2])
def test_bit_transformer_is_a_plain_transformer(readout, bits_per_token):
    model = BitTransformer(
        bits=6, dim=8, heads=2, bits_per_token=bits_per_token, readout=readout, rngs=nnx.Rngs(0)
    )
    x = np.asarray(jax.random.rademacher(jax.random.key(0), (3, 6)), np.float32)

    def linear(layer, z):
        return z @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...])

    def norm(z):
        return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)

    np.testing.assert_allclose(model.by_token(jnp.asarray(x)), run(model, x), rtol=1e-4, atol=1e-5)
    for point, found in zip(x, run(model, x), strict=True):
        groups = point.reshape(-1, bits_per_token) @ np.asarray(model.embedding[...], np.float64)
        if readout == "cls":
            groups = np.concatenate([np.zeros((1, 8)), groups])
        h = groups + np.asarray(model.positions[...])
        for block in model.blocks:
            z = norm(h)
            q, k, v = (
                np.split(linear(layer, z), 2, axis=1)
                for layer in (block.query, block.key, block.value)
            )
            heads = [softmax(a @ b.T / 2.0) @ c for a, b, c in zip(q, k, v, strict=True)]
            h = h + linear(block.out, np.concatenate(heads, axis=1))
            h = h + linear(block.down, np.maximum(linear(block.up, norm(h)), 0))
        read = h[0] if readout == "cls" else h.mean(0)
        assert float(found) == pytest.approx(linear(model.head, norm(read))[0], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("gain", [0.5, 8.0])  # attention nearly even; scores 120 apart
def test_tokens_from_a_table_give_what_the_tokens_themselves_give(gain):
    block = BitBlock(8, heads=2, hidden=16, dropout=0.0, gain=gain, rngs=nnx.Rngs(0))
    table = jax.random.normal(jax.random.key(0), (5, 2, 8))
    second = jax.random.bernoulli(jax.random.key(1), shape=(20, 5))
    graphdef, weights = nnx.split(block)

    def from_table(weights, table):
        return nnx.merge(graphdef, weights).of_table(table, second)

    def directly(weights, table):
        x = jnp.where(second[..., None], table[None, :, 1], table[None, :, 0])
        return nnx.merge(graphdef, weights)(x)

    cotangent = jax.random.normal(jax.random.key(2), (20, 5, 8))

    def with_gradients(function):
        value, pull = jax.vjp(function, weights, table)
        return value, jax.tree.leaves(pull(cotangent))

    (expected, exact), (found, fast) = (
        jax.jit(with_gradients, static_argnums=0)(function) for function in (directly, from_table)
    )
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5 * abs(expected).max())
    scale = max(float(abs(leaf).max()) for leaf in exact)  # that of the keys' bias is exactly 0
    for one, other in zip(fast, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("bits_per_token", [1, 2])
def test_dropout_of_bits_acts_in_training_only(bits_per_token):
    arguments = {"bits": 6, "dim": 8, "heads": 2, "bits_per_token": bits_per_token}
    model = BitTransformer(**arguments, dropout=0.5, rngs=nnx.Rngs(0))
    points = jax.random.rademacher(jax.random.key(0), (4, 6)).astype(jnp.float32)
    draw = jax.jit(lambda seed: model(points, rngs=nnx.Rngs(dropout=jax.random.key(seed))))
    draws = [draw(seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).all()
    plain = BitTransformer(**arguments, rngs=nnx.Rngs(0))
    quiet = nnx.view(model, deterministic=True)
    np.testing.assert_array_equal(run(quiet, points), run(plain, points))


def test_the_weights_of_a_block_are_xaviers():
    """Uniform within b = gain (6 / (fan_in + fan_out))^1/2, so of variance b^2 / 3; biases 0."""
    block = BitBlock(64, heads=4, hidden=256, dropout=0.0, gain=0.5, rngs=nnx.Rngs(0))
    for layer in (block.query, block.out, block.up, block.down):
        weights, bound = np.asarray(layer.kernel[...]), 0.5 * np.sqrt(6 / sum(layer.kernel.shape))
        assert 0.99 * bound < abs(weights).max() <= bound * (1 + 1e-6)
        assert weights.var() == pytest.approx(bound**2 / 3, rel=0.05)
        assert not layer.bias[...].any()


@pytest.mark.parametrize("depth", [1, 2])
def test_a_value_that_is_no_bit_has_no_answer(depth):
    model = BitTransformer(bits=4, depth=depth, dim=8, heads=2, rngs=nnx.Rngs(0))
    points = jnp.array([[1.0, -1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1.5]])
    np.testing.assert_array_equal(np.isnan(run(model, points)), [False, True, True])


def test_noise_on_embeddings_reaches_one_number_at_a_time():
    model = OneLayerTransformer(modulus=5, dim=8, heads=2, hidden=8, rngs=nnx.Rngs(0))
    pairs = jnp.array([[1, 2], [3, 4], [0, 0]])
    np.testing.assert_allclose(model.from_embeddings(model.embed(pairs)), model(pairs), rtol=1e-6)
    estimate = jaxsens.sensitivity(
        model.from_embeddings,
        model.embed(pairs),
        key=jax.random.key(0),
        tokens=jaxsens.Positions(),
        noise=jaxsens.Gaussian(1e4),
        repeats=20,
    )
    assert estimate.per_token.shape == (2,)
    assert estimate.value > 0.3  # noise this large leaves nothing of a number


def test_precise_cross_entropy_keeps_losses_that_float32_rounds_away():
    logits = jnp.array([[30.0, 0.0, -1.0], [0.3, -0.2, 1.0], [-40.0, 0.0, 40.0]])
    labels = jnp.array([0, 2, 0])
    losses = precise_cross_entropy(logits, labels)
    wide = np.asarray(logits, np.float64)
    others = np.log([np.exp(np.delete(row, y)).sum() for row, y in zip(wide, labels, strict=True)])
    expected = np.logaddexp(0, others - wide[np.arange(3), labels])
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert optax.softmax_cross_entropy_with_integer_labels(logits, labels)[0] == 0.0 < losses[0]
    np.testing.assert_array_equal(accuracy(logits, labels), [1, 1, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: modular_addition(1, train_fraction=0.3, key=jax.random.key(0)), "at least 2"),
        (lambda: modular_addition(7, train_fraction=1.0, key=jax.random.key(0)), "between 0 and 1"),
        (lambda: sparse_parity(4, 4, train=1, test=1, key=jax.random.key(0)), "1 <= p < d"),
        (lambda: sparse_parity(4, 2, train=0, test=1, key=jax.random.key(0)), "at least one"),
    ],
)
def test_data_that_cannot_be_are_refused_in_one_line(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 30}, "does not divide into 4 heads"),
        ({"bits_per_token": 4}, "do not divide into tokens"),
        ({"readout": "last"}, "one of cls, mean"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1"),
        ({"gain": 0.0}, "gain must be a positive number, got 0"),
    ],
)
def test_networks_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BitTransformer(**{"bits": 6, **arguments}, rngs=nnx.Rngs(0))


def test_networks_refuse_other_shapes():
    with pytest.raises(ValueError, match=r"expected \(N, 6\)"):
        BitTransformer(bits=6, dim=8, rngs=nnx.Rngs(0))(jnp.ones((2, 5)))
    with pytest.raises(ValueError, match=r"expected \(N, 2\)"):
        OneLayerTransformer(modulus=5, dim=8, hidden=8, rngs=nnx.Rngs(0))(jnp.ones((2, 3), int))
