"""Each format of the image data sets is read back exactly as other writers wrote it."""

import io
import pickle
import tracemalloc
import zipfile

import numpy as np
import PIL.Image
import pytest
from witnesses import vision_files as files

from jaxsens.data import DataError, ImageTree, load, normalise
from jaxsens.data.files import idx

GREY = (28, 28, 1)


def same(data, expected=None):
    """The same images with the same labels, in the same order."""
    for split, (images, labels) in zip(
        (data.train, data.test), expected or files.parts(), strict=True
    ):
        assert (split.inputs.dtype, split.labels.dtype) == (np.float32, np.int32)
        assert split.inputs.flags.c_contiguous
        np.testing.assert_array_equal(split.inputs, normalise(images))
        np.testing.assert_array_equal(split.labels, labels)


def by_label(parts):
    """Image folders come class by class."""
    return [(i[np.argsort(n, kind="stable")], np.sort(n)) for i, n in parts]


NUMPY_1 = {  # the names by which it made arrays, one of them since moved
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
}


class ArraysAlone(pickle.Unpickler):
    """Python's own reader of pickles, for arrays alone: KeyError for any other name."""

    def find_class(self, module, name):
        return NUMPY_1[module, name]


def test_the_writer_of_python_2_is_read_by_pickle_itself():
    written = files.batch(*files.pictures(4))
    read = ArraysAlone(io.BytesIO(files.python2(written)), encoding="bytes").load()
    np.testing.assert_array_equal(read.pop(b"data"), written.pop(b"data"))
    assert read == written


@pytest.mark.parametrize("place", ["archive", "around an archive", "folder", "around a folder"])
@pytest.mark.parametrize(
    ("kind", "write"),
    [
        ("python", files.python2),
        *(("python", files.pickled(p)) for p in range(5)),
        ("binary", None),
    ],
)
def test_cifar(tmp_path, kind, write, place):
    written, folder = files.cifar_files(kind, write), {"python": "py", "binary": "bin"}[kind]
    path = tmp_path
    if "archive" in place:
        archive = files.write_tar(tmp_path / f"cifar-10-{kind}.tar.gz", written)
        path = archive if place == "archive" else tmp_path
    else:
        files.write_files(tmp_path, written)
        path = tmp_path / f"cifar-10-batches-{folder}" if place == "folder" else tmp_path
    before = sorted(tmp_path.rglob("*"))
    data = load("cifar10", path)
    same(data, files.parts(20, 4))
    assert (data.name, data.source, data.classes[3]) == ("cifar10", str(path), "cat")
    assert sorted(tmp_path.rglob("*")) == before  # nothing is extracted


@pytest.mark.parametrize("labels", [np.uint8, np.float64, np.int16])
@pytest.mark.parametrize("compressed", [False, True])
def test_svhn(tmp_path, labels, compressed):
    data = load("svhn", files.write_svhn(tmp_path, labels, do_compression=compressed))
    same(data)  # where the digit 0 is called 10 in the file
    assert (data.name, data.classes) == ("svhn", tuple("0123456789"))


