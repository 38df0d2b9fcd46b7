"""Image data sets through the package tensorflow-datasets, without TensorFlow."""

from pathlib import Path

import numpy as np

from jaxsens.data.dataset import DataError


def load_images(
    name: str, split: str, *, data_dir: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) as bytes and labels (N,) of one split of a tensorflow-datasets data set.

    Downloads and prepares it on first use, into ``data_dir`` or where TFDS_DATA_DIR says, as array
    records, which are read without TensorFlow. Raises DataError when the package is missing or the
    data cannot be had.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f'--data tfds needs tensorflow-datasets ({error}); run: pip install "jaxsens[data]"'
        ) from None
    try:
        source = tfds.data_source(name, split=split, data_dir=data_dir)
        examples = [(example["image"], example["label"]) for example in source]
    except Exception as error:  # any of the package's dependencies may fail, each in its own way
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"tensorflow-datasets could not provide {name!r} ({reason[0]}); it needs a network on "
            "first use, or a data set prepared as array_record in TFDS_DATA_DIR"
        ) from None
    images, labels = zip(*examples, strict=True)
    return np.stack(images), np.asarray(labels)
