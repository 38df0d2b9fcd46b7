"""Published layouts give the logits of PyTorch; every other file is one line and no model."""

import json
import math
import shlex
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from witnesses import vision_cases
from witnesses.references import manifest, reference, weights
from witnesses.small_weights import (
    SIZES,
    abstract,
    npz,
    refused,
    safetensors,
    vit_arrays,
)
from witnesses.vision_cases import IMAGENET, LAYOUTS, PUBLISHED

from jaxsens import models
from jaxsens.weights import WeightsError, pretrained
from jaxsens.weights.pretrained import load_pretrained


def agree(model, images, wanted):
    """Logits of both within 1e-4 of their scale, and not constant over images or classes."""
    got = np.asarray(jax.jit(lambda m, x: m(x))(model, images))
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(got, wanted, atol=1e-4 * scale, rtol=0)
    assert np.ptp(wanted, axis=0).max() > 0.01 * scale
    assert np.ptp(wanted, axis=1).min() > 0.1 * scale


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_are_those_of_pytorch(tmp_path, layout):
    """Its answers for every layout are kept."""
    arrays = weights(manifest(layout))
    shapes = abstract(LAYOUTS[layout][0])
    model = load_pretrained(shapes, safetensors(tmp_path / "w.safetensors", arrays))
    agree(model, vision_cases.images(SIZES["image_size"], n=2), reference(f"{layout}/logits"))
    same = load_pretrained(shapes, npz(tmp_path / "w.npz", arrays))
    for leaf, other in zip(jax.tree.leaves(model), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(leaf, other)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["timm ViT", "timm ConvNeXt, 1x1", "Facebook ConvNeXt"])
def test_logits_are_those_of_pytorch_at_full_size(tmp_path, layout):
    torch = pytest.importorskip("torch")
    from witnesses import make_references, torch_timm

    name, statement, more = LAYOUTS[layout]
    network = getattr(torch_timm, statement)(**IMAGENET, **PUBLISHED[name], **more)
    make_references.fill(network)
    arrays = {k: v.numpy() for k, v in network.state_dict().items()}
    path = safetensors(tmp_path / "weights.safetensors", arrays)
    shapes = nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **IMAGENET))
    images = vision_cases.images(224, n=2)
    with torch.no_grad():
        wanted = network.eval()(make_references.nchw(images)).numpy()
    agree(load_pretrained(shapes, path), images, wanted)


@pytest.mark.parametrize(
    ("name", "arrays", "count"),
    [
        ("vit-l16", 296, 304_326_632),
        ("vit-ti16", 152, 5_717_416),
        ("convnextv2-tiny", 200, 28_635_496),
        ("convnextv2-atto", 140, 3_708_400),
    ],
)
def test_a_published_file_of_full_size_fits_by_its_shapes(tmp_path, name, arrays, count):
    """A sparse file with the published names and shapes: nothing of it is read but the header."""
    entries, end = {}, 0
    for key, shape in manifest(f"published {name}").items():
        offsets = [end, end + 4 * math.prod(shape)]
        entries[key] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        end = offsets[1]
    assert (len(entries), end) == (arrays, 4 * count)
    # Something no array of the model has, after everything else: found only when all else fits.
    entries["zzz"] = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}
    text = json.dumps(entries).encode()
    path = tmp_path / "weights.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end + 4)
    shapes = nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **IMAGENET))
    with pytest.raises(WeightsError, match=r"has an array 'zzz' .*\(1 such arrays in all\)"):
        load_pretrained(shapes, path)


def test_the_given_model_is_left_alone_and_half_precision_is_exact(tmp_path):
    arrays = weights(manifest("timm ViT"))
    given = load_pretrained(
        abstract("vit-ti16"), safetensors(tmp_path / "given.safetensors", vit_arrays())
    )
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(given)]
    for dtype in (np.float16, jnp.bfloat16):
        coarse = {k: v.astype(dtype) for k, v in arrays.items()}
        model = load_pretrained(given, safetensors(tmp_path / "w.safetensors", coarse))
        np.testing.assert_array_equal(
            model.blocks[1].up.kernel[...], coarse["blocks.1.mlp.fc1.weight"].T.astype(np.float32)
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("float32")}
    for leaf, old in zip(jax.tree.leaves(given), before, strict=True):
        np.testing.assert_array_equal(leaf, old)


def changed(**arrays):
    """The ViT's arrays with some replaced, or removed where None."""
    merged = {**vit_arrays(), **{k.replace("__", "."): v for k, v in arrays.items()}}
    return {k: v for k, v in merged.items() if v is not None}