@pytest.mark.parametrize("compressed", [False, True])
def test_svhn_among_other_variables(tmp_path, compressed):
    other = {"a": [1, 2], "X_": np.ones(3) * 1j, "cell": np.array([{}, "x"]), "text": "two words"}
    files.write_svhn(tmp_path, others={**other, "record": {"b": 1.5}}, do_compression=compressed)
    same(load("svhn", tmp_path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["cifar10", "svhn", "mnist", "fashion-mnist"])
def test_npz(tmp_path, save, order, name):
    shape = GREY if "mnist" in name else (32, 32, 3)
    written = files.arrays(shape)
    if name == "mnist":
        written = {k: v.squeeze(-1) if v.ndim == 4 else v for k, v in written.items()}
    save(tmp_path / "data.npz", **{k: np.asarray(v, order=order) for k, v in written.items()})
    same(load(name, tmp_path / "data.npz"), files.parts(shape=shape))


def test_an_npz_of_version_2_and_big_endian_labels(tmp_path):
    content = {}
    for name, array in files.arrays().items():
        file, array = io.BytesIO(), array.astype(">i8") if "labels" in name else array
        np.lib.format.write_array(file, array, version=(2, 0))
        content[f"{name}.npy"] = file.getvalue()
    same(load("cifar10", files.write_zip(tmp_path / "a.npz", content)))


LAYOUTS = ["folder", "zip", "stored zip", "folder below another", "zip below another", "two zips"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_image_folders(tmp_path, layout):
    top = "all/" if "below" in layout else ""
    written = files.folder_files(top=top)
    path = tmp_path / ("images.zip" if "zip" in layout else "images")
    if layout == "two zips":
        path = tmp_path
        for part in ("train", "test"):
            some = {name: content for name, content in written.items() if name.startswith(part)}
            files.write_zip(tmp_path / f"cifar10-{part}.zip", some)
    elif "zip" in layout:
        method = zipfile.ZIP_STORED if "stored" in layout else zipfile.ZIP_DEFLATED
        files.write_zip(path, written, method)
    else:
        files.write_files(path, written)
    data = load("cifar10", path)
    same(data, by_label(files.parts()))
    assert data.classes == files.CIFAR_CLASSES


FASHION = (
    *("T-shirt_top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt"),
    *("Sneaker", "Bag", "Ankle-boot"),
)


@pytest.mark.parametrize(
    ("name", "classes", "shape"),
    [
        ("mnist", tuple("0123456789"), GREY),
        ("fashion-mnist", FASHION, GREY),
        ("fashion-mnist", tuple("0123456789"), GREY),
        ("svhn", tuple("0123456789"), (32, 32, 3)),
        ("cifar10", tuple(name.capitalize() for name in files.CIFAR_CLASSES), (32, 32, 3)),
    ],
)
def test_class_folders_have_the_labels_of_the_data_set_whatever_their_order(
    tmp_path, name, classes, shape
):
    data = load(name, files.write_files(tmp_path, files.folder_files(classes, shape)))
    for split, (images, labels) in zip(
        (data.train, data.test), files.parts(shape=shape), strict=True
    ):
        got = {image.tobytes(): label for image, label in zip(*split, strict=True)}
        assert got == {
            image.tobytes(): label for image, label in zip(normalise(images), labels, strict=True)
        }


@pytest.mark.parametrize("archive", [False, True])
def test_an_image_tree_lists_first_and_reads_later(tmp_path, archive):
    images = files.pictures(3)[0]
    written = {
        "train/b/z.JPEG": files.encoded(images[0]),  # a PNG by another name, as in ImageNet
        "train/b/a.jpeg": files.encoded(images[1], "JPEG"),
        "train/a/1.png": files.encoded(images[2][..., 0]),
        "train/a/2.png": b"damaged",
        "train/.hidden": b"",
        "train/a/.DS_Store": b"",
        "__MACOSX/train/a/._1.png" if archive else ".Trash/x": b"",
        "README": bytes(10**6),  # shrinks a thousandfold, and is never read
        "test/c/other.png": b"damaged",
    }
    path = tmp_path / ("images.zip" if archive else "images")
    (files.write_zip if archive else files.write_files)(path, written)
    tree = ImageTree(path, "train")
    assert len(tree) == 4
    assert (tree.classes, tree.labels.dtype) == (("a", "b"), np.int32)
    assert tree.names == ("a/1.png", "a/2.png", "b/a.jpeg", "b/z.JPEG")
    np.testing.assert_array_equal(tree.labels, [0, 0, 1, 1])
    assert (tree.read(0).mode, tree.read(2).mode) == ("L", "RGB")
    np.testing.assert_array_equal(np.asarray(tree.read(0)), images[2][..., 0])
    np.testing.assert_array_equal(np.asarray(tree.read(3)), images[0])
    decoded = PIL.Image.open(io.BytesIO(written["train/b/a.jpeg"]))
    np.testing.assert_array_equal(np.asarray(tree.read(2)), np.asarray(decoded))
    with pytest.raises(DataError, match=r"^a/2\.png in .* is neither JPEG nor PNG: it is plain te"):
        tree.read(1)


def test_fashion_mnist_from_its_files_and_from_debian(tmp_path, monkeypatch):
    files.write_idx(tmp_path)
    monkeypatch.setattr(idx, "DEBIAN", tmp_path)
    for source in (tmp_path, "embedded"):
        data = load("fashion-mnist", source)
        same(data, files.parts(shape=GREY))
        assert (data.name, data.classes[9]) == ("fashion-mnist", "Ankle boot")
    monkeypatch.setattr(idx, "DEBIAN", tmp_path / "nowhere")
    with pytest.raises(DataError, match="sudo apt install dataset-fashion-mnist, or give") as error:
        load("fashion-mnist", "embedded")
    assert "--data tfds or --data PATH" in str(error.value)


def test_memory_peaks_at_the_images_the_bytes_and_little_else(tmp_path):
    """For CIFAR-10 half a gigabyte as float32: a second copy of that is too much."""
    images, labels = files.pictures(4000)
    path = tmp_path / "data.npz"
    np.savez(
        path,
        train_images=images,
        train_labels=labels,
        test_images=images[:9],
        test_labels=labels[:9],
    )
    tracemalloc.start()
    data = load("cifar10", path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.train.inputs.nbytes == 4 * images.nbytes
    assert peak < data.train.inputs.nbytes + 1.5 * images.nbytes
