"""Networks with published weights, or random ones, for the experiment that only measures."""

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from experiments.run.cli import UserError
from experiments.vision.imagenet_report import RANDOM
from jaxsens import models
from jaxsens.weights.files import weight_files
from jaxsens.weights.hub import Published, fetch, on_pixels, published
from jaxsens.weights.pretrained import load_pretrained

VIT_PATCH = 16


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with its weights, as a function of pixels in [-1, 1], and where these are from."""

    arch: str
    entry: Published
    model: Any
    weights: str  # a published name, the name of a file, or RANDOM
    sha256: str | None


def find(arch: str, config: Any) -> Published:
    """The published weights that the options name. Raises UserError where tokens do not fit."""
    try:
        entry = published(arch, config.image_size)
    except ValueError as error:
        raise UserError(f"--image-size does not fit: {error}") from None
    if entry.image_size % config.patch_size:
        raise UserError(
            f"--patch-size must divide the {entry.image_size} pixels of {arch}, got "
            f"{config.patch_size}"
        )
    patches = (entry.image_size // config.patch_size) ** 2
    if config.tokens_per_example is not None and config.tokens_per_example > patches:
        raise UserError(
            f"--tokens-per-example must be at most the {patches} patches of an image for {arch}, "
            f"got {config.tokens_per_example}"
        )
    return entry


def load_network(entry: Published, config: Any) -> Network:
    """The network with its weights. Raises WeightsError when there are none that fit."""

    def create() -> nnx.Module:
        return models.create(
            entry.arch,
            rngs=nnx.Rngs(config.seed),
            image_size=entry.image_size,
            patch_size=VIT_PATCH,
            channels=3,
            classes=1000,
            dtype=jnp.dtype(config.dtype),
        )

    if config.weights == "random":
        return Network(entry.arch, entry, on_pixels(create(), entry), RANDOM, None)
    if config.weights == "hub":
        print(f"fetching {entry.repository}, unless it was before", file=sys.stderr, flush=True)
        path, name = fetch(entry), entry.repository
    else:
        path = Path(config.weights)
        name = path.name
    model = load_pretrained(nnx.eval_shape(create), path)
    digest = hashlib.sha256()
    for part in weight_files(path):
        with part.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return Network(entry.arch, entry, on_pixels(model, entry), name, digest.hexdigest())
