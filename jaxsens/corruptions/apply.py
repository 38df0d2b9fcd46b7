"""`corrupt`: any of the nineteen corruptions on a batch of images, 8 bits in and out."""

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from jaxsens._check import checked_key
from jaxsens.corruptions import blur, digital, noise, weather
from jaxsens.corruptions.severity import SMALL, constants
from jaxsens.corruptions.streams import Streams

# The fifteen of CIFAR-10-C and ImageNet-C in the order of their paper, and the four extra ones.
COMMON: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
EXTRA: dict[str, Callable[..., np.ndarray]] = {
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": weather.spatter,
    "saturate": digital.saturate,
}
NAMES = (*COMMON, *EXTRA)
PIXELS = 2**19  # of a part of the batch: bounds memory whatever the batch and the images are
LEAST = 8  # pixels of a side


def corrupt(
    images: UInt8[np.ndarray, "N H W C"],
    name: str,
    severity: int,
    *,
    key: jax.Array,
    first: int = 0,
    frost_images: str | Path | None = None,
) -> UInt8[np.ndarray, "N H W C"]:
    """Images under one of the common corruptions (Hendrycks & Dietterich 2019).

    Constants are CIFAR-10-C's for a shorter side below 64 and ImageNet-C's above. Quirks of the
    published images that define the benchmark are kept (:mod:`jaxsens.corruptions.blur` names
    them); where they need tools or photographs that are not at hand, the definition is restated:
    motion blur by shifts of whole pixels, the rim of drops of water by a distance transform, and
    frost by pictures of ice of our own making instead of photographs.

    Args:
      images: uint8 (N, H, W, C) with C = 1 or 3, sides of at least 8 pixels.
      name: one of ``NAMES``. ``saturate`` needs colour.
      severity: 1 to 5.
      key: a PRNG key. Image ``first + i`` has a stream of its own: the same key gives the same
        image whatever it is processed with, and the same noise at every severity.
      first: the number of the first image, when a data set is corrupted in parts.
      frost_images: a folder of photographs to use for frost. For sides below 64 they are scaled by
        0.2, as in CIFAR-10-C.

    Raises TypeError or ValueError, one line, for arguments that cannot be right.
    """
    if name not in NAMES:
        raise ValueError(f"there is no corruption {name!r}; expected one of {', '.join(NAMES)}")
    try:
        level = 0 if isinstance(severity, bool) else operator.index(severity)
    except TypeError:
        level = 0
    if not 1 <= level <= 5:
        raise ValueError(f"severity must be a whole number from 1 to 5, got {severity!r}")
    images = _checked(images)
    count, height, width, channels = images.shape
    if name == "saturate" and channels == 1:
        raise ValueError("saturate needs images in colour, got one channel")
    side = min(height, width)
    more: tuple[Any, ...] = ()
    if name == "frost":
        more = (_frost(frost_images, height, width),)
    seed = int.from_bytes(np.asarray(jax.random.bits(checked_key(key), (2,), "uint32")).tobytes())
    change, settings = {**COMMON, **EXTRA}[name], constants(name, level, side)
    result = np.empty_like(images)
    rows = max(1, PIXELS // (height * width))
    for start in range(0, count, rows):
        part = images[start : start + rows] / 255.0
        streams = Streams(seed, name, first + start, len(part))
        result[start : start + rows] = blur.eight_bits(change(part, settings, streams, *more))
    return result


def applicable(channels: int) -> tuple[str, ...]:
    """The corruptions that images of so many channels can have: no ``saturate`` for grey ones."""
    return tuple(name for name in NAMES if channels == 3 or name != "saturate")


def _checked(images: Any) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise TypeError(
            f"images must be uint8 of shape (N, H, W, 1 or 3), got {images.dtype} of shape "
            f"{images.shape}; scale them to 0..255 first"
        )
    if min(images.shape[1:3]) < LEAST:
        raise ValueError(f"images must have sides of at least {LEAST} pixels, got {images.shape}")
    return images


def _frost(folder: str | Path | None, height: int, width: int) -> list[np.ndarray]:
    """Pictures of ice, each at least as large as the images."""
    if folder is None:
        return weather.ice_textures(max(height, width))
    from PIL import Image

    from jaxsens.data.images.pictures import decode

    pictures = []
    for path in sorted(Path(folder).expanduser().glob("*")):
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            continue
        picture = np.asarray(decode(path.read_bytes(), str(path)).convert("RGB"))
        if min(height, width) <= SMALL:
            size = [max(1, round(0.2 * a)) for a in picture.shape[1::-1]]
            resized = Image.fromarray(picture).resize((size[0], size[1]), Image.Resampling.BICUBIC)
            picture = np.asarray(resized)
        if picture.shape[0] < height or picture.shape[1] < width:
            raise ValueError(
                f"{path} is too small for frost: {picture.shape[0]} x {picture.shape[1]} pixels, "
                f"expected at least {height} x {width}"
            )
        pictures.append(picture)
    if not pictures:
        raise ValueError(f"{folder} holds no PNG or JPEG to use for frost")
    return pictures
