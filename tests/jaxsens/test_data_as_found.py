"""Files as people have them: other folders, names and neighbours are read, or refused truly."""

import gzip
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from witnesses import vision_files as files

from jaxsens.data import DataError, load
from jaxsens.data.files.names import member_parts, plain

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


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("labels", [np.array, ">i4", "u1", np.int64, np.uint8])
def test_labels_pickled_as_numpy_has_them(tmp_path, protocol, labels):
    """In one array of either byte order, or a number each."""

    def write(data):
        numbers = data[b"labels"]
        if isinstance(labels, str):
            numbers = np.array(numbers, labels)
        elif labels is np.array:
            numbers = np.array(numbers)
        else:
            numbers = [labels(n) for n in numbers]
        return pickle.dumps({**data, b"labels": numbers}, protocol=protocol)

    files.write_files(tmp_path, files.cifar_files(write=write))
    np.testing.assert_array_equal(load("cifar10", tmp_path).train.labels, files.parts(20, 4)[0][1])


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
    (tmp_path / "a.npz").rename(tmp_path / "mnist.npz")
    assert count("mnist", tmp_path) == 20  # as in the folder of Keras
    with pytest.raises(DataError, match="holds no train_images but a, b, c, d; expected train_im"):
        load("mnist", saved(tmp_path, "abcd"))


def test_second_copies_of_two_zips(tmp_path):
    for part in ("train", "test"):
        some = {n: c for n, c in files.folder_files().items() if n.startswith(part)}
        files.write_zip(tmp_path / f"{part} (1).zip", some)
    assert count("cifar10", tmp_path) == 20


@pytest.mark.parametrize("part", ["train", "test"])
def test_one_part_stands_for_both(tmp_path, part):
    written = files.folder_files()
    files.write_files(tmp_path / "folder", written)
    for split in ("train", "test"):
        some = {n: c for n, c in written.items() if n.startswith(split)}
        files.write_zip(tmp_path / f"cifar10-{split}.zip", some)
    assert count("cifar10", tmp_path / "folder" / part) == 20
    assert count("cifar10", tmp_path / f"cifar10-{part}.zip") == 20
