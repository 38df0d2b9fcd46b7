"""Published ImageNet weights in the models of this package (paper A, Section 5)."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsens.models.convnextv2 import ConvNeXtV2
from jaxsens.models.vit import ViT
from jaxsens.weights import WeightsError
from jaxsens.weights.files import Stored, open_weights, shown
from jaxsens.weights.foreign import looks_like

Model = TypeVar("Model", ViT, ConvNeXtV2)

# Where a layer of ours lies in a file: braces take the numbers in order. A layout is known by the
# name of its first array.
TIMM_VIT = {
    "cls": "cls_token",
    "positions": "pos_embed",
    "embedding": "patch_embed.proj",
    "blocks.#.attention_norm": "blocks.{}.norm1",
    "blocks.#.attention.qkv": "blocks.{}.attn.qkv",
    "blocks.#.attention.out": "blocks.{}.attn.proj",
    "blocks.#.mlp_norm": "blocks.{}.norm2",
    "blocks.#.up": "blocks.{}.mlp.fc1",
    "blocks.#.down": "blocks.{}.mlp.fc2",
    "norm": "norm",
    "head": "head",
}
TIMM_CONVNEXT = {
    "reductions.0.linear": "stem.0",
    "norms.0": "stem.1",
    "norms.#": "stages.{}.downsample.0",
    "reductions.#.linear": "stages.{}.downsample.1",
    "stages.#.#.depthwise": "stages.{}.blocks.{}.conv_dw",
    "stages.#.#.norm": "stages.{}.blocks.{}.norm",
    "stages.#.#.up": "stages.{}.blocks.{}.mlp.fc1",
    "stages.#.#.response_norm": "stages.{}.blocks.{}.mlp.grn",
    "stages.#.#.down": "stages.{}.blocks.{}.mlp.fc2",
    "norm": "head.norm",
    "head": "head.fc",
}
FACEBOOK_CONVNEXT = {
    "reductions.0.linear": "downsample_layers.0.0",
    "norms.0": "downsample_layers.0.1",
    "norms.#": "downsample_layers.{}.0",
    "reductions.#.linear": "downsample_layers.{}.1",
    "stages.#.#.depthwise": "stages.{}.{}.dwconv",
    "stages.#.#.norm": "stages.{}.{}.norm",
    "stages.#.#.up": "stages.{}.{}.pwconv1",
    "stages.#.#.response_norm": "stages.{}.{}.grn",
    "stages.#.#.down": "stages.{}.{}.pwconv2",
    "norm": "norm",
    "head": "head",
}
LAYOUTS: Mapping[type, Mapping[str, Mapping[str, str]]] = {
    ViT: {"cls_token": TIMM_VIT},
    ConvNeXtV2: {
        "stem.0.weight": TIMM_CONVNEXT,
        "downsample_layers.0.0.weight": FACEBOOK_CONVNEXT,
    },
}


def load_pretrained(model: Model, path: str | Path) -> Model:
    """A model like ``model`` with the weights of a published ``.safetensors`` or ``.npz`` file.

    ``model`` is a ``ViT`` or ``ConvNeXtV2`` from ``models.create``. It is not changed, and only its
    shapes are looked at, so that nothing need be allocated twice ::

        shapes = nnx.eval_shape(lambda: models.create("vit-l16", rngs=nnx.Rngs(0), image_size=224,
                                                      patch_size=16, channels=3, classes=1000))
        model = load_pretrained(shapes, "vit_large_patch16_224.safetensors")

    A model in shards is read from any of them, its index or its folder: see `open_weights`. Three
    layouts are known: timm's ViT, timm's ConvNeXt V2, and that of Facebook's ConvNeXt V2 release.
    Float16 and bfloat16 become float32. Every array of the file is used and every parameter is
    filled. Raises WeightsError with one line that names the first array that is missing, left over,
    of another shape or not finite, and which model the file looks like, or says what is wrong with
    the file; TypeError for another model.
    """
    if type(model) not in LAYOUTS:
        raise TypeError(f"model is a {type(model).__name__}: expected a ViT or a ConvNeXtV2")
    arrays = dict(open_weights(path))
    layouts = LAYOUTS[type(model)]
    layout = next((names for first, names in layouts.items() if first in arrays), None)
    if layout is None:
        raise WeightsError(
            f"{path} holds no weights of a {type(model).__name__} in a layout that is known"
            f"{looks_like(arrays, ours=True)}; expected {' or '.join(map(repr, layouts))} among "
            f"its arrays, got {shown(', '.join(sorted(arrays)))}"
        )
    likeness = looks_like(arrays)
    graph, state = nnx.split(model)
    plan = []
    for route, variable in nnx.to_flat_state(state):
        name = _name(route, layout)
        if name not in arrays:
            whose = "the file is of a network without its last layer, for features alone"
            if route[0] != "head":
                whose = f"it is of another model{likeness}"
            raise WeightsError(f"{path} lacks the array {name!r}; {whose}")
        stored = arrays.pop(name)
        accepted = _shapes(model, route, variable.shape)
        if stored.shape not in accepted:
            wanted = " or ".join(map(str, accepted))
            raise WeightsError(
                f"{path} has {name!r} of shape {stored.shape}: expected {wanted}; "
                f"{_misfit(model, route, stored.shape)}"
            )
        plan.append((route, variable, name, stored))
    if arrays:
        raise WeightsError(
            f"{path} has an array {shown(min(arrays))} that a {type(model).__name__} of this size "
            f"does not have ({len(arrays)} such arrays in all); it is of another model{likeness}"
        )
    filled = [
        (route, variable.replace(_array(path, name, stored, variable.shape)))
        for route, variable, name, stored in plan
    ]
    return nnx.merge(graph, nnx.from_flat_state(filled))


def _name(route: tuple[Any, ...], layout: Mapping[str, str]) -> str:
    """The name in the file of the parameter at ``route``."""
    dotted = ".".join(map(str, route))
    if dotted in layout:
        return layout[dotted]
    parent, leaf = dotted.rsplit(".", 1)
    pattern = parent if parent in layout else re.sub(r"\b\d+\b", "#", parent)
    target = layout[pattern].format(*re.findall(r"\b\d+\b", parent))
    if leaf in ("gamma", "beta") and layout is FACEBOOK_CONVNEXT:
        return f"{target}.{leaf}"
    return f"{target}.{'bias' if leaf in ('bias', 'beta') else 'weight'}"


def _misfit(model: ViT | ConvNeXtV2, route: tuple[Any, ...], shape: tuple[int, ...]) -> str:
    """What differs where one array has another shape."""
    if route[0] == "head" and shape:
        return f"the file is of {shape[0]} classes: create the model with classes={shape[0]}"
    if route[0] == "positions" and len(shape) == 3 and isinstance(model, ViT):
        side = math.isqrt(max(shape[1] - 1, 0))
        if side > 0 and side**2 == shape[1] - 1:
            size = side * model.patch_size
            return f"the file is of images of {size} pixels: create the model for image_size={size}"
    return "create the model that the file is of (classes, image_size, widths)"


def _shapes(
    model: ViT | ConvNeXtV2, route: tuple[Any, ...], shape: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """The shapes that our array may have in PyTorch, where outputs come first, then channels."""
    if route[-1] in ("gamma", "beta"):
        return [shape, (1, 1, 1, *shape)]
    if route[-1] != "kernel":
        return [shape]
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return [(outputs, inputs, height, width)]
    inputs, outputs = shape
    if isinstance(model, ViT):
        size = model.patch_size if route[0] == "embedding" else None
    else:
        size = model.reductions[route[1]].size if route[0] == "reductions" else None
    if size is not None:
        return [(outputs, inputs // size**2, size, size)]
    # The smaller ConvNeXts were published with 1 x 1 convolutions for linear maps.
    pointwise = route[-2] in ("up", "down") and isinstance(model, ConvNeXtV2)
    return [(outputs, inputs), (outputs, inputs, 1, 1)][: 1 + pointwise]


def _array(path: str | Path, name: str, stored: Stored, shape: tuple[int, ...]) -> jnp.ndarray:
    array = stored.read()
    if not np.isfinite(array).all():
        raise WeightsError(f"{path} has NaN or inf in {name!r}; copy it again")
    # A convolution whose stride is its size is a linear map of patches, flattened as (row, column,
    # channel); the queries, keys and values of one matrix come in the order they have here.
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    elif array.ndim == 2:
        array = array.T
    return jnp.asarray(array.reshape(shape))
