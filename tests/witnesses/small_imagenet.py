"""ImageNet in miniature: a network of one block, its weights in timm's layout, and a folder of it.

The experiment's own code runs on them unchanged.
"""

import io
import zipfile

import numpy as np
from PIL import Image

from experiments import imagenet
from jaxsens import models
from jaxsens.weights import hub

TINY = hub.Published("vit-ti16", 32, "timm/none", 1.0, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 0.875)
WIDTHS = {"depth": 1, "heads": 2, "dim": 24, "mlp_dim": 32}
RUN = ("--arch", "vit-ti16", "--data", "embedded", "--examples", "8", "--repeats", "3",
       "--batch-size", "16", "--variance", "15", "60")  # fmt: skip


def shrink(patch):
    patch.setattr(hub, "PUBLISHED", (TINY,))
    patch.setitem(models._ARCHITECTURES, "vit-ti16", (models.ViT, WIDTHS))
    patch.setattr(imagenet, "IMAGES", 3)


def write_weights(path):
    """A small ViT for 32 pixels in timm's layout, whose decisions change now and then."""
    dim, mlp, rng = WIDTHS["dim"], WIDTHS["mlp_dim"], np.random.default_rng(0)
    arrays = {
        "cls_token": rng.normal(size=(1, 1, dim)),
        "pos_embed": rng.normal(size=(1, 5, dim)),
        "patch_embed.proj.weight": rng.normal(size=(dim, 3, 16, 16)) / 28,
        "patch_embed.proj.bias": rng.normal(size=dim),
        "head.weight": rng.normal(size=(1000, dim)) / dim**0.5,
        "head.bias": rng.normal(size=1000) / 10,
    }
    for norm in ("blocks.0.norm1", "blocks.0.norm2", "norm"):
        arrays[f"{norm}.weight"] = 1 + 0.1 * rng.normal(size=dim)
        arrays[f"{norm}.bias"] = 0.1 * rng.normal(size=dim)
    for layer, shape in {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim),
                         "mlp.fc1": (mlp, dim), "mlp.fc2": (dim, mlp)}.items():  # fmt: skip
        arrays[f"blocks.0.{layer}.weight"] = rng.normal(size=shape) / shape[1] ** 0.5
        arrays[f"blocks.0.{layer}.bias"] = 0.1 * rng.normal(size=shape[0])
    np.savez(path, **{name: array.astype(np.float32) for name, array in arrays.items()})
    return path


def tree(path, count=1000, value=0):
    """A zip of 1000 classes of one coloured square each."""
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            image = io.BytesIO()
            Image.new("RGB", (8, 8), (i % 256, 3 * i % 256, value)).save(image, "PNG")
            archive.writestr(f"val/n{i:08d}/a.png", image.getvalue())
    return path
