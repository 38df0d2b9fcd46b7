"""SVHN, cropped to 32 x 32, in the MATLAB files its authors publish."""

import itertools
import math
import os.path
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxsens.data.dataset import MAX_BYTES, DataError, Raw, reason

FILES = ("train_32x32.mat", "test_32x32.mat")
MATRIX, COMPRESSED = 14, 15  # elements of a file: a variable, and one that is deflated
# How the numbers of a variable are stored, and what they are to MATLAB.
STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
CLASSES = {
    **{1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 6: "double", 7: "single"},
    **{8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32"},
    **{14: "int64", 15: "uint64"},
}
NUMBERS = range(6, 16)
COMPLEX = 0x800


class Variable(NamedTuple):
    """What a file says of a variable, and the bytes its numbers are stored in."""

    kind: str
    shape: tuple[int, ...]
    numbers: np.ndarray | None  # None for anything but real numbers


def read(directory: Path) -> tuple[Raw, Raw] | None:
    """Both parts: bytes (N, 32, 32, 3), labels (N,), where 0 is the digit 0 that files call 10.

    None where ``directory`` holds neither file. Raises DataError when one is missing or damaged.
    """
    if not any(os.path.isfile(directory / name) for name in FILES):
        return None
    train, test = (_read_one(directory / name) for name in FILES)
    return train, test


def _read_one(path: Path) -> Raw:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    if len(content) > MAX_BYTES:
        raise DataError(f"{path} is larger than {MAX_BYTES} bytes")
    if content.startswith(b"MATLAB 7.3"):
        raise DataError(f"{path} is a MATLAB 7.3 file; save it again with save -v7")
    if not content.startswith(b"MATLAB 5.0"):
        start = content[:4].hex() or "nothing"
        raise DataError(f"{path} is no MATLAB 5 file: it starts with {start}, expected 4d41544c")
    try:
        found = read_variables(content, ("X", "y"))
    except (ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{path} cannot be read as a MATLAB file: {reason(error)}") from None
    nothing = Variable("no variable", (), None)
    x, y = found.get("X", nothing), found.get("y", nothing)
    if x.numbers is None or len(x.shape) != 4 or x.shape[:3] != (32, 32, 3) or x.kind != "uint8":
        raise DataError(
            f"{path} has as X {x.kind} of shape {x.shape}; expected uint8 of shape (32, 32, 3, N)"
        )
    count = x.shape[3]
    if y.numbers is None or y.shape not in ((count, 1), (1, count)):
        raise DataError(
            f"{path} has as y {y.kind} of shape {y.shape}; expected {count} labels, one an image"
        )
    images = x.numbers.reshape(count, 3, 32, 32)  # MATLAB's first axis runs fastest
    return Raw(images.transpose(0, 3, 2, 1), np.where(y.numbers == 10, 0, y.numbers))


def read_variables(content: bytes, names: tuple[str, ...]) -> dict[str, Variable]:
    """The variables called ``names`` in a MATLAB 5 file, their numbers as stored, in one axis.

    The reader in scipy is not for files from strangers: it makes room for any size that a file
    claims, and some crash it. Raises ValueError, struct.error or zlib.error when a file is damaged.
    """
    if content[126:128] != b"IM":  # as every machine in use writes it: the last byte first
        raise ValueError("its header is damaged")
    found: dict[str, Variable] = {}
    for kind, element in _elements(memoryview(content)[128:]):
        if kind == COMPRESSED:
            kind, element = next(_elements(memoryview(_inflated(element))))
        if kind != MATRIX:
            raise ValueError(f"it holds an element of the unknown kind {kind}")
        (_, flags), (_, axes), (_, name), *rest = itertools.islice(_elements(element), 4)
        word = struct.unpack_from("<I", flags)[0]
        if bytes(name).decode("latin1") not in names:
            continue
        shape = struct.unpack(f"<{len(axes) // 4}i", axes)
        numbers = None
        if word & 0xFF in NUMBERS and not word & COMPLEX and rest:
            stored, data = rest[0]
            if stored not in STORED:
                raise ValueError(f"it holds numbers of the unknown kind {stored}")
            numbers = np.frombuffer(data, "<" + STORED[stored])
            if min(shape, default=0) < 0 or math.prod(shape) != numbers.size:
                raise ValueError(f"it holds {numbers.size} numbers for the shape {shape}")
        found[bytes(name).decode("latin1")] = Variable(
            CLASSES.get(word & 0xFF, "something"), shape, numbers
        )
    return found


def _elements(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Kind and content of each element: a tag of two words, kind and size, and what follows."""
    place = 0
    while place < len(view):
        kind, size = struct.unpack_from("<II", view, place)
        if kind >> 16:  # up to four bytes stand within the tag, in place of the size
            kind, size, start, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        else:
            start, end = place + 8, len(view)
        if size > end - start:
            raise ValueError("it is cut short")
        yield kind, view[start : start + size]
        # Elements begin at multiples of eight bytes, except behind a compressed one.
        place = start + size if kind == COMPRESSED else start + size + -(start + size - place) % 8


def _inflated(element: memoryview) -> bytearray:
    inflate, plain = zlib.decompressobj(), bytearray()
    for start in range(0, len(element), 2**16):
        plain += inflate.decompress(element[start : start + 2**16])
        if len(plain) > MAX_BYTES:
            raise ValueError(f"it grows to more than {MAX_BYTES} bytes")
    if not inflate.eof:
        raise ValueError("it is cut short")
    return plain
