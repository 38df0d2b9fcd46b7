"""Named arrays in a file somebody else wrote: safetensors and .npz, read without trusting them."""

import dataclasses
import functools
import json
import os
import re
import shlex
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsens.data.dataset import reason
from jaxsens.data.files import npy
from jaxsens.data.files.budget import AXES, Budget
from jaxsens.data.files.opened import START, WholeFile, looks, whole
from jaxsens.weights import WeightsError

MAX_HEADER = 2**24  # the header of a model with ten thousand tensors takes 1 MiB
MAX_INDEX = 2**24
MAX_SHARDS = 1000
SAFETENSORS_TYPES: dict[str, np.dtype] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": jnp.dtype("bfloat16"),
}
NPZ_TYPES = ("float32", "float16")
PICKLES = (".pth", ".pt", ".bin", ".pkl", ".ckpt")
OTHERS = {
    **{".h5": "of Keras", ".keras": "of Keras", ".pb": "of TensorFlow", ".onnx": "of ONNX"},
    **{".msgpack": "of Flax", ".gguf": "of llama.cpp", ".tflite": "of TensorFlow Lite"},
}
INDEX = ".safetensors.index.json"
SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(?:[ (-].*)?\.safetensors")  # perhaps a second copy
ADVICE = (
    "which may run any code when it is opened; where you trust it, convert it once: "
    'python -c "import sys, torch, safetensors.torch as s; '
    "d = torch.load(sys.argv[1], weights_only=True); d = d.get('model', d); "
    's.save_file({k: v.clone().contiguous() for k, v in d.items()}, sys.argv[2])"'
)


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array in a file: its shape, and a function that reads it as float32."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def shown(text: object) -> str:
    """A name in quotes, or what another library says: on one line, and short whoever wrote it."""
    line = repr(text) if isinstance(text, str) else " ".join(str(text).split())
    return line if len(line) <= 120 else f"{line[:100]}...{line[-17:]}"


def open_weights(path: str | Path) -> Mapping[str, Stored]:
    """The named arrays of a ``.safetensors`` or ``.npz`` file; nothing is read before it is asked.

    A model in shards is read whole from any of them or from its ``.safetensors.index.json``, and a
    folder from the one such file in it. The arrays of a safetensors file are mapped into memory,
    those of an .npz file decompressed one at a time. Raises WeightsError, naming the file, when it
    is missing, damaged or of another kind; pickles (.pth, .pt, .bin) are refused, because to open
    one is to run what it says.
    """
    # One budget for all shards: the largest model here takes 1.2 GB.
    budget = Budget(size=2**33, work=2**34)
    found: dict[str, Stored] = {}
    for file in weight_files(path):
        for key, stored in _open(file, budget).items():
            if key in found:
                raise WeightsError(f"{path}: {shown(key)} is in two shards")
            found[key] = stored
    return found


def weight_files(path: str | Path) -> list[Path]:
    """The file at ``path``, or all shards of the model that it is one of; of a folder, its file.

    Raises WeightsError when one is missing.
    """
    path = _the_file(Path(path))
    if path.name.endswith(INDEX):
        names = _listed(path)
    elif shard := SHARD.fullmatch(path.name):
        stem, number, count = shard.groups()
        if int(count) > MAX_SHARDS:
            raise WeightsError(
                f"{path} claims to be one shard of {int(count)}, more than {MAX_SHARDS}"
            )
        names = [f"{stem}-{i:05}-of-{count}.safetensors" for i in range(1, int(count) + 1)]
        names = [path.name if i == int(number) else name for i, name in enumerate(names, 1)]
    else:
        return [path]
    for name in names:
        if not os.path.isfile(path.parent / name) or os.path.basename(name) != name:
            raise WeightsError(
                f"{path} is of a model in several shards, and {shown(name)} does not lie beside "
                "it; fetch all of them"
            )
    return [path.parent / name for name in names]


def _the_file(path: Path) -> Path:
    # os.path answers False where pathlib raises: names too long, directories without permission.
    if os.path.isdir(path):
        try:
            names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {reason(error)}") from None
        fits = [name for name in names if name.endswith((".safetensors", ".npz", INDEX))]
        for name in ("model.safetensors", f"model{INDEX}"):
            if name in fits:
                return path / name
        if len(fits) == 1:
            return path / fits[0]
        found = shown(", ".join(fits or names)) if names else "nothing"
        raise WeightsError(f"{path} is a folder: name one weights file in it; it holds {found}")
    if path.suffix.lower() in PICKLES and os.path.lexists(path):
        raise WeightsError(
            f"{path} is a pickle, {ADVICE} {shlex.quote(path.name)} "
            f"{shlex.quote(path.stem + '.safetensors')}"
        )
    if os.path.islink(path) and not os.path.exists(path):
        raise WeightsError(f"{path} is a link to {os.readlink(path)}, which is not there")
    if not os.path.exists(path):
        raise WeightsError(f"there is no weights file {path}")
    return path


def _open(path: Path, budget: Budget) -> dict[str, Stored]:
    try:
        with WholeFile(path) as file:
            start = file.read(START)
        kind = path.suffix.lower()
        if not kind and start[8:9] == b"{":  # in the cache of the hub files have no suffix
            kind = ".safetensors"
        if kind not in (".safetensors", ".npz"):
            what = f" but {OTHERS[kind]}" if kind in OTHERS else ""
            raise WeightsError(
                f"{path} is no weights file{what}: expected a name that ends in "
                ".safetensors or .npz"
            )
        found = (_safetensors if kind == ".safetensors" else _npz)(path, start, budget)
    except WeightsError:
        raise
    except Exception as error:  # damaged files break the readers in many ways
        raise WeightsError(f"{path} cannot be read: {reason(error)}") from None
    if not found:
        raise WeightsError(f"{path} holds no arrays; copy it again")
    return found


def _listed(path: Path) -> list[str]:
    """The files that the index of a model in shards names."""
    try:
        content = whole(path, Budget(size=MAX_INDEX))
        names = set(json.loads(content)["weight_map"].values())
        if not 0 < len(names) <= MAX_SHARDS:
            raise ValueError(f"it names {len(names)} files")
    except Exception as error:  # deep or odd JSON breaks the parser in many ways
        raise WeightsError(f"{path} is no index of shards: {reason(error)}") from None
    if not all(isinstance(name, str) and SHARD.fullmatch(name) for name in names):
        raise WeightsError(f"{path} names shards that are not called x-00001-of-00002.safetensors")
    return sorted(names)


def _safetensors(path: Path, start: bytes, budget: Budget) -> dict[str, Stored]:
    """By the library, which holds offsets to the size of the file; what it leaves open is here."""
    from safetensors import safe_open

    def damaged(why: str) -> WeightsError:
        return WeightsError(f"{path} is no whole safetensors file: {why}; copy it again")

    size = os.path.getsize(path)
    length = int.from_bytes(start[:8], "little")
    if size < 8 or length > size - 8:
        what = looks(start)
        if "starts with" not in what:
            raise WeightsError(f"{path} is no safetensors file: it {what}")
        raise damaged(f"it has {size} bytes, and its header would end at {8 + length}")
    if length > MAX_HEADER:
        raise damaged(f"its header takes {length} bytes, more than {MAX_HEADER}")
    try:
        file = safe_open(path, framework="np")
    except Exception as error:
        said = reason(error).removeprefix("Error while deserializing header: ")
        raise damaged(f"of {size} bytes; {said}") from None
    found: dict[str, Stored] = {}
    for name in file.keys():  # noqa: SIM118 (it is no mapping)
        budget.count()
        view = file.get_slice(name)
        shape, kind = view.get_shape(), view.get_dtype()
        if kind not in SAFETENSORS_TYPES:
            raise WeightsError(
                f"{path} holds {shown(name)} as {shown(kind)}: expected one of "
                f"{', '.join(SAFETENSORS_TYPES)}"
            )
        if len(shape) > AXES:
            raise damaged(f"{shown(name)} has {len(shape)} axes")
        found[name] = Stored(tuple(shape), functools.partial(_tensor, file, name))
    # Tensors that share their memory are written once, and named here.
    for name, kept in (file.metadata() or {}).items():
        if kept in found and name not in found:
            found[name] = found[kept]
    return found


def _tensor(file: Any, name: str) -> np.ndarray:
    return np.asarray(file.get_tensor(name)).astype(np.float32)


def _npz(path: Path, start: bytes, budget: Budget) -> dict[str, Stored]:
    """A zip of .npy files, as ``numpy.savez`` writes it."""

    def damaged(why: str) -> WeightsError:
        return WeightsError(f"{path} is no whole .npz file: {why}; copy it again")

    def read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: npy.Header) -> np.ndarray:
        try:
            with archive.open(info) as file:
                npy.read_header(file)
                return npy.read_body(file, header, budget).astype(np.float32)
        except Exception as error:  # a damaged member breaks the reader in many ways
            raise damaged(f"{shown(info.filename)} cannot be read ({reason(error)})") from None

    try:
        archive, members = npy.open_archive(path, budget)
    except (OSError, ValueError) as error:
        raise damaged(reason(error)) from None
    found: dict[str, Stored] = {}
    for name, info in members.items():
        try:
            with archive.open(info) as file:
                header = npy.read_header(file)
        except Exception as error:  # as above
            raise damaged(f"{shown(info.filename)} cannot be read ({reason(error)})") from None
        if header.dtype.name not in NPZ_TYPES:
            # NumPy has no bfloat16 and writes its bytes without a type.
            half = ", perhaps bfloat16" if header.dtype == "V2" else ""
            raise WeightsError(
                f"{path} holds {shown(name)} as {shown(header.dtype)}{half}: expected "
                f"{' or '.join(NPZ_TYPES)}"
            )
        found[name] = Stored(header.shape, functools.partial(read, archive, info, header))
    return found
