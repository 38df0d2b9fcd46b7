"""Inputs of layers inside a model: right, and without a trace on the model."""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxsens import models
from jaxsens.models.intermediates import with_intermediates

SIZES = {"image_size": 8, "patch_size": 4, "channels": 1, "classes": 3}
WIDTHS = {"depth": 2, "heads": 2, "dim": 8, "head_dim": 4, "mlp_dim": 8}


def test_inputs_of_every_layer_norm_under_jit_and_vmap():
    model = models.create("vit-simple", rngs=nnx.Rngs(0), **SIZES, **WIDTHS)
    images = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    logits, found = jax.jit(lambda m, x: with_intermediates(m, x))(model, images)
    np.testing.assert_allclose(logits, model(images), rtol=1e-5, atol=1e-6)
    blocks = [f"blocks.{i}.{norm}" for i in (0, 1) for norm in ("attention_norm", "mlp_norm")]
    assert set(found) == {"patch_norm", "embedding_norm", "norm", *blocks}
    # The input of the second block's first norm, computed by hand.
    embedded = model.embedding(model.patch_norm(found["patch_norm"]))
    np.testing.assert_allclose(found["embedding_norm"], embedded, rtol=1e-5, atol=1e-6)
    first = model.blocks[0](found["blocks.0.attention_norm"])
    np.testing.assert_allclose(found["blocks.1.attention_norm"], first, rtol=1e-5, atol=1e-6)
    each = jax.vmap(lambda image: with_intermediates(model, image[None])[1]["norm"][0])(images)
    np.testing.assert_allclose(each, found["norm"], rtol=1e-4, atol=1e-6)
    assert type(model.norm) is nnx.LayerNorm  # the model itself is left alone


class Twice(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(4, rngs=rngs)

    def method(self, x):
        return self.norm(2 * self.norm(x))


def test_a_method_and_a_layer_that_is_used_twice():
    model, x = Twice(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (2, 4))
    _, found = with_intermediates(model.method, x)
    np.testing.assert_array_equal(found["norm"], x)
    np.testing.assert_allclose(found["norm#2"], 2 * model.norm(x), rtol=1e-6)


def test_what_cannot_be_looked_into_is_one_line():
    with pytest.raises(TypeError, match=r"expected a flax.nnx module or a method of one"):
        with_intermediates(np.sin, 1.0)
    model = models.create("mlp", rngs=nnx.Rngs(0), hidden=(3,), **SIZES)
    with pytest.raises(ValueError, match="no LayerNorm"):
        with_intermediates(model, np.zeros((1, 8, 8, 1)))
