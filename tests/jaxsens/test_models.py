"""Models: published parameter counts, behaviour under JAX's transformations, and errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from jaxsens import models
from jaxsens.models.convnextv2 import GlobalResponseNorm
from jaxsens.models.layers import (
    BatchNorm,
    DepthwiseConv,
    Dropout,
    fan_in_uniform,
    he_normal,
    normal_002,
    random_bits,
)

CIFAR = {"image_size": 32, "patch_size": 4, "channels": 3, "classes": 10}
IMAGENET = {"image_size": 224, "patch_size": 16, "channels": 3, "classes": 1000}
FASHION = {"image_size": 28, "patch_size": 4, "channels": 1, "classes": 10}

# Small enough to compile quickly; every family once.
SMALL = {
    "vit": {"depth": 1, "heads": 2, "dim": 8, "head_dim": 4, "mlp_dim": 8},
    "vit-simple": {"depth": 1, "heads": 2, "dim": 8, "head_dim": 4, "mlp_dim": 8},
    "vit-ti16": {"depth": 1, "heads": 2, "dim": 8, "mlp_dim": 8},
    "convmixer": {"depth": 1, "dim": 4},
    "resnet18": {"width": 4, "depths": (1, 1)},
    "densenet121": {"growth": 4, "depths": (1, 1)},
    "cnn": {"filters": 4, "hidden": 8},
    "mlp": {"hidden": (8,)},
    "convnextv2-atto": {"depths": (1,), "widths": (8,)},
}


def small(name, seed=0, **more):
    sizes = {"image_size": 8, "patch_size": 4, "channels": 2, "classes": 3}
    return models.create(name, rngs=nnx.Rngs(seed), **sizes, **SMALL[name], **more)


def images(n=4, seed=0):
    return jax.random.normal(jax.random.key(seed), (n, 8, 8, 2))


def train(model, x, key):
    """One training pass: logits and the statistics it leaves behind."""
    logits = model(x, rngs=nnx.Rngs(dropout=key))
    return logits, nnx.state(model, nnx.BatchStat)


def inference(model):
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


@pytest.mark.parametrize(
    ("name", "sizes", "widths", "count"),
    [
        ("vit", CIFAR, {}, 4_482_482),
        ("vit-simple", CIFAR, {}, 1_975_210),
        ("convmixer", CIFAR, {}, 117_642),
        ("resnet18", CIFAR, {}, 11_173_962),
        ("densenet121", CIFAR, {}, 6_956_426),
        ("vit-l16", IMAGENET, {}, 304_326_632),
        ("vit-ti16", IMAGENET, {}, 5_717_416),
        ("convnextv2-tiny", IMAGENET, {}, 28_635_496),
        ("convnextv2-atto", IMAGENET, {}, 3_708_400),
        ("mlp", FASHION, {}, 784 * 512 + 512 + 512 * 128 + 128 + 128 * 10 + 10),
        ("cnn", FASHION, {}, 9 * 32 + 32 + 9 * 32**2 + 32 + 12**2 * 32 * 128 + 128 + 1290),
    ],
)
def test_parameter_count_is_the_published_one(name, sizes, widths, count):
    shapes = jax.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **sizes, **widths))
    leaves = jax.tree.leaves(nnx.state(shapes, nnx.Param))
    assert sum(leaf.size for leaf in leaves) == count
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)


def test_every_family_is_tested_here():
    assert {models._ARCHITECTURES[name][0] for name in SMALL} == {
        family for family, _ in models._ARCHITECTURES.values()
    } - {models.LSTM, models.RoBERTa, models.GPT2}  # of text: test_models_language.py


@pytest.mark.parametrize("name", SMALL)
def test_seeds_stacked_and_vmapped_equal_each_alone(name):
    seeds = [small(name, seed) for seed in range(2)]
    assert len({jax.tree.structure(model) for model in seeds}) == 1
    x, keys = images(), jax.random.split(jax.random.key(1))
    traces = []

    @jax.jit
    def alone(model, key):
        traces.append(name)
        return train(model, x, key)

    each = [alone(model, key) for model, key in zip(seeds, keys, strict=True)]
    assert len(traces) == 1
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    together = jax.jit(jax.vmap(alone))(stacked, keys)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    assert jax.tree.structure(together) == jax.tree.structure(expected)
    for got, wanted in zip(jax.tree.leaves(together), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    # The seeds differ, or their agreement would be that of one model with itself.
    assert float(jnp.ptp(together[0], axis=0).max()) > 1e-3


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_computes_the_same_function_coarsely(name):
    x = images()
    exact, coarse = (
        jax.jit(lambda m, x: m(x))(inference(small(name, dtype=dtype)), x)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert coarse.dtype == jnp.float32
    assert float(jnp.abs(coarse - exact).max()) < 0.05 * float(jnp.abs(exact).max())
    assert float(jnp.abs(coarse - exact).max()) > 0  # bfloat16 was used at all


@pytest.mark.parametrize("name", SMALL)
def test_leaves_split_and_merge(name):
    model = small(name)
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)
    assert all(isinstance(v, nnx.BatchStat) for _, v in nnx.to_flat_state(rest))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(model))
    again = nnx.merge(graph, parameters, rest)
    np.testing.assert_array_equal(inference(again)(images()), inference(model)(images()))
    assert model.__class__ is again.__class__


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    layer, ones = Dropout(0.1), jnp.ones((1000, 1000))
    kept = layer(ones, nnx.Rngs(dropout=3))
    assert set(np.unique(kept).tolist()) == {0.0, float(jnp.float32(1) / jnp.float32(0.9))}
    share, error = float((kept == 0).mean()), math.sqrt(0.1 * 0.9 / ones.size)
    assert abs(share - 0.1) < 5 * error
    assert float((layer(ones, nnx.Rngs(dropout=4)) != kept).mean()) > 0.1


def test_mask_bits_pass_for_independent():
    """Every bit is fair, and unrelated to its neighbours, to other bits and to nearby keys.

    Under independence each agreement count is Binomial(n, 1/2), and one of the 3600 compared here
    leaves 5 standard deviations by chance for two keys in a thousand.
    """
    n, limit = 2**16, 5 * 0.5 / 2**8
    ours, next_key = (
        (np.asarray(random_bits(jax.random.key(k), (n,)))[:, None] >> np.arange(32)) & 1
        for k in (0, 1)
    )
    assert np.abs(ours.mean(0) - 0.5).max() < limit
    sign, other = (np.float32(1 - 2 * bits) for bits in (ours, next_key))
    for shifted in (np.roll(sign, 1, axis=0), np.roll(sign, 64, axis=0), other):
        assert np.abs(sign.T @ shifted / n).max() < 2 * limit
    assert np.abs(np.triu(sign.T @ sign / n, 1)).max() < 2 * limit


def test_dropout_acts_in_training_only_and_follows_its_key():
    model, x = small("vit", dropout=0.5, embedding_dropout=0.5), images()
    run = jax.jit(lambda m, seed: train(m, x, jax.random.key(seed))[0])
    first, again, other = run(model, 0), run(model, 0), run(model, 1)
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 1e-3
    assert float(jnp.abs(first - inference(model)(x)).max()) > 1e-3
    none = small("vit", dropout=0.0, embedding_dropout=0.0)
    np.testing.assert_allclose(run(none, 0), inference(none)(x), rtol=1e-5, atol=1e-6)


def test_training_without_a_dropout_stream_says_what_to_pass():
    with pytest.raises(ValueError, match=r"rngs=nnx.Rngs\(dropout=key\)"):
        small("vit")(images())


@given(
    scale=st.floats(0.1, 10), shift=st.floats(-5, 5), n=st.integers(2, 6), seed=st.integers(0, 99)
)
def test_batch_norm_forgets_scale_and_shift_and_moves_a_tenth(scale, shift, n, seed):
    """Training output is that of the standardised batch; statistics move by 1/10, unbiased."""
    x = np.random.default_rng(seed).normal(size=(n, 3, 3, 2)).astype(np.float32) * scale + shift
    layer = BatchNorm(2, dtype=jnp.float32)
    y = np.asarray(layer(jnp.asarray(x)))
    rows, wide = y.reshape(-1, 2), x.reshape(-1, 2).astype(np.float64)
    standard = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5)
    np.testing.assert_allclose(rows, standard, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(layer.mean[...], 0.1 * wide.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * wide.var(0, ddof=1), rtol=1e-4)


def test_batch_norm_epsilon_is_pytorchs():
    x = jnp.float32(1e-5**0.5) * jnp.array([[-1.0], [1.0]])
    y = BatchNorm(1, dtype=jnp.float32)(x)
    np.testing.assert_allclose(y, [[-(0.5**0.5)], [0.5**0.5]], rtol=1e-5)


@given(size=st.integers(1, 5), seed=st.integers(0, 99))
def test_depthwise_equals_a_grouped_convolution(size, seed):
    layer = DepthwiseConv(3, size, rngs=nnx.Rngs(seed), dtype=jnp.float32)
    x = jax.random.normal(jax.random.key(seed), (2, 6, 6, 3))
    expected = jax.lax.conv_general_dilated(
        x,
        layer.kernel[...],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    np.testing.assert_allclose(
        layer(x), expected + layer.bias[...][None, None, None], rtol=1e-4, atol=1e-5
    )


def test_response_norm_has_a_gradient_at_a_dead_channel():
    layer = GlobalResponseNorm(2, dtype=jnp.float32)
    layer.gamma[...] = jnp.ones(2)
    x = jnp.zeros((1, 3, 3, 2)).at[..., 0].set(1.0)
    assert bool(jnp.isfinite(jax.grad(lambda x: layer(x).sum())(x)).all())


@pytest.mark.parametrize(
    ("init", "deviation", "bound"),
    [
        (fan_in_uniform, 288**-0.5 / 3**0.5, 288**-0.5),  # U(-b, b) has deviation b / sqrt(3)
        (he_normal, (2 / 288) ** 0.5, math.inf),
        (normal_002, 0.02, math.inf),
    ],
)
def test_initial_weights_are_spread_as_stated(init, deviation, bound):
    kernel = init(jax.random.key(0), (3, 3, 32, 64))
    assert kernel.shape == (3, 3, 32, 64)
    assert float(kernel.std()) == pytest.approx(deviation, rel=0.02)
    assert abs(float(kernel.mean())) < 5 * deviation / math.sqrt(kernel.size)
    assert float(jnp.abs(kernel).max()) <= bound


def test_initial_biases_follow_the_fan_in_of_their_weight():
    layer = models.create("mlp", rngs=nnx.Rngs(0), **CIFAR, hidden=(400,)).hidden[0]
    bound = 3072**-0.5
    assert float(jnp.abs(layer.bias[...]).max()) <= bound
    assert float(layer.bias[...].std()) == pytest.approx(bound / math.sqrt(3), rel=0.15)


@pytest.mark.parametrize(
    ("error", "name", "changes", "said"),
    [
        (ValueError, "vit-huge", {}, "no model is called 'vit-huge': expected one of cnn"),
        (ValueError, "vit", {"patch_size": 5}, "image_size 32 does not divide into patches of 5"),
        (TypeError, "mlp", {"depth": 3}, "no width 'depth': expected one of hidden, activation"),
        (TypeError, "cnn", {"patch": 3}, "no width 'patch': expected one of filters, hidden"),
        (ValueError, "vit", {"depth": 0}, "depth is 0: expected a positive integer"),
        (ValueError, "resnet18", {"classes": -1}, "classes is -1: expected a positive integer"),
        (TypeError, "vit", {"heads": 2.0}, "heads is 2.0: expected a positive integer"),
        (TypeError, "vit", {"depth": True}, "depth is True: expected a positive integer"),
        (ValueError, "vit", {"dropout": 1.0}, r"dropout is 1.0: expected a number in \[0, 1\)"),
        (TypeError, "vit", {"dropout": "0.1"}, "dropout is '0.1'"),
        (ValueError, "mlp", {"hidden": (8, 0)}, "hidden is 0: expected a positive integer"),
        (TypeError, "mlp", {"hidden": 8}, "hidden is 8: expected a tuple of positive integers"),
        (ValueError, "mlp", {"activation": "gelu"}, "expected one of leaky_relu, sigmoid"),
        (ValueError, "vit-l16", {"heads": 3}, "dim 1024 does not divide into 3 heads"),
        (ValueError, "vit-simple", {"dim": 10}, "dim is 10: expected a multiple of 4"),
        (ValueError, "cnn", {"image_size": 4}, "image_size is 4: expected at least 6"),
        (ValueError, "densenet121", {"image_size": 8}, "cannot be halved 4 times"),
        (ValueError, "convnextv2-tiny", {"image_size": 48}, "expected a multiple of 32"),
        (ValueError, "convnextv2-tiny", {"depths": (1,)}, "expected the same"),
        (ValueError, "vit", {"dtype": jnp.float16}, "dtype is float16: expected float32 or"),
    ],
)
def test_create_refuses_in_one_line(error, name, changes, said):
    with pytest.raises(error, match=said) as caught:
        models.create(name, rngs=nnx.Rngs(0), **{**CIFAR, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SMALL)
def test_images_of_another_shape_are_refused_in_one_line(name):
    model = inference(small(name))
    for shape in ((4, 2, 8, 8), (4, 8, 8, 3), (8, 8, 2)):
        with pytest.raises(ValueError, match=r"expected \(N, 8, 8, 2\)") as caught:
            model(jnp.zeros(shape))
        assert "\n" not in str(caught.value)
