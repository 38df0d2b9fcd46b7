"""Image data sets through the package tensorflow-datasets, read without TensorFlow."""

import importlib.util
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import DataError


def load_images(
    name: str, split: str, *, data_dir: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) as bytes and labels (N,) of one split of a tensorflow-datasets data set.

    Downloads and prepares it on first use, into ``data_dir`` or where TFDS_DATA_DIR says, as array
    records. That takes TensorFlow, which writes the images; they are read without it. Raises
    DataError when a package is missing or the data cannot be had.
    """
    try:
        # By name: the package logs what it fails to import and goes on without its functions.
        from tensorflow_datasets import data_source
    except ImportError as error:
        raise DataError(
            f'--data tfds needs tensorflow-datasets ({error}); run: pip install -e ".[data]"'
        ) from None
    can_prepare = importlib.util.find_spec("tensorflow") is not None
    try:
        source = data_source(name, split=split, data_dir=data_dir, download=can_prepare)
        examples = [(example["image"], example["label"]) for example in source]
        images, labels = zip(*examples, strict=True)
        return np.stack(images), np.asarray(labels)
    except Exception as error:  # any of the package's dependencies may fail, each in its own way
        reason = str(error).strip().splitlines() or [type(error).__name__]
        need = "a network" if can_prepare else "TensorFlow (pip install tensorflow) and a network"
        raise DataError(
            f"tensorflow-datasets could not provide {name!r} ({reason[0]}); it needs {need} on "
            "first use, or a data set prepared as array_record in TFDS_DATA_DIR"
        ) from None
