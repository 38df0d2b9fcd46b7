"""Every architecture against a plain PyTorch statement of it: same weights, same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsens import models

torch = pytest.importorskip("torch")
from witnesses import torch_convs, torch_vits  # noqa: E402
from witnesses.torch_weights import load, randomise, to_nnx, torch_path  # noqa: E402

# name -> (PyTorch class, what both take, widths). Small, but every branch is taken: several
# blocks, stages and heads, strides, shortcuts, transitions, and head_dim * heads != dim.
TOKENS = {"image_size": 8, "patch_size": 4, "channels": 3, "classes": 5}
PIXELS = {"image_size": 16, "channels": 3, "classes": 5}
CASES = {
    "vit": (
        torch_vits.ViTSmall,
        TOKENS,
        {"depth": 2, "heads": 3, "dim": 16, "head_dim": 8, "mlp_dim": 24},
    ),
    "vit-simple": (
        torch_vits.ViTSimple,
        TOKENS,
        {"depth": 2, "heads": 3, "dim": 16, "head_dim": 8, "mlp_dim": 24},
    ),
    "vit-ti16": (torch_vits.ViT, TOKENS, {"depth": 2, "heads": 2, "dim": 16, "mlp_dim": 24}),
    "convmixer": (torch_convs.ConvMixer, TOKENS, {"depth": 2, "dim": 12, "kernel_size": 3}),
    "resnet18": (torch_convs.ResNet, PIXELS, {"width": 6, "depths": (1, 2)}),
    "densenet121": (torch_convs.DenseNet, PIXELS, {"growth": 4, "depths": (2, 1)}),
    "cnn": (torch_convs.CNN, PIXELS, {"filters": 6, "hidden": 10}),
    "mlp": (torch_convs.MLP, PIXELS, {"hidden": (12, 9), "activation": "leaky_relu"}),
    "mlp-sigmoid": (torch_convs.MLP, PIXELS, {"hidden": (12, 9), "activation": "sigmoid"}),
    "convnextv2-atto": (torch_convs.ConvNeXtV2, PIXELS, {"depths": (1, 1), "widths": (8, 12)}),
}
WITH_BATCH_NORM = ("convmixer", "resnet18", "densenet121")


def build(case):
    """The PyTorch statement with generic weights, and our model with the same ones."""
    statement, sizes, widths = CASES[case]
    torch.manual_seed(0)
    reference = statement(**sizes, **widths)
    randomise(reference, seed=1)
    name = case.removesuffix("-sigmoid")
    model = models.create(name, rngs=nnx.Rngs(0), **{"patch_size": 4, **sizes}, **widths)
    load(model, reference)
    return reference, model


def images(case, n=4, seed=0):
    side = CASES[case][1]["image_size"]
    return np.random.default_rng(seed).normal(size=(n, side, side, 3)).astype(np.float32)


def as_torch(x):
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def inference(model):
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


def assert_same(got, expected, relative=1e-4):
    """Within 1e-4 of each value, or of a tenth of the largest where values cross zero."""
    expected = np.asarray(expected)
    floor = relative * 0.1 * np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(got), expected, rtol=relative, atol=floor)


@pytest.mark.parametrize("case", CASES)
def test_inference_logits_equal_pytorch(case):
    reference, model = build(case)
    x = images(case)
    with torch.no_grad():
        expected = reference.eval()(as_torch(x)).numpy()
    got = jax.jit(lambda m, x: m(x))(inference(model), x)
    assert got.dtype == jnp.float32
    # Logits of different images must differ, or agreement would say little.
    assert np.ptp(expected, axis=0).min() > 1e-3
    assert_same(got, expected, relative=1e-5)


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
    reference, model = build(case)
    reference.train()
    for module in reference.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    x, labels = images(case), np.array([0, 3, 1, 3])
    loss = torch.nn.functional.cross_entropy(reference(as_torch(x)), torch.from_numpy(labels))
    loss.backward()

    @jax.jit
    def step(model, x):
        def cross_entropy(model):
            logp = jax.nn.log_softmax(model(x))
            return -jnp.take_along_axis(logp, labels[:, None], axis=1).mean()

        value, gradient = nnx.value_and_grad(cross_entropy)(model)
        return value, gradient, nnx.state(model, nnx.BatchStat)

    value, gradient, statistics = step(
        nnx.view(model, deterministic=True, raise_if_not_found=False), x
    )
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    parameters = dict(reference.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in parameters.values())
    compared = 0
    for path, leaf in nnx.to_flat_state(nnx.state(gradient, nnx.Param)):
        expected = to_nnx(parameters[torch_path(path)].grad, leaf.shape)
        # A bias before a BatchNorm has gradient zero; what is left there is rounding.
        np.testing.assert_allclose(
            leaf[...], expected, rtol=1e-3, atol=2e-6 * largest, err_msg=str(path)
        )
        compared += 1
    assert compared == len(parameters)

    buffers = dict(reference.named_buffers())
    flat = nnx.to_flat_state(statistics)
    assert bool(len(flat)) == (case in WITH_BATCH_NORM)
    for path, leaf in flat:
        assert_same(leaf[...], buffers[torch_path(path)].numpy())


@pytest.mark.parametrize("case", CASES)
def test_layer_norm_epsilons_are_pytorchs(case):
    """Asked for directly: at the usual scale of activations logits hardly see an epsilon."""
    reference, model = build(case)
    theirs = {
        name: module.eps
        for name, module in reference.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
    }
    ours = {
        ".".join(str(part) for part in path): module.epsilon
        for path, module in nnx.iter_modules(model)
        if isinstance(module, nnx.LayerNorm)
    }
    assert ours == theirs


def test_dropout_falls_where_pytorch_puts_it(monkeypatch):
    """Same mask at the n-th dropout of both: ViT-small's logits agree, so places and order do."""
    reference, model = build("vit")
    calls = []

    def mask(shape):
        calls.append(shape)
        return np.random.default_rng(len(calls)).random(shape) >= 0.1

    monkeypatch.setattr(
        torch.nn.Dropout,
        "forward",
        lambda self, x: x * torch.from_numpy(mask(tuple(x.shape))) / 0.9,
    )
    x = images("vit")
    with torch.no_grad():
        expected = reference.train()(as_torch(x)).numpy()
    shapes = list(calls)
    calls.clear()
    monkeypatch.setattr(
        "jaxsens.models.layers.dropout.Dropout.__call__",
        lambda self, x, rngs: x * jnp.asarray(mask(x.shape)) / 0.9,
    )
    got = model(x)
    assert calls == shapes
    assert len(calls) == 1 + 2 * 4
    assert_same(got, expected)


def test_statistics_keep_following_pytorch_over_steps():
    """Three scanned training passes move running means and variances as PyTorch's do."""
    reference, model = build("convmixer")
    batches = [images("convmixer", seed=s) for s in range(3)]
    reference.train()
    with torch.no_grad():
        for batch in batches:
            reference(as_torch(batch))

    @jax.jit
    def run(model, batches):
        def step(model, batch):
            model(batch)
            return model, None

        return jax.lax.scan(step, model, batches)[0]

    trained = run(model, np.stack(batches))
    buffers = dict(reference.named_buffers())
    for path, leaf in nnx.to_flat_state(nnx.state(trained, nnx.BatchStat)):
        assert_same(leaf[...], buffers[torch_path(path)].numpy())
