"""Weights files of a small ViT, written byte by byte without the code that reads them."""

import functools
import json
import struct

import numpy as np
import pytest
from flax import nnx

from jaxsens import models
from jaxsens.weights import WeightsError
from jaxsens.weights.pretrained import load_pretrained

SIZES = {"image_size": 16, "patch_size": 4, "channels": 3, "classes": 5}
WIDTHS = {
    "vit-ti16": {"depth": 2, "heads": 3, "dim": 12, "mlp_dim": 20},
    "convnextv2-atto": {"depths": (1, 2), "widths": (6, 10)},
}


def create(name, **more):
    return models.create(name, rngs=nnx.Rngs(0), **{**SIZES, **WIDTHS[name], **more})


@functools.cache
def abstract(name, **more):
    return nnx.eval_shape(lambda: create(name, **more))


def safetensors(path, arrays, *, header=None, body=None, length=None):
    """A safetensors file; `header` edits its header, `body` and `length` replace the true ones."""
    content, entries = b"", {}
    for name, array in arrays.items():
        kind = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}.get(array.dtype.name, "I64")
        data = array.tobytes()
        entries[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [len(content), len(content) + len(data)],
        }
        content += data
    if header is not None:
        entries = header(entries)
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    size = len(text) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + text + (content if body is None else body(content)))
    return path


def npz(path, arrays):
    np.savez(path, **arrays)
    return path


def vit_arrays():
    """The arrays of a timm ViT without PyTorch."""
    dim, mlp = 12, 20
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 17, dim),
        "patch_embed.proj.weight": (dim, 3, 4, 4),
        "patch_embed.proj.bias": (dim,),
    }
    for i in range(2):
        for layer, (outputs, inputs) in {
            "attn.qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            "mlp.fc1": (mlp, dim),
            "mlp.fc2": (dim, mlp),
        }.items():
            shapes[f"blocks.{i}.{layer}.weight"] = (outputs, inputs)
            shapes[f"blocks.{i}.{layer}.bias"] = (outputs,)
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{norm}.{leaf}": (dim,) for leaf in ("weight", "bias")}
    shapes |= {"norm.weight": (dim,), "norm.bias": (dim,), "head.weight": (5, dim)}
    shapes["head.bias"] = (5,)
    rng = np.random.default_rng(0)
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


def refused(path, message, name="vit-ti16", **more):
    with pytest.raises(WeightsError, match=message) as error:
        load_pretrained(abstract(name, **more), path)
    assert str(error.value).isprintable()
    assert len(str(error.value).replace(str(path), "")) < 500
    assert str(path) in str(error.value)
