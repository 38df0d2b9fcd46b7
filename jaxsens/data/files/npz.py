"""NumPy archives: one .npz file with both parts of a data set."""

import math
import zipfile
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import MAX_BYTES, DataError, Raw, reason
from jaxsens.data.files.bounded import WholeFile

KEYS = ("train_images", "train_labels", "test_images", "test_labels")


def read(path: Path) -> tuple[Raw, Raw] | None:
    """Both parts from the arrays ``train_images`` (N, H, W, C) or (N, H, W), ``train_labels`` (N,),
    ``test_images`` and ``test_labels``; None where ``path`` is no .npz file.

    Images are uint8, labels whole numbers. Raises DataError when an array is missing, damaged, of
    another type, or larger than 256 MiB; what its header claims is looked at before it is read.
    """
    if path.suffix.lower() != ".npz" or not path.is_file():
        return None
    try:
        with WholeFile(path) as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            missing = [key for key in KEYS if f"{key}.npy" not in names]
            if missing:
                raise DataError(f"{path} holds no {missing[0]}; expected {', '.join(KEYS)}")
            arrays = [_array(archive, key, f"{key} in {path}") for key in KEYS]
    except DataError:
        raise
    except Exception as error:  # a damaged archive breaks the reader in any way there is
        raise DataError(f"{path} cannot be read as an .npz file: {reason(error)}") from None
    return Raw(*arrays[:2]), Raw(*arrays[2:])


def _array(archive: zipfile.ZipFile, key: str, label: str) -> np.ndarray:
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise DataError(f"{label} is encrypted or not deflated; write it by numpy.savez_compressed")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise DataError(f"{label} is of .npy version {version}; expected (1, 0) or (2, 0)")
        kinds, words = ("u", "uint8") if key.endswith("images") else ("iu", "whole numbers")
        if dtype.kind not in kinds or (kinds == "u" and dtype.itemsize != 1):
            raise DataError(f"{label} holds {dtype}; expected {words}")
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_BYTES or size < 0:
            raise DataError(f"{label} claims the shape {shape}, more than {MAX_BYTES} bytes")
        content = file.read(size + 1)
        if len(content) != size:
            state = "shorter" if len(content) < size else "longer"
            raise DataError(f"{label} is {state} than its header says; save it again")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
