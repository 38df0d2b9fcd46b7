"""ImageNet in a stream: the published crop, the standard order of classes, or one line."""

import io
import os
import subprocess
import sys
import textwrap
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxsens.data import DataError
from jaxsens.data.images import imagenet
from jaxsens.data.images.imagenet import batches, open_images, square

SYNSETS = [f"n{i:08d}" for i in range(7, 7 + 3 * imagenet.CLASSES, 3)]


def ramp(width, height):
    """Red rises by 2 a pixel to the right, green by 2 a pixel downward, blue falls as red rises."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([2 * x, 2 * y, 255 - 2 * x], -1).astype(np.uint8))


@pytest.mark.parametrize(("width", "height"), [(80, 80), (120, 80), (80, 121), (83, 90)])
@pytest.mark.parametrize(("size", "crop"), [(32, 0.8), (36, 0.9), (40, 1.0), (40, None)])
def test_a_linear_picture_is_resized_and_cropped_as_by_hand(width, height, size, crop):
    """Smoothing keeps a linear function: pixel i of n shows the old place (i + 1/2) old / n - 1/2.

    Away from the border, where the smoothing sees less of one side.
    """
    got = np.asarray(square(ramp(width, height), size, crop)).astype(float)
    assert got.shape == (size, size, 3)
    new = [size, size]
    if crop is not None:
        scale = int(size / crop) / min(width, height)
        new = [int(width * scale + 1e-9), int(height * scale + 1e-9)]
        assert min(new) == int(size / crop)
    places = [
        (np.arange(size) + round((n - size) / 2) + 0.5) * old / n - 0.5
        for n, old in zip(new, (width, height), strict=True)
    ]
    inner = slice(4, -4)
    red, green = (2 * p[inner] for p in places)
    np.testing.assert_allclose(got[inner, inner, 0], np.tile(red, (len(green), 1)), atol=0.7)
    np.testing.assert_allclose(got[inner, inner, 1], np.tile(green, (len(red), 1)).T, atol=0.7)
    np.testing.assert_allclose(got[..., 2], 255 - got[..., 0], atol=1)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1", "I;16"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new(mode, (20, 30))
    assert (square(image, 8, 0.9).mode, square(image, 8, None).size) == ("RGB", (8, 8))


def test_the_embedded_photographs_have_no_labels():
    images = open_images("embedded", "train")
    assert (len(images), images.labelled) == (10, False)
    found = list(batches(images, range(10), batch_size=4, size=32, crop=0.9))
    assert [len(pixels) for pixels, _ in found] == [4, 4, 2]
    assert all(labels is None for _, labels in found)
    pixels = np.concatenate([pixels for pixels, _ in found])
    assert (pixels.dtype, pixels.shape) == (np.float32, (10, 32, 32, 3))
    assert -1 <= pixels.min() < -0.9 < 0.9 < pixels.max() <= 1
    for i, image in enumerate(pixels):
        bytes_ = np.asarray(square(images.read(i)[0], 32, 0.9))
        np.testing.assert_allclose(image, (bytes_ / 255 - 0.5) / 0.5, atol=1e-6)
    assert len({image.tobytes() for image in pixels}) == 10


class Grey:
    """Images of one grey each, which their label names; they record who read them, and when."""

    labelled = True

    def __init__(self, count, delay=0.0):
        self.count, self.delay = count, delay
        self.seen, self.threads = [], set()

    def __len__(self):
        return self.count

    def read(self, index):
        time.sleep(self.delay * (index % 3))
        self.seen.append(index)
        self.threads.add(threading.get_ident())
        return Image.new("RGB", (16, 16), (index, index, index)), index


def test_batches_keep_their_order_and_labels_whatever_the_threads_do():
    images, order = Grey(100, delay=0.002), np.random.default_rng(0).permutation(100)[:57]
    found = list(batches(images, order, batch_size=10, size=4, crop=None))
    assert [len(labels) for _, labels in found] == [10] * 5 + [7]
    labels = np.concatenate([labels for _, labels in found])
    np.testing.assert_array_equal(labels, order)
    assert labels.dtype == np.int32
    pixels = np.concatenate([pixels for pixels, _ in found])
    np.testing.assert_allclose(pixels[:, 0, 0, 0], order / 127.5 - 1, atol=1e-6)
    assert sorted(images.seen) == sorted(order.tolist())
    assert 1 < len(images.threads) <= imagenet.THREADS


def test_no_more_than_two_batches_are_read_ahead_and_none_after_the_end():
    images = Grey(100)
    stream = batches(images, range(100), batch_size=5, size=4, crop=None)
    next(stream)
    time.sleep(0.2)
    assert max(images.seen) < 15
    stream.close()
    assert len(images.seen) <= 15


def tree(path, classes, *, split="train", each=1, content=None):
    image = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(image, "JPEG")
    with zipfile.ZipFile(path, "w") as archive:
        for name in classes:
            for i in range(each):
                archive.writestr(f"{split}/{name}/{i}.JPEG", content or image.getvalue())
    return path


def test_labels_are_places_in_the_sorted_wordnet_ids(tmp_path):
    shuffled = np.random.default_rng(0).permutation(SYNSETS)
    images = open_images(tree(tmp_path / "i.zip", shuffled, each=2), "train")
    assert (len(images), images.labelled) == (2000, True)
    for index in (0, 1, 2, 999, 1999):
        image, label = images.read(index)
        assert (label, image.size) == (index // 2, (8, 8))
        assert images.tree.names[index].startswith(sorted(SYNSETS)[index // 2])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (SYNSETS[:999], r"has not all classes in train \(999 folders\): expected the 1000 of Ima"),
        ([*SYNSETS, "n99999999"], r"has not all classes in train \(1001 folders\)"),
        ([*SYNSETS[1:], "tench"], r"has a class 'tench' in train \(1000 folders\)"),
        (["n1", *SYNSETS[1:]], "has a class 'n1' in train"),
        (["x" * 90], "has a class 'x{40}' in train"),
    ],
)
def test_other_classes_than_those_of_imagenet_are_one_line(tmp_path, classes, message):
    refused(tree(tmp_path / "i.zip", classes), message)


def read_all(source, split):
    images = open_images(source, split)
    return list(batches(images, range(len(images)), batch_size=4, size=8, crop=0.9))


def refused(source, message, split="train"):
    with pytest.raises(DataError, match=message) as error:
        read_all(source, split)
    assert "\n" not in str(error.value)


def test_what_is_no_image_is_one_line(tmp_path):
    refused(tree(tmp_path / "i.zip", SYNSETS, content=b"\xff\xd8\xff nothing"), "0.JPEG in .* is d")
    refused(tree(tmp_path / "j.zip", SYNSETS), "val", split="val")
    refused(tmp_path / "none", "none")
    thin = io.BytesIO()
    Image.new("RGB", (1000, 9)).save(thin, "PNG")
    path = tree(tmp_path / "t.zip", SYNSETS, content=thin.getvalue())
    refused(path, "image 0 is 1000 x 9: expected sides within a factor of 100")


# tensorflow-datasets writes a small data set of the name and version of ImageNet's; it is read with
# TensorFlow out of reach, in a process that has not seen it.
WRITE = """
import io, sys
import numpy as np, PIL.Image
import tensorflow_datasets as tfds

