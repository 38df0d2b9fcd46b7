"""Files as people have them: other folders, names and neighbours are read, or refused truly."""

import gzip
import pickle
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image
from witnesses import vision_files as files

from jaxsens.data import DataError, load
from jaxsens.data.files.names import member_parts, plain
from jaxsens.data.images import identity
from jaxsens.data.images.image_folder import decode
from jaxsens.data.images.imagenet import square

GREY = (28, 28, 1)


def count(name, path):
    return len(load(name, path).train.labels)


def below(directory, *folders):
    path = directory.joinpath(*folders)
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("place", [(), ("raw",), ("MNIST", "raw"), ("mnist",), ("a b", "é")])
def test_idx_files_in_a_folder_below(tmp_path, place):
    files.write_idx(below(tmp_path, "root", *place))
    assert count("mnist", tmp_path / "root") == 20


def test_every_idx_file_in_a_folder_of_its_name(tmp_path):
    files.write_idx(tmp_path, "")
    for file in list(tmp_path.iterdir()):
        content = file.read_bytes()
        file.unlink()
        (below(tmp_path, file.name) / file.name).write_bytes(content)
    assert count("mnist", tmp_path) == 20


def test_of_several_data_sets_below_a_folder_the_one_asked_for_is_read(tmp_path):
    for folder in ("MNIST", "FashionMNIST", "KMNIST"):
        files.write_idx(below(tmp_path, folder, "raw"))
    for label in (tmp_path / "MNIST" / "raw").glob("*labels*"):
        label.write_bytes(gzip.compress(gzip.decompress(label.read_bytes())[:8] + b"\7" * 99))
    with pytest.raises(DataError, match=r"MNIST/raw/train-labels.* is longer"):
        load("mnist", tmp_path)
    assert count("fashion-mnist", tmp_path) == 20
    (tmp_path / "MNIST").rename(tmp_path / "EMNIST")
    with pytest.raises(DataError, match="in several folders; name one: EMNIST/raw, FashionMNIST/r"):
        load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "write", "file"),
    [
        ("mnist", files.write_idx, "t10k-labels-idx1-ubyte.gz"),
        ("svhn", files.write_svhn, "test_32x32.mat"),
        (
            *("cifar10", lambda d: files.write_files(d, files.cifar_files())),
            "cifar-10-batches-py/data_batch_3",
        ),
        (
            *("cifar10", lambda d: files.write_files(d, files.cifar_files("binary"))),
            "cifar-10-batches-bin/test_batch.bin",
        ),
    ],
)
def test_a_file_stands_for_its_folder(tmp_path, name, write, file):
    write(tmp_path)
    assert count(name, tmp_path / file) == 20
    (tmp_path / file).write_bytes(b"damaged")
    with pytest.raises(DataError, match=f"^in the folder of .*{file}: .*{file.split('/')[-1]}"):
        load(name, tmp_path / file)


@pytest.mark.parametrize(
    ("copy", "name"),
    [
        ("train-images-idx3-ubyte (1).gz", "train-images-idx3-ubyte.gz"),
        ("train-images-idx3-ubyte(2).gz", "train-images-idx3-ubyte.gz"),
        ("train_32x32 - Copy.mat", "train_32x32.mat"),
        ("train_32x32 copy 2.mat", "train_32x32.mat"),
        ("cifar-10-python.tar (1).gz", "cifar-10-python.tar.gz"),
        ("Train_32x32.MAT", "train_32x32.mat"),
    ],
)
def test_marks_of_a_second_copy(copy, name):
    assert plain(copy) == name


def test_second_copies(tmp_path):
    files.write_svhn(tmp_path)
    right = tmp_path / "train_32x32.mat"
    right.rename(tmp_path / "train_32x32 (1).mat")
    assert count("svhn", tmp_path) == 20
    (tmp_path / "train_32x32 (2).mat").write_bytes(b"")
    with pytest.raises(DataError, match=r"copies of one file; keep one: .* \(1\).mat, train"):
        load("svhn", tmp_path)
    assert count("svhn", tmp_path / "train_32x32 (1).mat") == 20  # the one that is named
    (tmp_path / "train_32x32 (1).mat").rename(right)
    assert count("svhn", tmp_path) == 20  # the one without a mark


