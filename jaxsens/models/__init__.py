"""Every architecture of the paper's vision section, behind one name: `create(name, ...)`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from numpy.typing import DTypeLike

from jaxsens.models.cnn import CNN as CNN
from jaxsens.models.convmixer import ConvMixer as ConvMixer
from jaxsens.models.convnextv2 import ConvNeXtV2 as ConvNeXtV2
from jaxsens.models.densenet import DenseNet as DenseNet
from jaxsens.models.mlp import MLP as MLP
from jaxsens.models.resnet import ResNet as ResNet
from jaxsens.models.vit import ViT as ViT
from jaxsens.models.vit_simple import ViTSimple as ViTSimple
from jaxsens.models.vit_small import ViTSmall as ViTSmall
from jaxsens.weights.pretrained import load_pretrained as load_pretrained

# A name is an architecture and the widths it starts from; `create` may override each of them.
_ARCHITECTURES: dict[str, tuple[Callable[..., nnx.Module], Mapping[str, Any]]] = {
    "vit": (ViTSmall, {}),
    "vit-simple": (ViTSimple, {}),
    "convmixer": (ConvMixer, {}),
    "resnet18": (ResNet, {}),
    "densenet121": (DenseNet, {}),
    "cnn": (CNN, {}),
    "mlp": (MLP, {}),
    "vit-l16": (ViT, {}),
    "vit-ti16": (ViT, {"depth": 12, "heads": 3, "dim": 192, "mlp_dim": 768}),
    "convnextv2-tiny": (ConvNeXtV2, {}),
    "convnextv2-atto": (ConvNeXtV2, {"depths": (2, 2, 6, 2), "widths": (40, 80, 160, 320)}),
}
_COMMON = ("image_size", "patch_size", "channels", "classes", "dtype", "rngs")


def names() -> tuple[str, ...]:
    """The names `create` knows."""
    return tuple(sorted(_ARCHITECTURES))


def create(
    name: str,
    *,
    rngs: nnx.Rngs,
    image_size: int,
    patch_size: int,
    channels: int,
    classes: int,
    dtype: DTypeLike = jnp.float32,
    **widths: Any,
) -> nnx.Module:
    """Build a model that maps images (N, image_size, image_size, channels) to logits (N, classes).

        model = create("vit", rngs=nnx.Rngs(0), image_size=32, patch_size=4, channels=3, classes=10)
        logits = model(images, rngs=nnx.Rngs(dropout=key))                   # training
        logits = nnx.view(model, deterministic=True, use_running_average=True,
                          raise_if_not_found=False)(images)                  # inference

    Parameters are float32 and drawn from `rngs.params`; `dtype` (float32 or bfloat16) is the type
    of the arithmetic; logits are always float32. `patch_size` is the token the sensitivity is
    measured in; architectures that do not cut the image into patches ignore it, but every image
    must divide into patches. `widths` are the architecture's own keyword arguments (depth, heads,
    ...), whose defaults are the paper's CIFAR-10 or Fashion-MNIST setting (Section 5, App. D).

    Raises ValueError for an unknown name, an image that does not divide into patches, a size that
    is not positive or a rate outside [0, 1); TypeError for an unknown width or a size of the
    wrong type.
    """
    if name not in _ARCHITECTURES:
        raise ValueError(f"no model is called {name!r}: expected one of {', '.join(names())}")
    architecture, preset = _ARCHITECTURES[name]
    parameters = inspect.signature(architecture.__init__).parameters
    own = [parameter for parameter in parameters if parameter not in ("self", *_COMMON)]
    for width in widths:
        if width not in own:
            raise TypeError(
                f"model {name!r} has no width {width!r}: expected one of {', '.join(own) or 'none'}"
            )
    sizes = {
        "image_size": image_size,
        "patch_size": patch_size,
        "channels": channels,
        "classes": classes,
    }
    for argument in (*sizes, *widths):
        default = 1 if argument in sizes else parameters[argument].default
        _check(argument, {**sizes, **widths}[argument], default)
    if image_size % patch_size:
        raise ValueError(
            f"image_size {image_size} does not divide into patches of {patch_size}: "
            f"expected a multiple of patch_size"
        )
    if jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
        raise ValueError(f"dtype is {jnp.dtype(dtype).name}: expected float32 or bfloat16")
    accepted = {size: value for size, value in sizes.items() if size in parameters}
    return architecture(**accepted, **{**preset, **widths}, dtype=jnp.dtype(dtype), rngs=rngs)


def _check(argument: str, value: Any, default: Any) -> None:
    """Hold `value` to the kind of its default: a positive integer, a tuple of them, or a rate."""
    if isinstance(default, tuple):
        if not isinstance(value, tuple | list):
            raise TypeError(f"{argument} is {value!r}: expected a tuple of positive integers")
        for item in value:
            _check(argument, item, 1)
    elif isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{argument} is {value!r}: expected a number in [0, 1)")
        if not 0 <= value < 1:
            raise ValueError(f"{argument} is {value!r}: expected a number in [0, 1)")
    elif isinstance(default, int):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{argument} is {value!r}: expected a positive integer")
        if value <= 0:
            raise ValueError(f"{argument} is {value!r}: expected a positive integer")
