"""MATLAB 5 files: named arrays of numbers, as their bytes lie there."""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxsens.data.files.budget import AXES, Budget

MATRIX, COMPRESSED = 14, 15  # elements of a file: a variable, and one that is deflated
# How the numbers of a variable are stored, and what they are to MATLAB.
STORED = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
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


def read_variables(content: bytes, names: tuple[str, ...], budget: Budget) -> dict[str, Variable]:
    """The variables called ``names`` in a MATLAB 5 file, their numbers as stored, in one axis.

    The reader in scipy is not for files from strangers: it makes room for any size that a file
    claims, and some crash it. Raises ValueError, struct.error or zlib.error when a file is damaged.
    """
    if content[126:128] == b"MI":
        raise ValueError("its bytes stand in the order of an old machine; save it again")
    if content[126:128] != b"IM":  # as every machine in use writes it: the last byte first
        raise ValueError("its header is damaged")
    found: dict[str, Variable] = {}
    for kind, element in _elements(memoryview(content)[128:], budget):
        if kind == COMPRESSED:
            inside = _elements(memoryview(_inflated(element, budget)), budget)
            kind, element = next(inside, (0, memoryview(b"")))
        else:
            budget.keep(len(element))
        if kind != MATRIX:
            raise ValueError(f"it holds an element of the unknown kind {kind}")
        parts = _elements(element, budget)
        (_, flags), (_, axes), (_, name) = (next(parts, (0, memoryview(b""))) for _ in range(3))
        if bytes(name[:64]).decode("latin1") not in names:
            continue
        word = struct.unpack_from("<I", flags)[0]
        if len(axes) > 4 * AXES:
            raise ValueError(f"it holds an array of {len(axes) // 4} axes")
        shape = struct.unpack(f"<{len(axes) // 4}i", axes)
        numbers = None
        if word & 0xFF in NUMBERS and not word & COMPLEX:
            stored, data = next(parts, (0, memoryview(b"")))
            if stored not in STORED:
                raise ValueError(f"it holds numbers of the unknown kind {stored}")
            numbers = np.frombuffer(data, "<" + STORED[stored])
            if min(shape, default=0) < 0 or math.prod(shape) != numbers.size:
                raise ValueError(f"it holds {numbers.size} numbers for the shape {shape}")
        found[bytes(name).decode("latin1")] = Variable(
            CLASSES.get(word & 0xFF, "something"), shape, numbers
        )
    return found


def _elements(view: memoryview, budget: Budget) -> Iterator[tuple[int, memoryview]]:
    """Kind and content of each element: a tag of two words, kind and size, and what follows."""
    place = 0
    while place < len(view):
        budget.count()
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


def _inflated(element: memoryview, budget: Budget) -> bytearray:
    inflate, plain = zlib.decompressobj(), bytearray()
    for start in range(0, len(element), 2**16):
        piece = inflate.decompress(element[start : start + 2**16])
        budget.spend(budget.keep(len(piece)))
        plain += piece
    if not inflate.eof:
        raise ValueError("it is cut short")
    return plain
