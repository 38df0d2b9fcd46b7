"""A whole image folder, or a zip of one, in memory."""

import os.path
import re
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import DataError, Raw, reason, shown
from jaxsens.data.files.budget import Budget
from jaxsens.data.images.image_folder import ImageTree
from jaxsens.data.images.pictures import decoded

MODES = {1: "L", 3: "RGB"}


def read(
    path: Path, classes: tuple[str, ...], shape: tuple[int, int, int], budget: Budget
) -> tuple[Raw, Raw] | None:
    """Both parts of an image folder: bytes (N, H, W, C) and labels, places in ``classes``.

    Class folders are called by the name of the class or by its number. None where ``path`` is
    neither a zip nor a directory with a part ``train`` or ``test``. Raises DataError when the two
    parts or ``classes`` disagree, or an image is damaged or has another size or other colours.
    """
    if os.path.isdir(path):
        if not any(ImageTree.find(path, split) for split in ("train", "test")):
            return None
    elif path.suffix.lower() != ".zip":
        return None
    train, test = (ImageTree(path, split, budget) for split in ("train", "test"))
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[0]
        part, other = ("train/", "test/") if odd in train.classes else ("test/", "train/")
        raise DataError(f"{path} has the class {shown(odd)} in {part} but not in {other}")
    order = _order(path, train.classes, classes)
    train_part, test_part = (
        Raw(_images(tree, shape, budget), order[tree.labels]) for tree in (train, test)
    )
    return train_part, test_part


def _order(path: Path, folders: tuple[str, ...], classes: tuple[str, ...]) -> np.ndarray:
    """The label of each folder, whatever the order that the alphabet puts them in."""
    # A folder cannot be called T-shirt/top; capitals and separators differ between copies.
    plain = [re.sub(r"[\W_]", "", name).lower() for name in folders]
    known = [re.sub(r"[\W_]", "", name).lower() for name in classes]
    for names in (known, [str(i) for i in range(len(classes))]):
        if sorted(plain) == sorted(names):
            return np.array([names.index(name) for name in plain], np.int32)
    odd = next((f for f, p in zip(folders, plain, strict=True) if p not in known), None)
    problem = f"the class {shown(odd)}" if odd else f"{len(folders)} class folders"
    raise DataError(f"{path} has {problem}; expected {', '.join(classes)}")


def _images(tree: ImageTree, shape: tuple[int, int, int], budget: Budget) -> np.ndarray:
    height, width, channels = shape
    try:
        budget.keep(len(tree) * height * width * channels)
    except ValueError as error:
        raise DataError(f"{tree.where} has {len(tree)} images: {reason(error)}") from None
    images = np.empty((len(tree), *shape), np.uint8)
    for i, name in enumerate(tree.names):
        image = tree.read(i, budget)
        if image.size != (width, height) or image.mode != MODES[channels]:
            raise DataError(
                f"{shown(name)} in {tree.where} is {image.width} x {image.height} in mode "
                f"{image.mode}; expected {width} x {height} in mode {MODES[channels]}"
            )
        images[i] = np.asarray(decoded(image)).reshape(shape)
    return images
