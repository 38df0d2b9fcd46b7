"""A data set in memory: training and test examples with their labels."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from jaxsens.training import Split


class DataError(ValueError):
    """Data that cannot be had or cannot be right; the message is one line for the user.

    What does not print, as names inside an archive may hold, becomes a question mark.
    """

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else "?" for c in message))


def shown(name: str) -> str:
    """A name from outside, short enough for one line."""
    return name if len(name) <= 60 else f"{name[:40]}...{name[-17:]}"


def reason(error: BaseException) -> str:
    """The first line of what another library says, short enough to stand in one of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:120] if lines else type(error).__name__


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


def normalise(images: UInt8[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Bytes 0..255 to float32 in [-1, 1]: scaled to [0, 1], then mean 0.5 and std 0.5 removed."""
    values = images.astype(np.float32)  # the one copy: half a gigabyte for the larger sets
    values /= np.float32(127.5)
    values -= np.float32(1)
    return values


def image_split(
    images: UInt8[np.ndarray, "N H W C"], labels: np.ndarray, *, classes: int, where: str
) -> Split:
    """Checked and normalised images with their labels. Raises DataError naming ``where``."""
    if len(images) == 0:
        raise DataError(f"{where} holds no images")
    if len(images) != len(labels):
        raise DataError(f"{where} has {len(images)} images but {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"{where} has labels from {labels.min()} to {labels.max()}; expected 0 to {classes - 1}"
        )
    return Split(normalise(images), labels.astype(np.int32))
