"""ImageNet images one batch at a time: read, resized and cropped ahead of the device.

The million photographs fit no memory and have no common size, so there is no `Dataset` of them:
`open_images` lists them, `batches` decodes the ones asked for.
"""

import contextlib
import math
import re
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from jaxsens.data.dataset import DataError, normalise, reason
from jaxsens.data.files.budget import for_one_image
from jaxsens.data.images import photo_crops
from jaxsens.data.images.image_folder import ImageTree
from jaxsens.data.images.pictures import decoded, opened

CLASSES = 1000
SYNSET = re.compile(r"n\d{8}")  # a WordNet id, the name of a class folder
THREADS = 4
MAX_RATIO = 100  # of the sides of a photograph
BATCHES_AHEAD = 2
LARGE = 2**23  # pixels; of images beyond, one is decoded at a time: 200 MB and more


class Images(Protocol):
    """Photographs by number: how many, whether they have labels, and image with label (or None).

    An image may be read before it is decoded, which `decoded` does.
    """

    labelled: bool

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Image.Image, int | None]: ...


def open_images(source: str | Path, split: str) -> Images:
    """The photographs of one split of ImageNet from ``source``; nothing is decoded yet.

    "tfds" is ``imagenet2012`` prepared by tensorflow-datasets as array_record; "embedded" is ten
    photographs that installed packages carry, without labels and whatever the split; anything else
    is the path of an image folder or zip, ``<split>/n01440764/<name>``: see :class:`ImageTree`.

    Labels are places in the sorted WordNet ids, the order of all published weights. A folder must
    therefore hold all 1000 classes under these names and no other: with fewer, places would shift
    and every accuracy be wrong unseen. Raises DataError.
    """
    if source == "embedded":
        return _Photographs()
    if source == "tfds":
        return _Prepared(split)
    return _Folder(Path(source), split)


class _Folder:
    labelled = True

    def __init__(self, path: Path, split: str) -> None:
        self.tree = ImageTree(path, split)
        foreign = [name for name in self.tree.classes if not SYNSET.fullmatch(name)]
        if foreign or len(self.tree.classes) != CLASSES:
            problem = f"a class {foreign[0][:40]!r}" if foreign else "not all classes"
            raise DataError(
                f"{path} has {problem} in {split} ({len(self.tree.classes)} folders): expected the "
                f"{CLASSES} of ImageNet, named by WordNet ids such as n01440764"
            )

    def __len__(self) -> int:
        return len(self.tree)

    def read(self, index: int) -> tuple[Image.Image, int | None]:
        return self.tree.read(index), int(self.tree.labels[index])


class _Prepared:
    labelled = True

    def __init__(self, split: str) -> None:
        self.split = split
        try:
            # By name: the package logs what it fails to import and goes on without its functions.
            from tensorflow_datasets import data_source, decode
        except ImportError as error:
            raise DataError(
                f"--data tfds needs tensorflow-datasets ({reason(error)}); run: "
                'pip install -e ".[data]"'
            ) from None
        try:
            self.source: Any = data_source(
                "imagenet2012",
                split=split,
                decoders={"image": decode.SkipDecoding()},
                download=False,  # the archives must be asked for by hand
            )
        except Exception as error:  # any of the package's dependencies may fail, each in its way
            raise DataError(
                f"tensorflow-datasets has no split {split!r} of imagenet2012 ({reason(error)}); "
                "prepare it there as array_record in TFDS_DATA_DIR, or pass --data PATH of an "
                "image folder"
            ) from None

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> tuple[Image.Image, int | None]:
        where = f"image {index} of imagenet2012 ({self.split})"
        try:
            example = self.source[index]
            content, label = bytes(example["image"]), int(example["label"])
        except Exception as error:  # as above
            raise DataError(f"{where} cannot be read: {reason(error)}") from None
        if not 0 <= label < CLASSES:
            raise DataError(f"{where} has the label {label}; expected 0 to {CLASSES - 1}")
        return opened(content, where, for_one_image()), label


class _Photographs:
    labelled = False

    def __init__(self) -> None:
        self.images = [photo_crops.photograph(*it) for it in photo_crops.PHOTOGRAPHS.values()]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> tuple[Image.Image, int | None]:
        return self.images[index], None


def square(image: Image.Image, size: int, crop: float | None) -> Image.Image:
    """The central square of an image at ``size`` x ``size`` pixels, in RGB.

    The short side is resized (bicubic, smoothed) to floor(size / crop) pixels and the middle cut
    out, as in published evaluations; for a ``crop`` of None the whole image is squeezed into the
    square.
    """
    image = _rgb(decoded(image))
    if crop is None:
        return image.resize((size, size), Image.Resampling.BICUBIC)
    short = math.floor(size / crop)
    width, height = (short * side // min(image.size) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which a conversion would cut off at 255
        values = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    image.info.pop("transparency", None)  # of a palette: a conversion would warn that it is lost
    return image.convert("RGB")


def batches(
    images: Images,
    order: Sequence[int] | Int[np.ndarray, " n"],
    *,
    batch_size: int,
    size: int,
    crop: float | None,
) -> Iterator[tuple[Float[np.ndarray, "b h w 3"], Int[np.ndarray, " b"] | None]]:
    """Images in the given order, ``batch_size`` at a time: float32 in [-1, 1], and int32 labels.

    The last batch may be shorter. Labels are None where there are none. A few threads decode at
    most two batches ahead of the one in use. Raises DataError for an image that cannot be read.
    """

    alone = threading.Lock()

    def one(index: int) -> tuple[np.ndarray, int | None]:
        image, label = images.read(int(index))
        if max(image.size) > MAX_RATIO * min(image.size):  # resized, it would fill the memory
            raise DataError(
                f"image {index} is {image.width} x {image.height}: expected sides within a factor "
                f"of {MAX_RATIO}"
            )
        with alone if image.width * image.height > LARGE else contextlib.nullcontext():
            return np.asarray(square(image, size, crop)), label

    starts = deque(range(0, len(order), batch_size))
    ahead: deque[list[Future[tuple[np.ndarray, int | None]]]] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        while starts or ahead:
            while starts and len(ahead) <= BATCHES_AHEAD:
                start = starts.popleft()
                ahead.append([pool.submit(one, i) for i in order[start : start + batch_size]])
            pixels, labels = zip(*[future.result() for future in ahead.popleft()], strict=True)
            yield (
                normalise(np.stack(pixels)),
                np.asarray(labels, np.int32) if images.labelled else None,
            )
    finally:
        pool.shutdown(cancel_futures=True)
