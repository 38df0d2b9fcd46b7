"""IDX files, the format MNIST is published in, gzipped or not."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import DataError

MAX_BYTES = 2**31  # more than any IDX data set of unsigned bytes in use; bounds what a file can ask
UNSIGNED_BYTE = 0x08


def read_idx(path: Path, *, ndim: int) -> np.ndarray:
    """The array of unsigned bytes in an IDX file with ``ndim`` axes.

    The header is two zero bytes, the element type, the number of axes, and each axis's length as a
    big-endian 32-bit integer. Raises DataError when the file is anything else, cut short, longer
    than it says, or larger than 2 GiB.
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
        raise DataError(f"{path} cannot be read: {error}") from None
    if len(body) != size:
        state = "cut short" if len(body) < size else "longer than its header says"
        raise DataError(
            f"{path} is {state}: expected {size} bytes for the shape {shape}; copy it again"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)
