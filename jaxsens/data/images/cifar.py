"""CIFAR-10 as its authors publish it: the archives and directories for Python and for C."""

import os.path
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import DataError, Raw, reason
from jaxsens.data.files import tar
from jaxsens.data.files.budget import Budget
from jaxsens.data.files.names import find, plain
from jaxsens.data.files.opened import Stream, looks, whole
from jaxsens.data.files.restricted_pickle import Array, loads

PIXELS = 32 * 32 * 3
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
NAMES = (*TRAIN, "test_batch")
FILES = tuple(name + suffix for name in NAMES for suffix in ("", ".bin"))
# Where several folders have batches, the Python version first: all hold the same images.
FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")
SUFFIXES = (".tar.gz", ".tgz", ".tar")
ARCHIVES = tuple(f"cifar-10-{kind}{suffix}" for kind in ("python", "binary") for suffix in SUFFIXES)
OTHERS = {
    "data_batch_1.mat": "CIFAR-10 for MATLAB",
    "cifar-100-python": "CIFAR-100",
    "cifar-100-binary": "CIFAR-100",
    "cifar-100-python.tar.gz": "CIFAR-100",
    "cifar-10-matlab.tar.gz": "CIFAR-10 for MATLAB",
}


def read(path: Path, budget: Budget) -> tuple[Raw, Raw] | None:
    """Both parts: bytes (N, 32, 32, 3), labels (N,); None where ``path`` holds no batches.

    ``path`` is one of the two archives, what they unpack to, one of those files, or a directory
    that holds any of this. Archives are never extracted, and pickles can make nothing but arrays of
    bytes, lists and numbers. Raises DataError when a batch is missing, damaged or shorter than the
    others.
    """
    found = find(path, FILES, budget, FOLDERS)
    if found:
        path = next(iter(found.values())).parent
        files = _files(found, budget)
    else:
        archives = find(path, ARCHIVES, budget)
        if plain(path.name).endswith(SUFFIXES) and not os.path.isdir(path):
            files = _members(path, budget)
        elif archives:
            path = next(archives[name] for name in ARCHIVES if name in archives)
            files = _members(path, budget)
        else:
            for name, what in OTHERS.items():
                if os.path.exists(path / name):
                    raise DataError(f"{path} holds {what} ({name}); expected {ARCHIVES[0]}")
            return None
    batches: dict[str, Raw] = {}
    for name, content in files:
        label = f"{name} in {path}"
        stem = name.removesuffix(".bin")
        if stem in batches:
            raise DataError(f"{path} holds {stem} twice")
        if name.endswith(".bin"):
            batches[stem] = _binary(content, label)
        else:
            batches[stem] = _pickled(content, label, budget)
    missing = [name for name in NAMES if name not in batches]
    if missing:
        raise DataError(f"{path} holds no {missing[0]}; expected {', '.join(NAMES)}")
    for name in NAMES:  # whatever the number is, it is the same for all: 10,000 as published
        count, first = len(batches[name].images), len(batches[NAMES[0]].images)
        if count != first:
            raise DataError(
                f"{name} in {path} holds {count} images, but {NAMES[0]} {first}; expected the same "
                "number in all six batches"
            )
    train = Raw(*(np.concatenate(arrays) for arrays in zip(*map(batches.pop, TRAIN), strict=True)))
    return _images_last(train), _images_last(batches["test_batch"])


def _images_last(raw: Raw) -> Raw:
    """From 1024 reds, 1024 greens, 1024 blues a row to (N, 32, 32, 3)."""
    return Raw(raw.images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), raw.labels)


def _binary(content: bytes, label: str) -> Raw:
    if len(content) % (1 + PIXELS):
        raise DataError(
            f"{label} has {len(content)} bytes; expected a multiple of {1 + PIXELS}, a label and "
            f"{PIXELS} pixels an image"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + PIXELS)
    return Raw(rows[:, 1:], rows[:, 0])


def _pickled(content: bytes, label: str, budget: Budget) -> Raw:
    batch = loads(content, label, budget)
    if not isinstance(batch, dict):
        raise DataError(f"{label} holds a {type(batch).__name__}; expected a dict")
    images, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", "labels"))
    if "fine_labels" in batch or b"fine_labels" in batch:
        raise DataError(f"{label} has fine_labels: it is of CIFAR-100, expected CIFAR-10")
    if not isinstance(images, Array) or images.value is None or images.value.dtype != np.uint8:
        raise DataError(f"{label} has no array of bytes called data")
    if images.value.ndim != 2 or images.value.shape[1] != PIXELS:
        raise DataError(f"{label} has data of shape {images.value.shape}; expected (N, {PIXELS})")
    if isinstance(labels, Array) and labels.value is not None and labels.value.ndim == 1:
        labels = labels.value.tolist()
    if not isinstance(labels, list) or any(type(n) is not int or abs(n) > 255 for n in labels):
        raise DataError(f"{label} has no list of whole numbers from 0 to 9 called labels")
    if len(labels) != len(images.value):
        raise DataError(f"{label} has {len(images.value)} images but {len(labels)} labels")
    return Raw(images.value, np.array(labels, np.int32))


def _files(found: dict[str, Path], budget: Budget) -> Iterator[tuple[str, bytes]]:
    """The batches in a directory, as pickles where it has both kinds."""
    pickles = any(not name.endswith(".bin") for name in found)
    for name, path in found.items():
        if name.endswith(".bin") != pickles:
            try:
                yield name, whole(path, budget)
            except (OSError, ValueError) as error:
                raise DataError(f"{path} cannot be read: {reason(error)}") from None


def _members(path: Path, budget: Budget) -> Iterator[tuple[str, bytes]]:
    """The batches in a tar archive, in its order, one in memory at a time."""
    try:
        with Stream(path, budget) as stream:
            if not stream.gzipped and b"ustar" not in stream.start[257:263]:
                raise ValueError(f"Not a gzipped file, nor a tar: it {looks(stream.start)}")
            for parts, content in tar.members(stream):
                if parts and parts[-1] in FILES:
                    yield parts[-1], content()
    except DataError:
        raise
    except Exception as error:  # a damaged archive breaks the reader in any way there is
        raise DataError(f"{path} cannot be read as a .tar.gz: {reason(error)}") from None
