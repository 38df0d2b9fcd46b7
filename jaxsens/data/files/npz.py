"""NumPy archives: one .npz file with both parts of a data set."""

import os.path
import zipfile
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import DataError, Raw, reason, shown
from jaxsens.data.files import npy
from jaxsens.data.files.budget import Budget

KEYS = ("train_images", "train_labels", "test_images", "test_labels")
# Others in circulation for the same four, in small letters: Keras, and what people save.
SYNONYMS = (
    KEYS,
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_x", "train_y", "test_x", "test_y"),
    ("train_data", "train_labels", "test_data", "test_labels"),
    ("images_train", "labels_train", "images_test", "labels_test"),
    ("x_train", "t_train", "x_test", "t_test"),
    ("training_images", "training_labels", "test_images", "test_labels"),
)


def read(path: Path, budget: Budget) -> tuple[Raw, Raw] | None:
    """Both parts from the arrays ``train_images`` (N, H, W, C) or (N, H, W), ``train_labels`` (N,)
    or (N, 1), ``test_images`` and ``test_labels``, or of Keras' names ``x_train``, ``y_train``,
    ``x_test`` and ``y_test``; None where ``path`` is no .npz file.

    Images are uint8, labels whole numbers. Raises DataError when an array is missing, damaged, of
    another type or too large; what its header claims is looked at before it is read.
    """
    if path.suffix.lower() != ".npz" or not os.path.lexists(path) or os.path.isdir(path):
        return None
    try:
        archive, members = npy.open_archive(path, budget)
        with archive.fp, archive:  # type: ignore[union-attr]
            names = {name.lower(): name for name in members}
            if "val_images" in names:
                raise DataError(f"{path} has val_images, as MedMNIST has: it is another data set")
            keys = next((keys for keys in SYNONYMS if set(keys) <= set(names)), None)
            if keys is None:
                missing = next(key for key in KEYS if key not in names)
                found = shown(", ".join(sorted(members))) or "nothing"
                raise DataError(
                    f"{path} holds no {missing} but {found}; expected {', '.join(KEYS)}"
                )
            arrays = [
                _array(archive, members[names[key]], kind, f"{key} in {path}", budget)
                for key, kind in zip(keys, ("images", "labels") * 2, strict=True)
            ]
    except DataError:
        raise
    except Exception as error:  # a damaged archive breaks the reader in any way there is
        raise DataError(f"{path} cannot be read as an .npz file: {reason(error)}") from None
    return Raw(*arrays[:2]), Raw(*arrays[2:])


def _array(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, kind: str, label: str, budget: Budget
) -> np.ndarray:
    try:
        with archive.open(info) as file:
            header = npy.read_header(file)
            kinds, words = ("u", "uint8") if kind == "images" else ("iu", "whole numbers")
            if header.dtype.kind not in kinds or (kind == "images" and header.dtype.itemsize != 1):
                raise DataError(f"{label} holds {header.dtype}; expected {words}")
            array = npy.read_body(file, header, budget)
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(f"{label} cannot be read: {reason(error)}") from None
    # Keras has labels of CIFAR-10 in a column.
    return array[:, 0] if kind == "labels" and array.shape[1:] == (1,) else array
