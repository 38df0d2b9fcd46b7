"""Every architecture of images against a plain PyTorch statement of it: same weights, same numbers.

PyTorch's answers are kept (`witnesses.references`), so that it need not be there.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from witnesses.references import (
    assert_gradients,
    load,
    manifest,
    named,
    reference,
    torch_path,
    weights,
)
from witnesses.vision_cases import CASES, LABELS, images, mask

from jaxsens import models

WITH_BATCH_NORM = ("convmixer", "resnet18", "densenet121")


def build(case):
    """Our model with the weights of PyTorch's statement, and images for it."""
    _, _, sizes, widths = CASES[case]
    name = case.removesuffix("-sigmoid")
    model = models.create(name, rngs=nnx.Rngs(0), **{"patch_size": 4, **sizes}, **widths)
    return load(model, weights(manifest(case))), images(sizes["image_size"])


def inference(model):
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


def assert_same(got, expected, relative=1e-4):
    """Within 1e-4 of each value, or of a tenth of the largest where values cross zero."""
    floor = relative * 0.1 * np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(got), expected, rtol=relative, atol=floor)


@pytest.mark.parametrize("case", CASES)
def test_inference_logits_equal_pytorch(case):
    model, x = build(case)
    expected = reference(f"{case}/logits")
    got = jax.jit(lambda m, x: m(x))(inference(model), x)
    assert got.dtype == jnp.float32
    # Logits of different images must differ, or agreement would say little.
    assert np.ptp(expected, axis=0).min() > 1e-3
    assert_same(got, expected, relative=2e-5)


# The gradient of two unrolled 7x7 kernels takes longer to compile than all other cases.
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] if case.startswith("convnext") else [])
        for case in CASES
    ],
)
def test_training_gradients_and_statistics_equal_pytorch(case):
    """One training pass without dropout: gradient of every weight, and the BatchNorm update."""
    model, x = build(case)

    @jax.jit
    def step(model, x):
        def cross_entropy(model):
            logp = jax.nn.log_softmax(model(x))
            return -jnp.take_along_axis(logp, LABELS[:, None], axis=1).mean()

        value, gradient = nnx.value_and_grad(cross_entropy)(model)
        return value, gradient, nnx.state(model, nnx.BatchStat)

    value, gradient, statistics = step(
        nnx.view(model, deterministic=True, raise_if_not_found=False), x
    )
    np.testing.assert_allclose(value, reference(f"{case}/loss"), rtol=1e-5)
    # A bias before a BatchNorm has gradient zero; what is left there is rounding.
    assert_gradients(case, nnx.state(gradient, nnx.Param), least=2e-2, relative=3e-4)

    moved = named(case, "statistics")
    assert bool(moved) == (case in WITH_BATCH_NORM)
    for path, leaf in nnx.to_flat_state(statistics):
        assert_same(leaf[...], moved.pop(torch_path(path)))
    assert not moved


@pytest.mark.parametrize("case", CASES)
def test_layer_norm_epsilons_are_pytorchs(case):
    """Asked for directly: at the usual scale of activations logits hardly see an epsilon."""
    model, _ = build(case)
    ours = {
        ".".join(str(part) for part in path): module.epsilon
        for path, module in nnx.iter_modules(model)
        if isinstance(module, nnx.LayerNorm)
    }
    assert ours == json.loads(str(reference(f"{case}/epsilons")))


def test_dropout_falls_where_pytorch_puts_it(monkeypatch):
    """Same mask at the n-th dropout of both: ViT-small's logits agree, so places and order do."""
    model, x = build("vit")
    calls = []

    def drop(self, x, rngs):
        calls.append(list(x.shape))
        return x * jnp.asarray(mask(len(calls), x.shape)) / 0.9

    monkeypatch.setattr("jaxsens.models.layers.dropout.Dropout.__call__", drop)
    got = model(x)
    assert calls == json.loads(str(reference("vit/dropout shapes")))
    assert len(calls) == 1 + 2 * 4
    assert_same(got, reference("vit/dropout logits"))


def test_statistics_keep_following_pytorch_over_steps():
    """Three scanned training passes move running means and variances as PyTorch's do."""
    model, _ = build("convmixer")
    batches = np.stack([images(CASES["convmixer"][2]["image_size"], seed=s) for s in range(3)])

    @jax.jit
    def run(model, batches):
        def step(model, batch):
            model(batch)
            return model, None

        return jax.lax.scan(step, model, batches)[0]

    moved = named("convmixer", "three steps")
    for path, leaf in nnx.to_flat_state(nnx.state(run(model, batches), nnx.BatchStat)):
        assert_same(leaf[...], moved.pop(torch_path(path)))
    assert not moved
