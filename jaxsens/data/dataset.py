"""A data set in memory: training and test examples with their labels."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from jaxsens.data.split import Split


class DataError(ValueError):
    """Data that cannot be had or cannot be right; the message is one line for the user.

    What does not print, as names inside an archive may hold, becomes a question mark.
    """

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else "?" for c in message))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """``train`` and ``test`` hold float32 images (N, H, W, C) in [-1, 1] and int32 labels (N,).

    ``name`` and ``source`` say what was loaded and from where, ``classes`` names the labels.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: Split
    test: Split


class Raw(NamedTuple):
    """One part of a data set as a file holds it, not yet checked."""

    images: np.ndarray
    labels: np.ndarray


def shown(name: str) -> str:
    """A name from outside, short enough for one line."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    return name if len(name) <= 60 else f"{name[:40]}...{name[-17:]}"


def reason(error: BaseException) -> str:
    """The first line of what another library says, short enough to stand in one of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:100] if lines else type(error).__name__


def normalise(images: UInt8[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Bytes 0..255 to float32 in [-1, 1]: scaled to [0, 1], then mean 0.5 and std 0.5 removed."""
    values = images.astype(np.float32, order="C")  # the one copy: half a gigabyte for CIFAR-10
    values /= np.float32(127.5)
    values -= np.float32(1)
    return values


def as_bytes(images: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """The inverse of :func:`normalise`, exact for what it returns; values outside are clipped."""
    values = (np.asarray(images, np.float32) + np.float32(1)) * np.float32(127.5)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def image_split(raw: Raw, *, shape: tuple[int, int, int], classes: int, where: str) -> Split:
    """Checked and normalised images with their labels. Raises DataError starting with ``where``.

    ``shape`` is that of one image, (H, W, C); grey images may lack the axis of length 1.
    """
    images, labels = raw
    if images.ndim == 3 and shape[-1] == 1:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(
            f"{where} has images of {images.dtype} with shape {images.shape}; expected uint8 with "
            f"shape (N, {', '.join(map(str, shape))})"
        )
    if images.shape[1:] != shape:
        raise DataError(f"{where} has images of shape {images.shape[1:]}; expected {shape}")
    if len(images) == 0:
        raise DataError(f"{where} holds no images")
    if labels.ndim != 1 or labels.dtype.kind not in "iuf":
        raise DataError(
            f"{where} has labels of {labels.dtype} with shape {labels.shape}; expected whole "
            "numbers with shape (N,)"
        )
    if len(images) != len(labels):
        raise DataError(f"{where} has {len(images)} images but {len(labels)} labels")
    whole = labels == np.rint(labels)  # MATLAB writes whole numbers as floats; false for NaN
    if not whole.all():
        raise DataError(f"{where} has the label {labels[~whole][0]}; expected whole numbers")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"{where} has labels from {labels.min():g} to {labels.max():g}; expected 0 to "
            f"{classes - 1}"
        )
    return Split(normalise(images), labels.astype(np.int32))
