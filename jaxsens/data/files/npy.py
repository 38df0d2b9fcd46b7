"""NumPy arrays in files and in .npz archives, with nothing done that their headers ask for."""

import io
import math
import warnings
import weakref
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from jaxsens.data.dataset import reason, shown
from jaxsens.data.files.budget import AXES, MEMBERS, Budget
from jaxsens.data.files.opened import START, WholeFile, looks

MAX_HEADER = 10_000  # bytes, of a Python expression
LENGTHS = {b"\1\0": 2, b"\2\0": 4}  # of the header's length, by version of the format


class Header(NamedTuple):
    """What an array says of itself."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def read_header(file: IO[bytes]) -> Header:
    """The header at the start of a .npy file. Raises ValueError for whatever is wrong with it."""
    start = file.read(8)
    if start[:6] != b"\x93NUMPY":
        raise ValueError(f"it is no .npy file: it {looks(start)}")
    width = LENGTHS.get(start[6:])
    if width is None:
        raise ValueError(f"it is of .npy version {tuple(start[6:])}; expected (1, 0) or (2, 0)")
    length = file.read(width)
    if (size := int.from_bytes(length, "little")) > MAX_HEADER:
        raise ValueError(f"its header takes {size} bytes; expected at most {MAX_HEADER}")
    content = io.BytesIO(length + file.read(size))
    form = np.lib.format
    read = form.read_array_header_1_0 if width == 2 else form.read_array_header_2_0
    try:
        with warnings.catch_warnings():  # of the compiler, which meets the header first
            warnings.simplefilter("ignore")
            header = Header(*read(content))
    except Exception as error:  # it is compiled, and breaks the compiler in many ways
        raise ValueError(f"its header cannot be read ({reason(error)})") from None
    if len(header.shape) > AXES or not all(0 <= n < 2**40 for n in header.shape):
        raise ValueError(f"its shape is {shown(str(header.shape))}")
    return header


def read_body(file: IO[bytes], header: Header, budget: Budget) -> np.ndarray:
    """The array that follows its header and ends the file. Raises ValueError."""
    if header.dtype.hasobject or header.dtype.itemsize == 0:
        raise ValueError(f"it holds {header.dtype}; expected numbers")
    size = budget.keep(math.prod(header.shape) * header.dtype.itemsize)
    budget.spend(size)
    content = file.read(size + 1)  # to the end, where a zip compares its checksum
    if len(content) != size:
        state = "shorter" if len(content) < size else "longer"
        raise ValueError(
            f"it is {state} than its header says: expected {size} bytes for {header.shape}"
        )
    array = np.frombuffer(content, header.dtype)
    return array.reshape(header.shape, order="F" if header.fortran else "C")


def open_archive(path: Path, budget: Budget) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """A zip of .npy files as ``numpy.savez`` writes it, and its members by name without .npy.

    Raises OSError or ValueError; a member may still be damaged.
    """
    file = WholeFile(path, budget)
    try:
        start = file.read(START)
        if not start.startswith(b"PK"):
            raise ValueError(f"it is no zip archive: it {looks(start)}")
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # the directory of a damaged archive breaks the reader
            raise ValueError(reason(error)) from None
        weakref.finalize(archive, file.close)  # the archive closes only what it opened itself
        if len(archive.infolist()) > MEMBERS:
            raise ValueError(f"it has more than {MEMBERS} members")
        members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            budget.count()
            name = info.filename.removesuffix(".npy")
            if name in members or name == info.filename:
                raise ValueError(f"{shown(info.filename)} appears twice or is no .npy file")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{shown(info.filename)} is not deflated; write it by numpy.savez")
            if info.flag_bits & 1:
                raise ValueError(f"{shown(info.filename)} is encrypted; decrypt the archive first")
            members[name] = info
    except BaseException:
        file.close()
        raise
    return archive, members
