"""CIFAR-10-C and CIFAR-100-C as their authors publish them, one corruption in memory at a time."""

import io
import math
import os.path
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from jaxsens.corruptions import NAMES
from jaxsens.data.dataset import DataError, reason
from jaxsens.data.files import npy, tar
from jaxsens.data.files.budget import Budget
from jaxsens.data.files.names import find, plain
from jaxsens.data.files.opened import Stream, looks, whole
from jaxsens.data.images import tensorflow_datasets as tfds

BLOCK = 10_000  # test images
SEVERITIES = (1, 2, 3, 4, 5)
SHAPE = (32, 32, 3)
FOLDERS = ("cifar-10-c", "cifar-100-c")
SUFFIXES = (".tar", ".tar.gz", ".tgz")
LABELS = "labels.npy"
WORK = 2**34  # bytes gone over: an archive of 2.9 GB is read twice
COMPARED = 500  # images by which the order of a block is checked
# Names of tensorflow-datasets that are not those of the files.
IN_TFDS = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}


class Block(NamedTuple):
    """All test images under one corruption at one severity, in their order."""

    name: str
    severity: int
    images: UInt8[np.ndarray, "N 32 32 3"]
    labels: Integer[np.ndarray, " N"]


def read(
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    labels: Integer[np.ndarray, " N"] | None = None,
    clean: UInt8[np.ndarray, "N 32 32 3"] | None = None,
    classes: int = 10,
    block: int = BLOCK,
) -> Iterator[Block]:
    """The published corruptions, block by block: for each file its severities, in their order.

    ``path`` is the folder of ``gaussian_noise.npy``, ..., ``labels.npy``, one above it, or the tar
    archive, which is gone over twice and never extracted; or "tfds", the data set
    ``cifar10_corrupted`` of tensorflow-datasets. Each file holds five blocks of the 10,000 test
    images, severity 1 first, and the labels stand five times in ``labels.npy``. One file, 154 MB,
    is in memory at a time.

    Args:
      names: which corruptions; None for all that are there.
      severities: which of 1 to 5.
      labels: of the clean test images: those of the files must be these, in this order.
      clean: the clean test images; each block must be of them in their order.
      classes: 10, or 100 for CIFAR-100-C.
      block: test images in a block, where it is not the published data: a smaller set in the same
        layout.

    Raises DataError, one line, for what is missing, of another type or length, or about other
    images; of names and labels before the first block.
    """
    if names is not None and (wrong := [name for name in names if name not in NAMES]):
        raise DataError(f"there is no corruption {wrong[0]!r}; expected some of {', '.join(NAMES)}")
    if not severities or not set(severities) <= set(SEVERITIES):
        raise DataError(f"severities must be among 1 to 5, got {severities!r}")
    expected = Expected(tuple(severities), labels, clean, classes, block)
    if str(path) == "tfds":
        return _from_tfds(tuple(names or NAMES), expected)
    path = Path(path)
    source: _Files | _Archive = _Files(path) if os.path.isdir(path) else _Archive(path)
    found = source.names()
    if LABELS not in found:
        raise DataError(f"{path} holds no {LABELS}; expected the files of CIFAR-10-C")
    wanted = [f"{name}.npy" for name in (names or NAMES)]
    missing = [file for file in wanted if file not in found]
    if (missing and names is not None) or len(missing) == len(wanted):
        raise DataError(f"{path} holds no {missing[0]}; expected the files of CIFAR-10-C")
    ((_, content),) = source.contents({LABELS})
    mine = expected.checked_labels(_array(content, f"{LABELS} in {path}"), f"{LABELS} in {path}")

    def blocks() -> Iterator[Block]:
        for file, content in source.contents(set(wanted)):
            label = f"{file} in {path}"
            images = _array(content, label)
            expected.check_images(images, label)
            for severity in severities:
                part = images[(severity - 1) * block : severity * block]
                expected.check_order(part, f"severity {severity} of {label}")
                yield Block(file.removesuffix(".npy"), severity, part, mine)
            del images, part, content

    return blocks()