@pytest.mark.parametrize("write", [safetensors, npz])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"head__bias": None}, "lacks the array 'head.bias'; the file is of a network without its"),
        ({"cls_token": None}, "in a layout that is known; expected 'cls_token' among its arrays"),
        ({"blocks__0__ls1__gamma": np.ones(12, np.float32)}, "an array 'blocks.0.ls1.gamma' that"),
        ({"pos_embed": np.ones((1, 26, 12), np.float32)}, r"\(1, 17, 12\); the .* of 20 pix"),
        ({"head__weight": np.ones((12, 5), np.float32)}, r"\(12, 5\): expected \(5, 12\)"),
        ({"patch_embed__proj__weight": np.ones((12, 48), np.float32)}, r"expected \(12, 3, 4, 4\)"),
        ({"norm__bias": np.full(12, np.nan, np.float32)}, "NaN or inf in 'norm.bias'"),
        ({"norm__bias": np.full(12, -np.inf, np.float16)}, "NaN or inf in 'norm.bias'"),
        ({"norm__bias": np.zeros(12, np.int64)}, "as '?(I64|int64)'?: expected"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(tmp_path, write, arrays, message):
    refused(write(tmp_path / f"w.{write.__name__}", changed(**arrays)), message)


def test_a_file_of_another_size_or_family_is_one_line(tmp_path):
    path = safetensors(tmp_path / "w.safetensors", vit_arrays())
    refused(path, r"shape \(5,\): expected \(7,\); the file is of 5 classes: create", classes=7)
    refused(path, "lacks the array 'blocks.2.", depth=3)
    refused(path, r"has an array 'blocks.1.attn.proj.bias' .*\(12 such", depth=1)
    refused(path, "of a ConvNeXtV2 in a layout .* expected 'stem.0.weight' or", "convnextv2-atto")
    with pytest.raises(TypeError, match="model is a MLP: expected a ViT or a ConvNeXtV2"):
        load_pretrained(models.create("mlp", rngs=nnx.Rngs(0), hidden=(3,), **SIZES), path)


VIT = vit_arrays()
ONE = np.ones(1, np.float32)
FOREIGN = {
    "DataParallel": (
        {f"module.{k}": v for k, v in VIT.items()},
        "begin with 'module.', of a w",
    ),
    "torch.compile": ({f"_orig_mod.{k}": v for k, v in VIT.items()}, "begin with '_orig_mod.'"),
    "Lightning": ({f"model.{k}": v for k, v in VIT.items()}, "names begin with 'model.'"),
    "transformers": ({"vit.embeddings.cls_token": ONE}, "looks like transformers' ViT; take timm"),
    "augreg": (
        {"Transformer/encoder_norm/bias": ONE, "cls": ONE},
        "looks like Google's ViT for J",
    ),
    "torchvision": ({"class_token": ONE, "conv_proj.weight": ONE}, "looks like torchvision's ViT"),
    "ResNet": ({"conv1.weight": ONE, "layer1.0.conv1.weight": ONE}, "looks like a ResNet"),
    "Swin": ({"layers.0.blocks.0.attn.relative_position_bias_table": ONE}, "looks like a Swin"),
    "BERT": ({"bert.embeddings.word_embeddings.weight": ONE}, "looks like a BERT"),
    "ConvNeXt": ({"stem.0.weight": ONE}, "looks like a ConvNeXt in timm's layout"),
    "ConvNeXt V1": ({"stages.0.blocks.0.gamma": ONE, "stem.0.weight": ONE}, "like a ConvNeXt V1"),
    "DINOv2": ({**VIT, "blocks.0.ls1.gamma": ONE}, "looks like a ViT with layer scale: DeiT III"),
    "DeiT": ({**VIT, "dist_token": ONE}, "looks like a distilled DeiT"),
    "MAE": ({**VIT, "mask_token": ONE}, "looks like a masked autoencoder before fine-tuning"),
    "fc_norm": (
        {k.replace("norm.", "fc_norm.") if k.startswith("norm.") else k: v for k, v in VIT.items()},
        "lacks the array 'norm.* looks like a ViT that averages its tokens",
    ),
    "unknown": ({"a": ONE}, "in a layout that is known; expected 'cls_token' among its .* got 'a'"),
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_which_model_a_foreign_file_looks_like(tmp_path, foreign):
    arrays, message = FOREIGN[foreign]
    refused(npz(tmp_path / "w.npz", arrays), message)


def test_the_advice_for_a_pickle_can_be_pasted(tmp_path):
    """Its three arguments reach the shell whole, whatever the file is called."""
    path = tmp_path / "my model's; rm.pt"
    path.write_bytes(b"x")
    with pytest.raises(WeightsError, match="is a pickle") as error:
        load_pretrained(abstract("vit-ti16"), path)
    words = shlex.split(str(error.value).split("once: ")[1])
    assert words[:2] == ["python", "-c"]
    compile(words[2], "advice", "exec")
    assert words[3:] == ["my model's; rm.pt", "my model's; rm.safetensors"]


def test_response_norms_of_either_shape(tmp_path):
    """Of one axis, or as they are broadcast, both in circulation."""
    name, more = "convnextv2-atto", {"depths": (1, 1)}
    model = abstract(name, **more)
    rng = np.random.default_rng(0)
    arrays = {}
    for route, variable in nnx.to_flat_state(nnx.state(model)):
        shape = pretrained._shapes(model, route, variable.shape)[0]
        arrays[pretrained._name(route, pretrained.FACEBOOK_CONVNEXT)] = rng.normal(
            size=shape
        ).astype(np.float32)
    wide = {k: v[None, None, None] if ".grn." in k else v for k, v in arrays.items()}
    assert {v.ndim for k, v in wide.items() if ".grn." in k} == {4}
    first, second = (
        load_pretrained(model, safetensors(tmp_path / f"{i}.safetensors", part))
        for i, part in enumerate((arrays, wide))
    )
    for leaf, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(leaf, other)