LITTER = (
    *(".DS_Store", "._0001.png", "Thumbs.db", "desktop.ini", "Icon\r"),
    *("0001.png:Zone.Identifier", "~$notes", "ehthumbs.db"),
)


@pytest.mark.parametrize("archive", [False, True])
def test_what_systems_leave_behind(tmp_path, archive):
    written = files.folder_files()
    for name in LITTER:
        written |= {f"{place}{name}": b"x" for place in ("", "train/", "test/cat/")}
    written |= {"__MACOSX/train/cat/._0001.png": b"x", ".ipynb_checkpoints/a.png": b"x"}
    written |= {"train/@eaDir/0001.png": b"x", "test/cat/__MACOSX/b.png": b"x"}
    path = tmp_path / ("a.zip" if archive else "a")
    (files.write_zip if archive else files.write_files)(path, written)
    assert count("cifar10", path) == 20


@pytest.mark.parametrize("change", [lambda n: n.replace("/", "\\"), "./{}".format, ".\\{}".format])
def test_zips_of_other_systems(tmp_path, change):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in [("train/", b""), ("train/cat/", b""), *files.folder_files().items()]:
            info = zipfile.ZipInfo("x")
            info.filename = change(name)
            archive.writestr(info, content)
    assert count("cifar10", tmp_path / "a.zip") == 20


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a/b", ("a", "b")),
        ("./a//b/", ("a", "b")),
        (r"a\b", ("a", "b")),
        ("./", ()),
        ("a:b/c", ("a:b", "c")),
        *((bad, None) for bad in ("/a", r"\a", "../a", r"a\..\b")),
        *((bad, None) for bad in ("C:/a", r"c:\a", r"\\host\a", "C:")),
    ],
)
def test_places_in_archives(name, parts):
    if parts is None:
        with pytest.raises(ValueError, match="outside itself"):
            member_parts(name)
    else:
        assert member_parts(name) == parts


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_batches_pickled_anew(tmp_path, protocol, order):
    def write(data):
        content = {**data, b"data": np.array(data[b"data"], order=order)}
        return pickle.dumps(content, protocol=protocol)

    files.write_files(tmp_path, files.cifar_files(write=write))
    data = load("cifar10", tmp_path)
    images, labels = files.parts(20, 4)[0]
    np.testing.assert_array_equal(np.rint((data.train.inputs + 1) * 127.5), images)
    np.testing.assert_array_equal(data.train.labels, labels)


@pytest.mark.parametrize(
    ("name", "mode", "form"),
    [
        ("cifar-10-python (1).tar.gz", "w:gz", tarfile.PAX_FORMAT),
        ("x.tgz", "w:gz", tarfile.GNU_FORMAT),
        ("cifar-10-python.tar", "w", tarfile.USTAR_FORMAT),
        ("cifar-10-python.tar.gz", "w", tarfile.PAX_FORMAT),  # a browser unpacked it
    ],
)
@pytest.mark.parametrize("top", ["", "./", "a/" * 60])
def test_archives_made_anew(tmp_path, name, mode, form, top):
    files.write_files(tmp_path, files.cifar_files())
    (tmp_path / "cifar-10-batches-py" / "._test_batch").write_bytes(b"x")
    with tarfile.open(tmp_path / name, mode, format=form) as archive:
        archive.add(tmp_path / "cifar-10-batches-py", top + "cifar-10-batches-py")
    assert count("cifar10", tmp_path / name) == 20


def saved(directory, keys, column=False):
    (a, b), (c, d) = files.parts(shape=GREY)
    b, d = (labels[:, None] if column else labels for labels in (b, d))
    np.savez(directory / "a.npz", **dict(zip(keys, (a, b, c, d), strict=True)))
    return directory / "a.npz"


def test_names_of_keras(tmp_path):
    keys = ("x_train", "y_train", "x_test", "y_test")
    for spelling in (keys, [key.replace("x", "X") for key in keys]):
        assert count("mnist", saved(tmp_path, spelling, column=True)) == 20
    with pytest.raises(DataError, match="holds no train_images but a, b, c, d; expected train_im"):
        load("mnist", saved(tmp_path, "abcd"))


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


def test_second_copies_of_two_zips(tmp_path):
    for part in ("train", "test"):
        some = {n: c for n, c in files.folder_files().items() if n.startswith(part)}
        files.write_zip(tmp_path / f"{part} (1).zip", some)
    assert count("cifar10", tmp_path) == 20
