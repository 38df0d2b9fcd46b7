"""SVHN, cropped to 32 x 32, in the MATLAB files its authors publish."""

import io
import os.path
import struct
import zlib
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import MAX_BYTES, DataError, Raw, reason

FILES = ("train_32x32.mat", "test_32x32.mat")
COMPRESSED = 15  # miCOMPRESSED: an element that is another one, deflated
NUMBERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "double")


def read(directory: Path) -> tuple[Raw, Raw] | None:
    """Both parts: bytes (N, 32, 32, 3), labels (N,), where 0 is the digit 0 that files call 10.

    None where ``directory`` holds neither file. Raises DataError when one is missing or damaged.
    """
    if not any(os.path.isfile(directory / name) for name in FILES):
        return None
    train, test = (_read_one(directory / name) for name in FILES)
    return train, test


def _read_one(path: Path) -> Raw:
    from scipy import io as matlab

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
        plain = _decompressed(content)
        del content
        # The shapes are looked at before the arrays are made.
        found = {name: (shape, kind) for name, shape, kind in matlab.whosmat(plain)}
        shape, kind = found.get("X", ((), "no variable"))
        if len(shape) != 4 or shape[:3] != (32, 32, 3) or kind != "uint8":
            raise DataError(
                f"{path} has as X {kind} of shape {shape}; expected uint8 of shape (32, 32, 3, N)"
            )
        count = shape[3]
        shape, kind = found.get("y", ((), "no variable"))
        if shape not in ((count, 1), (1, count)) or kind not in NUMBERS:
            raise DataError(
                f"{path} has as y {kind} of shape {shape}; expected {count} labels, one an image"
            )
        variables = matlab.loadmat(plain, variable_names=["X", "y"])
        images, labels = variables["X"], variables["y"].reshape(-1)
        if images.shape != (32, 32, 3, count) or images.dtype != np.uint8 or len(labels) != count:
            raise DataError(f"{path} holds something else than it says; copy it again")
    except DataError:
        raise
    except Exception as error:  # a damaged file breaks the reader in any way there is
        raise DataError(f"{path} cannot be read as a MATLAB file: {reason(error)}") from None
    return Raw(images.transpose(3, 0, 1, 2), np.where(labels == 10, 0, labels))


def _decompressed(content: bytes) -> io.BytesIO:
    """The same file with its elements inflated, which scipy would do to any size."""
    order = "<" if content[126:128] == b"IM" else ">"
    plain, place = io.BytesIO(), 128
    plain.write(content[:place])
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        element = memoryview(content)[place + 8 : place + 8 + size]
        if len(element) != size:
            raise ValueError("it is cut short")
        begin = plain.tell()
        if kind == COMPRESSED:
            inflate = zlib.decompressobj()
            for start in range(0, size, 2**16):
                plain.write(inflate.decompress(element[start : start + 2**16]))
                if plain.tell() > MAX_BYTES:
                    raise ValueError(f"it grows to more than {MAX_BYTES} bytes")
            if not inflate.eof:
                raise ValueError("it is cut short")
        else:
            plain.write(content[place : place + 8 + size])
        with plain.getbuffer() as view:
            _check_sizes(view, begin + 8, order)
        place += 8 + size
    plain.seek(0)
    return plain


def _check_sizes(view: memoryview, place: int, order: str) -> None:
    """Raise ValueError where a part of a variable, from ``place`` on, claims more than there is.

    scipy makes room for what a part claims before it reads it.
    """
    while place + 8 <= len(view):
        kind, size = struct.unpack_from(f"{order}II", view, place)
        place += 8
        if kind >> 16 == 0:  # otherwise the part is so short that it stands within its tag
            if size > len(view) - place:
                raise ValueError("it is cut short")
            place += size + -size % 8
