"""Small data sets of images, in the layouts they are published in, from other hands than ours."""

import gzip
import io
import pickle
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import PIL.Image
import pytest
import scipy.io

from jaxsens.data import DataError

CIFAR_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def pictures(count, shape=(32, 32, 3), seed=0):
    """Random images and labels, of every class when there are 10 or more."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
    return images, np.arange(count) % 10


def parts(train=20, test=10, shape=(32, 32, 3)):
    return pictures(train, shape, 1), pictures(test, shape, 2)


def python2(value):
    """``value`` as Python 2's cPickle and NumPy 1 write it at protocol 2, opcode by opcode."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value):
    if isinstance(value, np.ndarray):
        kind = b"cnumpy\ndtype\n" + _python2((value.dtype.str[1:].encode(), 0, 1)) + b"R"
        kind += _python2((3, b"|", None, None, None, -1, -1, 0)) + b"b"
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
        empty += _python2((0,)) + _python2(b"b") + b"tR"
        state = [_python2(1), _python2(value.shape), kind, _python2(False)]
        return empty + b"(" + b"".join([*state, _python2(value.tobytes())]) + b"tb"
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(k) + _python2(v) for k, v in value.items()) + b"u"
    if isinstance(value, (list, tuple)):
        inside = b"(" + b"".join(map(_python2, value))
        return b"]" + inside + b"e" if isinstance(value, list) else inside + b"t"
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    short = len(value) < 256
    return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value


def batch(images, labels):
    """One batch of CIFAR-10 for Python: a row of 3072 is 1024 reds, 1024 greens, 1024 blues."""
    rows = np.stack([np.concatenate([i[..., c].ravel() for c in range(3)]) for i in images])
    names = [b"image_%d.png" % i for i in range(len(rows))]
    labels = [int(label) for label in labels]
    return {b"batch_label": b"a batch", b"labels": labels, b"data": rows, b"filenames": names}


def cifar_batches(train=20, test=4):
    """(name, images, labels) of the six batches, each of ``test`` images."""
    (images, labels), tested = parts(train, test)
    yield from zip(BATCHES[:5], np.split(images, 5), np.split(labels, 5), strict=True)
    yield "test_batch", *tested


def cifar_files(kind="python", write=python2):
    """Names in the archive and contents of CIFAR-10 for Python, or in binary."""
    files = {}
    for name, images, labels in cifar_batches():
        data = batch(images, labels)
        if kind == "python":
            files[f"cifar-10-batches-py/{name}"] = write(data)
        else:
            rows = np.concatenate([labels[:, None].astype(np.uint8), data[b"data"]], axis=1)
            files[f"cifar-10-batches-bin/{name}.bin"] = rows.tobytes()
    folder, rest = ("py", "batches.meta") if kind == "python" else ("bin", "batches.meta.txt")
    return {**files, f"cifar-10-batches-{folder}/{rest}": b"what is not read"}


def pickled(protocol):
    return lambda data: pickle.dumps(data, protocol=protocol)


def write_files(directory, files):
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_idx(directory, gz=".gz"):
    """The four files of MNIST or Fashion-MNIST."""
    for part, (images, labels) in zip(("train", "t10k"), parts(shape=(28, 28)), strict=True):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            content = header + array.astype(np.uint8).tobytes()
            name = f"{part}-{kind}-ubyte{gz}"
            (directory / name).write_bytes(gzip.compress(content, mtime=0) if gz else content)
    return directory


def write_svhn(directory, labels=np.uint8, others=(), **options):
    """MATLAB files: X (32, 32, 3, N), y (N, 1) with 10 for the digit 0."""
    for name, (images, y) in zip(("train", "test"), parts(), strict=True):
        y = np.where(y == 0, 10, y).astype(labels)[:, None]
        content = {**dict(others), "X": images.transpose(1, 2, 3, 0), "y": y}
        scipy.io.savemat(directory / f"{name}_32x32.mat", content, **options)
    return directory


def arrays(shape=(32, 32, 3)):
    """What an .npz file holds."""
    (images, labels), (tests, test_labels) = parts(shape=shape)
    return {
        **{"train_images": images, "train_labels": labels},
        **{"test_images": tests, "test_labels": test_labels},
    }


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, format=form, **options)
    return file.getvalue()


def folder_files(classes=CIFAR_CLASSES, shape=(32, 32, 3), suffix=".png", form="PNG", top=""):
    """Names and contents of an image folder of ``parts()``."""
    files = {}
    for split, (images, labels) in zip(("train", "test"), parts(shape=shape), strict=True):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = f"{top}{split}/{classes[label]}/{i:04}{suffix}"
            files[name] = encoded(image.squeeze(-1) if shape[-1] == 1 else image, form)
    return files


def refused(load, name, path, message, directory):
    """``load`` refuses ``path`` in one short line that names it, without taking half a gigabyte."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message) as error:
            load(name, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    line = str(error.value)
    assert line.isprintable()
    assert str(directory) in line
    assert len(line.replace(str(directory), "")) < 300
    assert peak < 2**29