with tfds.core.registered.skip_registration():
    class Imagenet2012(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("5.1.0")
        name = "imagenet2012"
        pkg_dir_path = "."

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=1000),
                "file_name": tfds.features.Text(),
            }))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(7)}

        def _generate_examples(self, count):
            for i in range(count):
                file = io.BytesIO()
                PIL.Image.new("RGB", (20 + i, 30), (30 * i,) * 3).save(file, "JPEG", quality=100)
                file.seek(0)
                yield i, {"image": file, "label": 100 * i, "file_name": str(i)}

Imagenet2012(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
"""
READ = """
import sys
from importlib.machinery import PathFinder

class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.split(".")[0] == "tensorflow"
        return None if hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden
import numpy as np
from jaxsens.data import DataError
from jaxsens.data.images.imagenet import batches, open_images

images = open_images("tfds", "train")
assert (len(images), images.labelled) == (7, True)
found = list(batches(images, range(7), batch_size=3, size=8, crop=0.9))
assert [len(labels) for _, labels in found] == [3, 3, 1]
labels = np.concatenate([labels for _, labels in found])
assert sorted(labels.tolist()) == [100 * i for i in range(7)], labels
pixels = np.concatenate([pixels for pixels, _ in found])
shades = 30 * (labels // 100) / 127.5 - 1
assert np.abs(pixels - shades[:, None, None, None]).max() < 0.02
assert {images.read(i)[0].size[0] - 20 for i in range(7)} == set(range(7))
try:
    open_images("tfds", "validation")
except DataError as error:
    assert "no split 'validation' of imagenet2012" in str(error) and "\\n" not in str(error)
else:
    raise AssertionError
"""


def python(script, *args, **environment):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, args)],
        env=environment,
        check=True,
        timeout=300,
    )


def test_what_tensorflow_datasets_prepared_is_read(tmp_path):
    python(WRITE, tmp_path)
    python(READ, TFDS_DATA_DIR=str(tmp_path))


def test_without_tensorflow_datasets_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    refused("tfds", r"--data tfds needs tensorflow-datasets .*; run: pip install -e")


def test_imagenet_that_was_not_prepared_is_one_line(tmp_path):
    code = """
    from jaxsens.data import DataError
    from jaxsens.data.images.imagenet import open_images
    try:
        open_images("tfds", "train")
    except DataError as error:
        assert "no split 'train' of imagenet2012" in str(error) and chr(10) not in str(error)
    else:
        raise AssertionError
    """
    python(code, TFDS_DATA_DIR=str(tmp_path))