class Expected(NamedTuple):
    """What the blocks must be."""

    severities: tuple[int, ...]
    labels: Integer[np.ndarray, " N"] | None
    clean: UInt8[np.ndarray, "N 32 32 3"] | None
    classes: int
    block: int

    def checked_labels(self, found: np.ndarray, label: str, times: int = 5) -> np.ndarray:
        """The labels of one block, which stand ``times`` times. Raises DataError."""
        count = times * self.block
        if found.dtype.kind not in "iu" or found.shape != (count,):
            raise DataError(
                f"{label} holds {found.dtype} of shape {found.shape}; expected whole numbers of "
                f"shape ({count},), {times} times {self.block}"
            )
        labels = found.reshape(times, self.block).astype(np.int32)
        if labels.min() < 0 or labels.max() >= self.classes:
            raise DataError(
                f"{label} has labels from {labels.min()} to {labels.max()}; expected 0 to "
                f"{self.classes - 1}"
            )
        if (labels != labels[0]).any():
            raise DataError(f"{label} does not hold the same labels in each of its five blocks")
        if self.labels is not None and not np.array_equal(labels[0], self.labels):
            raise DataError(
                f"{label} are not the labels of the clean test images in their order: it is about "
                "other images"
            )
        return labels[0]

    def check_images(self, images: np.ndarray, label: str, times: int = 5) -> None:
        """Raise DataError for another type or shape than (5 x 10,000, 32, 32, 3) bytes."""
        shape = (times * self.block, *SHAPE)
        if images.dtype != np.uint8 or images.shape != shape:
            raise DataError(
                f"{label} holds {images.dtype} of shape {images.shape}; expected uint8 of shape "
                f"{shape}, {times} times {self.block} images"
            )

    def check_order(self, part: np.ndarray, label: str) -> None:
        """Raise DataError where images are nearer to the clean ones of their neighbours."""
        if self.clean is None:
            return
        if self.clean.shape != part.shape:
            raise DataError(
                f"{label} holds {len(part)} images, but there are {len(self.clean)} clean ones"
            )
        few = np.linspace(0, len(part) - 1, min(COMPARED, len(part)), dtype=int)
        mine, own, other = (
            a.astype(np.float32).mean(-1) for a in (part[few], self.clean[few], self.clean[few - 1])
        )
        # Brightness and contrast change every image alike: compare what is left of them.
        mine, own, other = (_standardised(a) for a in (mine, own, other))
        if not np.abs(mine - own).mean() < np.abs(mine - other).mean():
            raise DataError(f"{label} does not hold the clean test images in their order")


def _standardised(images: np.ndarray) -> np.ndarray:
    centred = images - images.mean((1, 2), keepdims=True)
    return centred / (centred.std((1, 2), keepdims=True) + 1)


def _array(content: bytes, label: str) -> np.ndarray:
    """The array in a .npy file, where its bytes lie. Raises DataError."""
    file = io.BytesIO(content)
    try:
        header = npy.read_header(file)
        if header.dtype.hasobject or header.dtype.itemsize == 0:
            raise ValueError(f"it holds {header.dtype}; expected numbers")
        size, there = math.prod(header.shape) * header.dtype.itemsize, len(content) - file.tell()
        if there != size:
            state = "shorter" if there < size else "longer"
            raise ValueError(
                f"it is {state} than its header says: expected {size} bytes for {header.shape}"
            )
    except ValueError as error:
        raise DataError(f"{label} cannot be read: {reason(error)}") from None
    # No copy: these are 154 MB.
    array = np.frombuffer(content, header.dtype, offset=file.tell())
    return array.reshape(header.shape, order="F" if header.fortran else "C")


class _Files:
    """The files in a folder, or in one below it."""

    def __init__(self, path: Path) -> None:
        wanted = {LABELS, *(f"{name}.npy" for name in NAMES)}
        self.path, self.found = path, find(path, wanted, Budget(), FOLDERS)

    def names(self) -> set[str]:
        return set(self.found)

    def contents(self, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        """Name and content of each, one after another."""
        for name, path in self.found.items():
            if name in wanted:
                try:
                    yield name, whole(path, Budget(work=WORK), stays=False)
                except (OSError, ValueError) as error:
                    raise DataError(f"{path} cannot be read: {reason(error)}") from None


class _Archive:
    """The files in a tar archive, gzipped or not, which is read from its start each time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not plain(path.name).endswith(SUFFIXES):
            raise DataError(
                f"{path} is no folder or tar archive of CIFAR-10-C; expected CIFAR-10-C.tar, or "
                "the folder of its npy files"
            )

    def names(self) -> set[str]:
        return {name for name, _ in self._members()}

    def contents(self, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        """Name and content of each in the order of the archive, one after another."""
        for name, content in self._members():
            if name in wanted:
                yield name, content()

    def _members(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        budget = Budget(work=WORK)
        seen: set[str] = set()
        room = budget.size
        try:
            with Stream(self.path, budget) as stream:
                if not stream.gzipped and b"ustar" not in stream.start[257:263]:
                    raise ValueError(f"Not a gzipped file, nor a tar: it {looks(stream.start)}")
                for parts, content in tar.members(stream, largest=2**28):
                    if parts and parts[-1].endswith(".npy"):
                        if parts[-1] in seen:
                            raise DataError(f"{self.path} holds {parts[-1]} twice")
                        seen.add(parts[-1])
                        yield parts[-1], content
                    budget.size = room  # the one before is let go
        except DataError:
            raise
        except Exception as error:  # a damaged archive breaks the reader in any way there is
            raise DataError(f"{self.path} cannot be read as a tar: {reason(error)}") from None


def _from_tfds(names: Sequence[str], expected: Expected) -> Iterator[Block]:
    """The same from tensorflow-datasets, a configuration for each corruption and severity."""
    if expected.classes != 10:
        raise DataError("tensorflow-datasets has cifar10_corrupted alone; give CIFAR-100-C by path")
    for name in names:
        for severity in expected.severities:
            label = f"cifar10_corrupted/{IN_TFDS.get(name, name)}_{severity}"
            images, labels = tfds.load_images(label, "test", Budget())
            expected.check_images(images, label, times=1)
            mine = expected.checked_labels(labels, label, times=1)
            expected.check_order(images, label)
            yield Block(name, severity, images, mine)
