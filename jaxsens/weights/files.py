"""Named arrays in a file somebody else wrote: safetensors and .npz, read without trusting them."""

import dataclasses
import functools
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsens.checkpoints import CheckpointError

MAX_HEADER = 2**24  # the header of a model with ten thousand tensors takes 1 MiB
SAFETENSORS_TYPES: dict[str, np.dtype] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": jnp.dtype("bfloat16"),
}
NPZ_TYPES = ("float32", "float16")
PICKLES = (".pth", ".pt", ".bin", ".pkl", ".ckpt")


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array in a file: its shape, and a function that reads it as float32."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def shown(text: object) -> str:
    """A name in quotes, or what another library says: on one line, and short whoever wrote it."""
    line = repr(text) if isinstance(text, str) else " ".join(str(text).split())
    return line if len(line) <= 120 else f"{line[:100]}...{line[-17:]}"


def open_weights(path: Path) -> Mapping[str, Stored]:
    """The named arrays of a ``.safetensors`` or ``.npz`` file; nothing is read before it is asked.

    The arrays of a safetensors file are mapped into memory, those of an .npz file decompressed one
    at a time. Raises CheckpointError, naming the file, when it is missing, damaged or of another
    kind; pickles (.pth, .pt, .bin) are refused, because to open one is to run what it says.
    """
    path = Path(path)
    if path.suffix in PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, which may run any code when it is opened; where you trust it, "
            'convert it once: python -c "import sys, torch, safetensors.torch as s; '
            "d = torch.load(sys.argv[1], weights_only=True); d = d.get('model', d); "
            's.save_file({k: v.contiguous() for k, v in d.items()}, sys.argv[2])" '
            f"{path.name} {path.stem}.safetensors"
        )
    if path.suffix not in (".safetensors", ".npz"):
        raise CheckpointError(
            f"{path} is no weights file: expected a name that ends in .safetensors or .npz"
        )
    # os.path answers False where pathlib raises: names too long, directories without permission.
    if not os.path.isfile(path):
        raise CheckpointError(f"there is no weights file {path}")
    try:
        return _safetensors(path) if path.suffix == ".safetensors" else _npz(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None


def _safetensors(path: Path) -> dict[str, Stored]:
    """8 bytes of header length (little-endian), the header in JSON, then the bytes of the arrays.

    The arrays must fill what follows the header exactly, in any order, without overlap.
    """

    def damaged(why: str) -> CheckpointError:
        return CheckpointError(f"{path} is no whole safetensors file: {why}; copy it again")

    size = path.stat().st_size
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if size < 8 or start > size:
            raise damaged(f"it has {size} bytes and its header would end at {start}")
        if start - 8 > MAX_HEADER:
            raise damaged(f"its header takes {start - 8} bytes, more than {MAX_HEADER}")
        text = file.read(start - 8)
    try:
        header = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise damaged(f"its header cannot be read ({shown(error)})") from None
    if not isinstance(header, dict):
        raise damaged(f"its header is a {type(header).__name__}, expected an object")
    header.pop("__metadata__", None)
    places = []
    for name, entry in header.items():
        kind, shape, begin, end = _entry(entry)
        if kind not in SAFETENSORS_TYPES:
            raise CheckpointError(
                f"{path} holds {shown(name)} as {shown(kind)}: expected one of "
                f"{', '.join(SAFETENSORS_TYPES)}"
            )
        dtype = SAFETENSORS_TYPES[kind]
        if shape is None or end - begin != math.prod(shape) * dtype.itemsize:
            raise damaged(f"the shape and offsets of {shown(name)} do not agree")
        places.append((begin, end, name, dtype, shape))
    position = 0
    for begin, end, name, *_ in sorted(places, key=lambda place: place[:2]):
        if begin != position:
            raise damaged(f"{shown(name)} starts at byte {begin} of the data, expected {position}")
        position = end
    if position != size - start:
        raise damaged(f"its arrays take {position} bytes and {size - start} follow the header")
    if not places:
        raise damaged("it holds no arrays")
    if position == 0:
        content = np.empty(0, np.uint8)  # nothing to map
    else:
        content = np.memmap(path, np.uint8, mode="r", offset=start)

    def stored(begin: int, end: int, dtype: np.dtype, shape: tuple[int, ...]) -> Stored:
        return Stored(
            shape, lambda: content[begin:end].view(dtype).reshape(shape).astype(np.float32)
        )

    return {name: stored(b, e, dtype, shape) for b, e, name, dtype, shape in places}


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} appears twice")
        found[key] = value
    return found


def _entry(entry: Any) -> tuple[str, tuple[int, ...] | None, int, int]:
    """Type, shape, begin and end of one array; the shape is None where the entry makes no sense."""
    fields = entry if isinstance(entry, dict) else {}
    kind, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        return str(kind), None, 0, 0
    # A bool is an int to Python; no size of ours comes near 2^48.
    if any(type(number) is not int or not 0 <= number < 2**48 for number in (*shape, *offsets)):
        return str(kind), None, 0, 0
    return str(kind), tuple(shape), offsets[0], offsets[1]


def _npz(path: Path) -> dict[str, Stored]:
    """A zip of .npy files, as ``numpy.savez`` writes it."""

    def damaged(why: str) -> CheckpointError:
        return CheckpointError(f"{path} is no whole .npz file: {why}; copy it again")

    def read(info: zipfile.ZipInfo, shape: tuple[int, ...] | None) -> Any:
        """The array in a member; without its shape, only what its header says."""
        try:
            with archive.open(info) as file:
                # Later versions have headers of up to 4 GiB, which no array of numbers needs.
                if np.lib.format.read_magic(file) != (1, 0):
                    raise ValueError("expected version 1.0 of the .npy format")
                header = np.lib.format.read_array_header_1_0(file)
                if any(length < 0 for length in header[0]):
                    raise ValueError(f"its shape is {header[0]}")
                if shape is None:
                    return header
                _, columns, dtype = header
                size = math.prod(shape) * dtype.itemsize
                content = file.read(size + 1)  # to the end, where the checksum is compared
        except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise damaged(f"{shown(info.filename)} cannot be read ({shown(error)})") from None
        if len(content) != size:
            raise damaged(
                f"{shown(info.filename)} does not have the {size} bytes of its shape {shape}"
            )
        array = np.frombuffer(content, dtype).reshape(shape, order="F" if columns else "C")
        return array.astype(np.float32)

    try:
        archive = zipfile.ZipFile(path)
    except (ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise damaged(shown(error)) from None
    found: dict[str, Stored] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in found or name == info.filename:
            raise damaged(f"{shown(info.filename)} appears twice or is no .npy file")
        shape, _, dtype = read(info, None)
        if dtype.name not in NPZ_TYPES:
            raise CheckpointError(
                f"{path} holds {shown(name)} as {dtype}: expected {' or '.join(NPZ_TYPES)}"
            )
        found[name] = Stored(shape, functools.partial(read, info, shape))
    if not found:
        raise damaged("it holds no arrays")
    return found
