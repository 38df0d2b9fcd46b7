"""CIFAR-10 as its authors publish it: the archives and directories for Python and for C."""

import gzip
import os.path
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import DataError, Raw, reason, shown
from jaxsens.data.files.bounded import Stream
from jaxsens.data.files.restricted_pickle import Array, loads

PIXELS = 32 * 32 * 3
MAX_BATCH = 2**26  # a batch of 10,000 is 31 MB
MAX_MEMBERS = 100  # the archives have 9
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
NAMES = (*TRAIN, "test_batch")
FILES = tuple(name + suffix for name in NAMES for suffix in ("", ".bin"))
# Where to look below a path, the Python version first: both hold the same images.
PLACES = ("", "cifar-10-batches-py", "cifar-10-batches-bin")
ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")


def read(path: Path) -> tuple[Raw, Raw] | None:
    """Both parts: bytes (N, 32, 32, 3), labels (N,); None where ``path`` holds no batches.

    ``path`` is one of the two archives, what they unpack to, or a directory that holds either.
    Archives are never extracted, and pickles can make nothing but arrays of bytes, lists and
    numbers. Raises DataError when a batch is missing, damaged or shorter than the others.
    """
    if os.path.isfile(path):
        if not path.name.lower().endswith((".tar.gz", ".tgz")):
            return None
        files = _members(path)
    else:
        folders = [path / p for p in PLACES if any(os.path.isfile(path / p / f) for f in FILES)]
        archives = [path / name for name in ARCHIVES if os.path.isfile(path / name)]
        if not folders and not archives:
            return None
        path = (folders + archives)[0]
        files = _files(path) if folders else _members(path)
    batches: dict[str, Raw] = {}
    for name, content in files:
        label = f"{name} in {path}"
        stem = name.removesuffix(".bin")
        if stem in batches:
            raise DataError(f"{path} holds {stem} twice")
        batches[stem] = (_binary if name.endswith(".bin") else _pickled)(content, label)
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


def _pickled(content: bytes, label: str) -> Raw:
    batch = loads(content, label)
    if not isinstance(batch, dict):
        raise DataError(f"{label} holds a {type(batch).__name__}; expected a dict")
    images, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", "labels"))
    if not isinstance(images, Array) or images.value is None:
        raise DataError(f"{label} has no array called data")
    if images.value.ndim != 2 or images.value.shape[1] != PIXELS:
        raise DataError(f"{label} has data of shape {images.value.shape}; expected (N, {PIXELS})")
    if not isinstance(labels, list) or any(type(n) is not int or abs(n) > 255 for n in labels):
        raise DataError(f"{label} has no list of whole numbers from 0 to 9 called labels")
    if len(labels) != len(images.value):
        raise DataError(f"{label} has {len(images.value)} images but {len(labels)} labels")
    return Raw(images.value, np.array(labels, np.int32))


def _files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """The batches in a directory."""
    for name in FILES:
        if os.path.isfile(directory / name):
            try:
                with open(directory / name, "rb") as file:
                    content = file.read(MAX_BATCH + 1)
            except OSError as error:
                raise DataError(f"{directory / name} cannot be read: {reason(error)}") from None
            if len(content) > MAX_BATCH:
                raise DataError(f"{directory / name} is larger than {MAX_BATCH} bytes")
            yield name, content


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The batches in a tar archive, in its order, one in memory at a time."""
    try:
        with (
            gzip.open(path) as file,
            tarfile.open(fileobj=(stream := Stream(file)), mode="r|") as archive,
        ):
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise DataError(f"{path} has more than {MAX_MEMBERS} members; expected 9")
                parts = member.name.split("/")
                if member.name.startswith("/") or ".." in parts or "\\" in member.name:
                    raise DataError(f"{path} names a place outside itself: {shown(member.name)}")
                if not (member.isreg() or member.isdir()):
                    raise DataError(
                        f"{shown(member.name)} in {path} is a link or a device; expected files only"
                    )
                if member.isreg() and parts[-1] in FILES:
                    if member.size > MAX_BATCH:
                        raise DataError(f"{parts[-1]} in {path} is larger than {MAX_BATCH} bytes")
                    content = archive.extractfile(member)
                    assert content is not None  # it is a regular file
                    yield parts[-1], content.read()
            while stream.read(2**20):  # to its end, where the checksum is
                pass
    except DataError:
        raise
    except Exception as error:  # a damaged archive breaks the reader in any way there is
        raise DataError(f"{path} cannot be read as a .tar.gz: {reason(error)}") from None
