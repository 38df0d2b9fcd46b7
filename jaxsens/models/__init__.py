"""Every architecture of the paper's experiments, behind one name: `create(name, ...)`."""

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
from jaxsens.models.gpt2 import GPT2 as GPT2
from jaxsens.models.layers import check_sizes
from jaxsens.models.lstm import LSTM as LSTM
from jaxsens.models.mlp import MLP as MLP
from jaxsens.models.resnet import ResNet as ResNet
from jaxsens.models.roberta import RoBERTa as RoBERTa
from jaxsens.models.vit import ViT as ViT
from jaxsens.models.vit_simple import ViTSimple as ViTSimple
from jaxsens.models.vit_small import ViTSmall as ViTSmall

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
    "lstm": (LSTM, {}),
    "roberta": (RoBERTa, {}),
    "gpt2": (GPT2, {}),
    "convnextv2-tiny": (ConvNeXtV2, {}),
    "convnextv2-atto": (ConvNeXtV2, {"depths": (2, 2, 6, 2), "widths": (40, 80, 160, 320)}),
}
_IMAGES = ("image_size", "patch_size", "channels", "classes")


def __getattr__(name: str) -> Any:
    if name == "load_pretrained":  # of weights, which know the models; it was here at first
        from jaxsens.weights.pretrained import load_pretrained

        return load_pretrained
    raise AttributeError(f"module 'jaxsens.models' has no attribute {name!r}")


def names() -> tuple[str, ...]:
    """The names `create` knows."""
    return tuple(sorted(_ARCHITECTURES))


def create(
    name: str, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32, **arguments: Any
) -> nnx.Module:
    """Build a model: of images, (N, image_size, image_size, channels) to logits (N, classes) ::

        model = create("vit", rngs=nnx.Rngs(0), image_size=32, patch_size=4, channels=3, classes=10)
        logits = model(images, rngs=nnx.Rngs(dropout=key))                   # training
        logits = nnx.view(model, deterministic=True, use_running_average=True,
                          raise_if_not_found=False)(images)                  # inference

    or, as "lstm", "roberta" or "gpt2", of text ``{"ids": (N, T), "mask": (N, T)}`` to logits.
    Parameters are float32 and drawn from `rngs.params`; `dtype` (float32 or bfloat16) is the type
    of the arithmetic; logits are always float32. Models of images need the four arguments above.
    `patch_size` is the token the sensitivity is measured in; architectures that do not cut the
    image into patches ignore it, but every image must divide into patches. All other arguments
    are the architecture's own (depth, heads, ...), whose defaults are the paper's setting.

    Raises ValueError for an unknown name, an image that does not divide into patches, a size that
    is not positive or a rate outside [0, 1); TypeError for an argument that is missing, not known
    or of the wrong type.
    """
    if name not in _ARCHITECTURES:
        raise ValueError(f"no model is called {name!r}: expected one of {', '.join(names())}")
    architecture, preset = _ARCHITECTURES[name]
    parameters = inspect.signature(architecture.__init__).parameters
    of_images = "image_size" in parameters
    common = ("self", "dtype", "rngs", *(_IMAGES if of_images else ()))
    own = [parameter for parameter in parameters if parameter not in common]
    for argument in arguments:
        if argument not in (*own, *(_IMAGES if of_images else ())):
            raise TypeError(
                f"model {name!r} has no width {argument!r}: expected one of "
                f"{', '.join(own) or 'none'}"
            )
    if jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
        raise ValueError(f"dtype is {jnp.dtype(dtype).name}: expected float32 or bfloat16")
    if of_images:
        if missing := [size for size in _IMAGES if size not in arguments]:
            raise TypeError(f"model {name!r} is of images: give {', '.join(missing)} too")
        check_sizes(**{size: arguments[size] for size in _IMAGES})
        image_size, patch_size = arguments["image_size"], arguments["patch_size"]
        if image_size % patch_size:
            raise ValueError(
                f"image_size {image_size} does not divide into patches of {patch_size}: "
                f"expected a multiple of patch_size"
            )
    accepted = {key: value for key, value in arguments.items() if key in parameters}
    return architecture(**{**preset, **accepted}, dtype=jnp.dtype(dtype), rngs=rngs)
