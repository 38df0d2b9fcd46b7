"""What came in place of data is named; sets of one format and odd pictures are told apart."""

import warnings

import numpy as np
import pytest
from PIL import Image
from witnesses import vision_files as files

from jaxsens.data import DataError, load
from jaxsens.data.images import identity
from jaxsens.data.images.imagenet import square
from jaxsens.data.images.pictures import decode

FOREIGN = {
    "a page": (b"\n<!DOCTYPE html><html>Not found</html>", "is a web page, not the file: fetch it"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "xml": (
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        "message of a server",
    ),
    "nothing": (b"", "is empty"),
    "zeros": (bytes(999), "is nothing but zeros: its copy never ended"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" * 9, "is an HDF5 file"),
    "a zip": (b"PK\3\4" * 99, "is a zip archive"),
    "bzip2": (b"BZh9" * 99, "is compressed by bzip2"),
    "parquet": (b"PAR1" * 99, "is a parquet file"),
}
PLACES = {
    "idx": ("mnist", files.write_idx, "train-labels-idx1-ubyte.gz", ""),
    "mat": ("svhn", files.write_svhn, "test_32x32.mat", ""),
    "png": (
        *("cifar10", lambda d: files.write_files(d, files.folder_files())),
        *("train/cat/0003.png", ""),
    ),
    "tar": ("cifar10", lambda d: None, "a.tar.gz", "a.tar.gz"),
    "npz": ("cifar10", lambda d: None, "a.npz", "a.npz"),
    "csv": ("mnist", lambda d: None, "train.csv", "train.csv"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("content", FOREIGN)
def test_what_came_in_place_of_a_file_is_named(tmp_path, place, content):
    name, write, file, loaded = PLACES[place]
    write(tmp_path)
    (tmp_path / file).write_bytes(FOREIGN[content][0])
    message = FOREIGN[content][1]
    if (place, content) in (("npz", "a zip"), ("tar", "a zip")):
        message = "cannot be read"
    files.refused(load, name, tmp_path / loaded, message, tmp_path)


def other(directory, name):
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_bytes(b"")
    return directory


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        (
            "svhn",
            "extra_32x32.mat",
            "holds only SVHN's extra part; expected train_32x32.mat a",
        ),
        ("svhn", "train/digitStruct.mat", "holds SVHN's first format, whole house numbers; expect"),
        ("cifar10", "data_batch_1.mat", r"holds CIFAR-10 for MATLAB \(data_batch_1.mat\); expecte"),
        ("cifar10", "cifar-100-python/train", r"holds CIFAR-100 \(cifar-100-python\); expected ci"),
        ("mnist", "emnist-digits.bin", r"can be read \(it holds emnist-digits.bin\); expected its"),
    ],
)
def test_other_data_sets_are_named(tmp_path, name, file, message):
    files.refused(load, name, other(tmp_path, file), message, tmp_path)


def test_links_to_nothing_are_named(tmp_path):
    files.write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    (tmp_path / "train-labels-idx1-ubyte.gz").symlink_to("/nowhere/x.gz")
    message = "is a link to /nowhere/x.gz, which is not there"
    files.refused(load, "mnist", tmp_path, message, tmp_path)
    (tmp_path / "data").symlink_to("gone")
    files.refused(load, "mnist", tmp_path / "data", "is a link to gone, where there is n", tmp_path)
    (tmp_path / "a.npz").symlink_to("gone.npz")
    files.refused(load, "mnist", tmp_path / "a.npz", "is a link to gone.npz", tmp_path)
    files.write_files(tmp_path / "f", files.folder_files())
    (tmp_path / "f" / "train" / "horse 2").symlink_to("gone")
    files.refused(load, "cifar10", tmp_path / "f", "horse 2 in .*f/train is a link to g", tmp_path)
    (tmp_path / "f" / "train").rename(tmp_path / "f" / "moved")
    (tmp_path / "f" / "train").symlink_to("gone")
    files.refused(load, "cifar10", tmp_path / "f", "f/train is a link to gone, which", tmp_path)


def full(labels, mean=0.0, test=None):
    """Both parts with so many of each label, and one pixel that carries the mean."""
    found = []
    for counts in (labels, test or [n // 6 for n in labels]):
        label = np.repeat(np.arange(len(counts)), counts)
        images = np.zeros((len(label), 1, 1), np.uint8)
        images[:] = round(mean)
        found.append(identity.Raw(images, label))
    return found


MNIST, SVHN = identity.PUBLISHED["mnist"], identity.PUBLISHED["svhn"]


@pytest.mark.parametrize(
    ("name", "counts", "message"),
    [
        (
            "mnist",
            (6000,) * 10,
            "another data set, Fashion-MNIST, KMNIST or EMNIST: .* has 6000",
        ),
        (
            "fashion-mnist",
            MNIST.train,
            "another data set, MNIST: its training part has 5421",
        ),
        ("mnist", (24000,) * 10, "another data set, EMNIST's digits"),
        ("cifar10", SVHN.train, "another data set, SVHN"),
        ("svhn", (5000,) * 10, "another data set, CIFAR-10"),
    ],
)
def test_sets_that_share_a_format_are_told_apart_by_their_counts(name, counts, message):
    with pytest.raises(DataError, match=message):
        identity.check(name, *full(counts), where="here")


def test_published_counts_with_other_pixels_are_a_warning():
    for name in ("mnist", "fashion-mnist"):
        own = identity.PUBLISHED[name]
        with pytest.warns(UserWarning, match="but other pixels: their mean is .* published ones"):
            identity.check(name, *full(own.train, 9, own.test), where="here")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        identity.check("mnist", *full((7, 3, 9)), where="here")  # somebody's own, smaller
        identity.check("cifar10", *full((5000,) * 10, test=(1000,) * 10), where="here")


def test_sixteen_bits_of_grey_become_eight():
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    got = np.asarray(square(decode(files.encoded(values), "a.png"), 64, None))
    np.testing.assert_array_equal(got, np.rint(values / 257)[..., None].repeat(3, 2))


@pytest.mark.parametrize("orientation", [3, 6])
def test_the_orientation_in_the_metadata_is_not_applied(orientation, tmp_path):
    """As in published evaluations."""
    picture = Image.fromarray(files.pictures(1, (20, 30, 3))[0][0])
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert decode((tmp_path / "a.jpg").read_bytes(), "a.jpg").size == (30, 20)


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    picture = Image.fromarray(files.pictures(1)[0][0]).quantize(16)
    picture.save(tmp_path / "a.png", transparency=bytes(range(16)))
    got = square(decode((tmp_path / "a.png").read_bytes(), "a.png"), 32, None)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(picture.convert("RGB")))
