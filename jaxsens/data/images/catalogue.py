"""The data sets of images: what is true of each wherever it comes from, and its sources in turn."""

import dataclasses
import functools
import os.path
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from jaxsens.data.dataset import DataError, Dataset, Raw, image_split
from jaxsens.data.files import idx, npz
from jaxsens.data.files.budget import Budget
from jaxsens.data.files.names import find, holding, plain
from jaxsens.data.files.opened import WholeFile, looks
from jaxsens.data.images import cifar, folder_arrays, identity, photo_crops, svhn
from jaxsens.data.images import mnist as digits
from jaxsens.data.images import tensorflow_datasets as tfds


class Kind(NamedTuple):
    """What the images of a data set are: its name, its title in messages, classes, (H, W, C)."""

    name: str
    title: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where a data set can come from.

    ``read`` knows the format it is published in, called ``published`` in messages, and answers None
    where nothing at a path is of that format; one of its ``files`` stands for their folder.
    ``tfds`` is its name in tensorflow-datasets. ``read_embedded`` reads ``embedded``, which an
    installed package carries in its place.
    """

    kind: Kind
    published: str
    read: Callable[[Path, Budget], tuple[Raw, Raw] | None]
    files: Collection[str]
    tfds: str
    embedded: Kind
    read_embedded: Callable[[], tuple[Raw, Raw]]


DIGITS = tuple("0123456789")
GARMENTS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_FOLDERS = ("fashionmnist", "fashion-mnist", "fashion_mnist")
FOUR_FILES = "its four IDX files (train-images-idx3-ubyte.gz, ...)"

MNIST = Kind("mnist", "MNIST", DIGITS, (28, 28, 1))
FASHION = Kind("fashion-mnist", "Fashion-MNIST", GARMENTS, (28, 28, 1))
CIFAR10 = Kind("cifar10", "CIFAR-10", THINGS, (32, 32, 3))
SVHN = Kind("svhn", "SVHN", DIGITS, (32, 32, 3))
CROPS = Kind("photo-crops", "the photo crops", photo_crops.CLASSES, (32, 32, 3))

CATALOGUE = {
    sources.kind.name: sources
    for sources in (
        Sources(
            *(MNIST, FOUR_FILES, functools.partial(idx.read, folders=("mnist",)), idx.NAMES),
            *("mnist", MNIST, digits.read_embedded),
        ),
        Sources(
            *(FASHION, FOUR_FILES, functools.partial(idx.read, folders=FASHION_FOLDERS), idx.NAMES),
            *("fashion_mnist", FASHION, idx.read_debian),
        ),
        Sources(
            *(CIFAR10, "cifar-10-python.tar.gz or cifar-10-binary.tar.gz", cifar.read, cifar.FILES),
            *("cifar10", CROPS, photo_crops.read),
        ),
        Sources(
            *(SVHN, "train_32x32.mat and test_32x32.mat", svhn.read, svhn.FILES),
            *("svhn_cropped", CROPS, photo_crops.read),
        ),
    )
}


def load(name: str, source: str | Path) -> Dataset:
    """Load ``mnist``, ``fashion-mnist``, ``cifar10`` or ``svhn`` (32 x 32) from ``source``.

    "tfds" is the package tensorflow-datasets, which downloads on first use; "embedded" is what an
    installed package carries (5,000 digits of MNIST; Debian's Fashion-MNIST; for the two colour
    sets crops of photographs, another task, called ``photo-crops``). Anything else is a path to the
    files as they are published, to one of them or to a folder above; to an image folder or a zip of
    one (train/<class>/<name>.png), an .npz file with train_images, train_labels, test_images and
    test_labels, or a directory that tensorflow-datasets prepared. What lies there decides; nothing
    is extracted or written.

    Images come as float32 (N, H, W, C) in [-1, 1], labels as int32 (N,), places in ``classes``.
    Raises DataError (a ValueError) with one line when the data are missing, foreign or damaged, and
    when their counts are those of another data set of the same format.
    """
    if name not in CATALOGUE:
        raise DataError(f"no data set is called {name!r}; known: {', '.join(sorted(CATALOGUE))}")
    sources = CATALOGUE[name]
    kind = sources.kind
    if source == "embedded":
        kind, parts = sources.embedded, sources.read_embedded()
    elif source == "tfds":
        parts = tfds.read_prepared(sources.tfds, Budget())
    else:
        parts = _read_path(sources, source)
        identity.check(name, *parts, where=str(source))
    splits = []
    for part, raw in zip(("training", "test"), parts, strict=True):
        where = f"the {part} part of {kind.title} from {source}"
        splits.append(image_split(raw, shape=kind.shape, classes=len(kind.classes), where=where))
    return Dataset(kind.name, str(source), kind.classes, *splits)


def _read_path(sources: Sources, source: str | Path) -> tuple[Raw, Raw]:
    path = Path(source)
    readers: list[Callable[[Path, Budget], tuple[Raw, Raw] | None]] = [
        sources.read,
        lambda path, budget: npz.read(_archive(path, sources.kind.name, budget), budget),
        lambda path, budget: tfds.read_directory(path, sources.tfds, budget),
        lambda path, budget: folder_arrays.read(
            path, sources.kind.classes, sources.kind.shape, budget
        ),
    ]
    # os.path answers False where pathlib raises: names too long, directories without permission.
    if source == "":  # which pathlib takes for the directory that the command was started in
        problem = f"the empty path holds no {sources.kind.title} that can be read"
    elif os.path.exists(path):
        budget = Budget()  # one for whatever lies there
        for reader in readers:
            try:
                parts = reader(path, budget)
            except DataError as error:
                if os.path.isdir(path) or plain(path.name) not in sources.files:
                    raise
                raise DataError(f"in the folder of {path}: {error}") from None
            if parts is not None:
                return parts
        problem = f"{path} holds no {sources.kind.title} that can be read{_instead(path)}"
    elif os.path.islink(path):
        problem = f"{path} is a link to {os.readlink(path)}, where there is nothing"
    else:
        problem = f"there is no file or directory {path}"
    raise DataError(
        f"{problem}; expected {sources.published}, an image folder or zip "
        "(train/<class>/<name>.png), an .npz, a tfds directory, or --data embedded"
    )


def _archive(path: Path, name: str, budget: Budget) -> Path:
    """The .npz in a folder that is called by the data set, as Keras keeps it."""
    if not os.path.isdir(path):
        return path
    return find(path, {f"{name}.npz"}, budget).get(f"{name}.npz", path)


def _instead(path: Path) -> str:
    """What lies at a path instead."""
    if os.path.isdir(path):
        return holding(path)
    try:
        with WholeFile(path) as file:
            return f": it {looks(file.read(512))}"
    except OSError as error:
        return f": {error}"
