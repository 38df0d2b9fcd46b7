"""Valid files changed at random are a data set or one line, and nothing else, in bounded memory."""

import tracemalloc

import numpy as np
import pytest
from witnesses import vision_files as files

from jaxsens.data import DataError, Dataset, load

TELLING = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)  # bytes that lengths and signs turn on


def folder(suffix, form):
    return lambda d: files.write_files(d, files.folder_files(suffix=suffix, form=form))


def zipped(directory):
    files.write_zip(directory / "images.zip", files.folder_files())


def tar(kind):
    def build(directory):
        files.write_tar(directory / f"cifar-10-{kind}.tar.gz", files.cifar_files(kind))

    return build


def npz(directory):
    np.savez(directory / "data.npz", **files.arrays())


def batches(kind, write=files.python2):
    return lambda d: files.write_files(d, files.cifar_files(kind, write))


# name, what writes it, the file to change, and what of the directory is loaded
FORMATS = {
    "idx": ("mnist", lambda d: files.write_idx(d, ""), "train-images-idx3-ubyte", ""),
    "idx, compressed": ("mnist", files.write_idx, "t10k-labels-idx1-ubyte.gz", ""),
    "pickle": ("cifar10", batches("python"), "cifar-10-batches-py/data_batch_3", ""),
    "pickle, protocol 0": (
        *("cifar10", batches("python", files.pickled(0))),
        *("cifar-10-batches-py/data_batch_3", ""),
    ),
    "pickle, protocol 4": (
        *("cifar10", batches("python", files.pickled(4))),
        *("cifar-10-batches-py/test_batch", ""),
    ),
    "binary": ("cifar10", batches("binary"), "cifar-10-batches-bin/data_batch_3.bin", ""),
    "tar": ("cifar10", tar("python"), "cifar-10-python.tar.gz", ""),
    "mat": ("svhn", lambda d: files.write_svhn(d, do_compression=False), "test_32x32.mat", ""),
    "mat, compressed": (
        *("svhn", lambda d: files.write_svhn(d, do_compression=True)),
        *("test_32x32.mat", ""),
    ),
    "npz": ("cifar10", npz, "data.npz", "data.npz"),
    "zip": ("cifar10", zipped, "images.zip", "images.zip"),
    "png": ("cifar10", folder(".png", "PNG"), "train/cat/0003.png", ""),
    "jpeg": ("cifar10", folder(".jpg", "JPEG"), "train/cat/0003.jpg", ""),
}


def mutated(content, rng):
    """One to four changes: bytes replaced, cut out or repeated; mostly near the ends, where the
    structure of a file is."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        near = rng.integers(min(len(content), 600)) if content else 0
        place = (near, len(content) - near, rng.integers(len(content) + 1))[rng.integers(3)]
        length = rng.choice([1, 1, 2, 4, 8, 400])
        kind = rng.integers(5)
        if kind == 0:
            content[place : place + length] = bytes([rng.choice(TELLING)]) * length
        elif kind == 1:
            content[place : place + length] = rng.bytes(length)
        elif kind == 2:
            del content[place : place + length]
        elif kind == 3:
            content[place:place] = content[place : place + length]
        else:
            del content[place:]
    return bytes(content)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("seed", "count"), [(0, 100), pytest.param(1, 3000, marks=pytest.mark.slow)]
)
def test_mutations(tmp_path, form, seed, count):
    name, write, changed, loaded = FORMATS[form]
    write(tmp_path)
    assert isinstance(load(name, tmp_path / loaded), Dataset)
    whole = (tmp_path / changed).read_bytes()
    rng = np.random.default_rng(seed)
    lines = []
    tracemalloc.start()
    for i in range(count):
        (tmp_path / changed).write_bytes(mutated(whole, rng))
        try:
            load(name, tmp_path / loaded)
        except DataError as error:
            lines.append(str(error))
        except BaseException as error:
            raise AssertionError(f"mutation {i} of {form}") from error
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**29
    assert len(lines) > count / 20
    for line in lines:
        assert line.isprintable()
        assert str(tmp_path) in line
        assert len(line.replace(str(tmp_path), "")) < 300
