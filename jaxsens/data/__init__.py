"""Real data sets from a package, a path or tensorflow-datasets: `load(name, source)`."""

from pathlib import Path

from jaxsens.data.dataset import DataError as DataError
from jaxsens.data.dataset import Dataset as Dataset
from jaxsens.data.dataset import normalise as normalise
from jaxsens.data.mnist import load_mnist

_LOADERS = {"mnist": load_mnist}


def load(name: str, source: str | Path) -> Dataset:
    """Load the data set ``name`` from ``source``: "embedded", "tfds", or the path of its files.

    Images come as float32 (N, H, W, C) in [-1, 1], labels as int32 (N,).
    Raises DataError (a ValueError) with one line when the data are missing, foreign or damaged.
    """
    if name not in _LOADERS:
        raise DataError(f"no data set is called {name!r}; known: {', '.join(sorted(_LOADERS))}")
    return _LOADERS[name](source)
