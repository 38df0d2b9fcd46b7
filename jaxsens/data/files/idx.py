"""IDX files, the format MNIST and Fashion-MNIST are published in, gzipped or not."""

import gzip
import math
import os.path
import zlib
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import MAX_BYTES, DataError, Raw, reason

UNSIGNED_BYTE = 0x08
KINDS = {"images": 3, "labels": 1}  # and their numbers of axes
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where dataset-fashion-mnist puts its files


def read(directory: Path) -> tuple[Raw, Raw] | None:
    """Both parts from ``directory``: bytes (N, H, W), labels (N,); None where no IDX file lies.

    The files are called ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, and the same with
    ``t10k`` for the test part; perhaps with ``.gz``. Raises DataError when one is missing or wrong.
    """
    stems = {(p, k): _names(f"{p}-{k}", n) for p in ("train", "t10k") for k, n in KINDS.items()}
    if not any(os.path.isfile(directory / name) for names in stems.values() for name in names):
        return None
    train, test = (
        Raw(*(_read_one(directory, stems[p, k], n) for k, n in KINDS.items()))
        for p in ("train", "t10k")
    )
    return train, test


def read_debian() -> tuple[Raw, Raw]:
    """Fashion-MNIST from Debian's package. Raises DataError when it is not installed."""
    parts = read(DEBIAN)
    if parts is None:
        raise DataError(
            "the embedded Fashion-MNIST is Debian's package, which is not installed; run: sudo apt "
            "install dataset-fashion-mnist, or give --data tfds or --data PATH of its IDX files"
        )
    return parts


def read_idx(path: Path, *, ndim: int) -> np.ndarray:
    """The array of unsigned bytes in an IDX file with ``ndim`` axes.

    The header is two zero bytes, the element type, the number of axes, and each axis's length as a
    big-endian 32-bit integer. Raises DataError when the file is anything else, cut short, longer
    than it says, or larger than 256 MiB.
    """
    header_bytes = 4 + 4 * ndim
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(header_bytes)
            expected = bytes((0, 0, UNSIGNED_BYTE, ndim))
            if header[:4] != expected:
                raise DataError(
                    f"{path} is no IDX file of unsigned bytes with {ndim} axes: it starts with "
                    f"{header[:4].hex() or 'nothing'}, expected {expected.hex()}"
                )
            if len(header) < header_bytes:
                raise DataError(f"{path} is cut short inside its header; copy it again")
            shape = tuple(int(n) for n in np.frombuffer(header[4:], ">u4"))
            size = math.prod(shape)
            if size > MAX_BYTES:
                raise DataError(f"{path} claims the shape {shape}, more than {MAX_BYTES} bytes")
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    if len(body) != size:
        state = "cut short" if len(body) < size else "longer than its header says"
        raise DataError(
            f"{path} is {state}: expected {size} bytes for the shape {shape}; copy it again"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _names(stem: str, ndim: int) -> list[str]:
    # Both spellings are in circulation: train-images-idx3-ubyte and train-images.idx3-ubyte.
    return [f"{stem}{dot}idx{ndim}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]


def _read_one(directory: Path, names: list[str], ndim: int) -> np.ndarray:
    for name in names:
        if os.path.isfile(directory / name):
            return read_idx(directory / name, ndim=ndim)
    raise DataError(f"{directory} holds none of {', '.join(names)}")
