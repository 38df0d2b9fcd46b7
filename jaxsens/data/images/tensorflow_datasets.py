"""Image data sets through the package tensorflow-datasets, read without TensorFlow."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from jaxsens.data.dataset import DataError, Raw, reason
from jaxsens.data.files.budget import WAIT, Budget

OTHER_WAYS = "--data PATH (its files) and --data embedded do without"

Found = TypeVar("Found")


def read_prepared(name: str, budget: Budget) -> tuple[Raw, Raw]:
    """Both parts of a data set, which the package downloads and prepares on first use."""
    return Raw(*load_images(name, "train", budget)), Raw(*load_images(name, "test", budget))


def read_directory(path: Path, name: str, budget: Budget) -> tuple[Raw, Raw] | None:
    """Both parts of a data set prepared in ``path/name/version``; None where there is none."""
    try:
        found = any(path.glob(f"{name}/*/dataset_info.json"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    if not found:
        return None
    train, test = (
        Raw(*load_images(name, split, budget, data_dir=path, download=False))
        for split in ("train", "test")
    )
    return train, test


def load_images(
    name: str,
    split: str,
    budget: Budget,
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) as bytes and labels (N,) of one split of a tensorflow-datasets data set.

    As :func:`read_split`.
    """
    return read_split(
        name, split, lambda source: _stack(source, budget), data_dir=data_dir, download=download
    )


def load_columns(name: str, split: str, columns: Sequence[str], budget: Budget) -> list[list[Any]]:
    """Some features of every example, one list a feature. As :func:`read_split`."""

    def read(source: Any) -> list[list[Any]]:
        found: list[list[Any]] = [[] for _ in columns]
        for example in source:
            budget.count()
            for values, column in zip(found, columns, strict=True):
                values.append(example[column])
        return found

    return read_split(name, split, read)


def read_split(
    name: str,
    split: str,
    read: Callable[[Any], Found],
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
) -> Found:
    """What ``read`` makes of one split of a tensorflow-datasets data set, a sequence of examples.

    Downloads and prepares it on first use, into ``data_dir`` or where TFDS_DATA_DIR says, as array
    records. That takes TensorFlow, which writes the examples; they are read without it. Raises
    DataError when a package is missing or the data cannot be had, at once where there is no
    network; and when they are not to be downloaded and ``data_dir`` does not hold them.
    """
    try:
        # By name: the package logs what it fails to import and goes on without its functions.
        from tensorflow_datasets import builder, data_source
    except ImportError as error:
        raise DataError(
            f"--data tfds needs tensorflow-datasets ({reason(error)}); run: "
            f'pip install -e ".[data]"; {OTHER_WAYS}'
        ) from None
    can_prepare = importlib.util.find_spec("tensorflow") is not None
    try:
        if download and can_prepare:
            _reach(builder(name, data_dir=data_dir, file_format="array_record"))
        source = data_source(
            name, split=split, data_dir=data_dir, download=download and can_prepare
        )
        return read(source)
    except Exception as error:  # any of the package's dependencies may fail, each in its own way
        if not download:
            raise DataError(
                f"{data_dir} holds no {name!r} that tensorflow-datasets prepared as array_record "
                f"({reason(error)})"
            ) from None
        need = "a network" if can_prepare else "TensorFlow (pip install tensorflow) and a network"
        raise DataError(
            f"tensorflow-datasets could not provide {name!r} ({reason(error)}); it needs {need} on "
            f"first use; {OTHER_WAYS}"
        ) from None


def _stack(source: Any, budget: Budget) -> tuple[np.ndarray, np.ndarray]:
    first = np.asarray(source[0]["image"])
    budget.keep(len(source) * first.nbytes)
    images, labels = np.empty((len(source), *first.shape), first.dtype), []
    for i, example in enumerate(source):
        images[i] = example["image"]
        labels.append(example["label"])
    return images, np.asarray(labels)


def _reach(builder: Any) -> None:
    """Raise OSError at once where there is no network; the package would try for minutes.

    The request is the package's own first one, through the same client and thus the same proxies.
    Whatever a server answers will do. What was downloaded before may need no network.
    """
    downloads = Path(builder.data_dir).parent.parent / "downloads"
    if builder.is_prepared() or any(path.is_file() for path in downloads.rglob("*")):
        return
    import requests

    for url in list(builder.url_infos or ())[:1]:
        try:
            requests.get(url, stream=True, timeout=WAIT).close()
        except (requests.ConnectionError, requests.Timeout):
            raise OSError(f"{urlsplit(url).hostname} cannot be reached") from None
