"""Valid files changed at random load or give one line, in bounded time and memory: every format."""

import io
import struct
import tarfile
import time
import tracemalloc

import numpy as np
import pytest
from witnesses import vision_files as files
from witnesses.small_weights import npz, safetensors, vit_arrays

from jaxsens.data import DataError, load
from jaxsens.weights import WeightsError
from jaxsens.weights.files import open_weights

TELLING = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)  # bytes that lengths and signs turn on
HUGE = (2**16 - 1, 2**31 - 1, 2**32 - 8, 2**40, 2**63 - 1, 2**64 - 1)  # lengths, to be cut to width


def data(name, write, changed, loaded=""):
    """A data set: what writes it, the file to change, and what of the directory is loaded."""
    return write, changed, lambda directory: load(name, directory / loaded)


def weights(write, changed):
    def read(directory):
        return [stored.read() for stored in open_weights(directory / changed).values()]

    return write, changed, read


def batches(write):
    content = lambda d: files.write_files(d, files.cifar_files(write=write))  # noqa: E731
    return data("cifar10", content, "cifar-10-batches-py/data_batch_3")


def folder(suffix, form, **options):
    def write(directory):
        files.write_files(directory, files.folder_files(suffix=suffix, form=form))
        image = files.pictures(1)[0][0]
        (directory / f"train/cat/0003{suffix}").write_bytes(files.encoded(image, form, **options))

    return data("cifar10", write, f"train/cat/0003{suffix}")


def plain_tar(directory):
    with tarfile.open(directory / "cifar.tar", "w") as archive:
        for name, content in files.cifar_files().items():
            info = tarfile.TarInfo("./" + name)
            info.size, info.mtime = len(content), 0.5  # which takes a pax header
            archive.addfile(info, io.BytesIO(content))


def shards(directory):
    items = list(vit_arrays().items())
    for i in (1, 2):
        safetensors(directory / f"m-0000{i}-of-00002.safetensors", dict(items[i::2]))


ZIPPED = {name: content for name, content in files.folder_files().items() if "00" in name}
FORMATS = {
    "idx": data("mnist", lambda d: files.write_idx(d, ""), "train-images-idx3-ubyte"),
    "idx, gzipped": data("mnist", files.write_idx, "t10k-labels-idx1-ubyte.gz"),
    "pickle of Python 2": batches(files.python2),
    **{f"pickle, protocol {p}": batches(files.pickled(p)) for p in (0, 4, 5)},
    "binary": data(
        *("cifar10", lambda d: files.write_files(d, files.cifar_files("binary"))),
        "cifar-10-batches-bin/data_batch_3.bin",
    ),
    "tar": data("cifar10", plain_tar, "cifar.tar", "cifar.tar"),
    "tar, gzipped": data(
        *("cifar10", lambda d: files.write_tar(d / "a.tgz", files.cifar_files())),
        *("a.tgz", "a.tgz"),
    ),
    "mat": data("svhn", lambda d: files.write_svhn(d, do_compression=False), "test_32x32.mat"),
    "mat, deflated": data(
        *("svhn", lambda d: files.write_svhn(d, do_compression=True)), "test_32x32.mat"
    ),
    "npz": data("cifar10", lambda d: np.savez(d / "a.npz", **files.arrays()), "a.npz", "a.npz"),
    "npz, deflated": data(
        *("cifar10", lambda d: np.savez_compressed(d / "a.npz", **files.arrays())),
        *("a.npz", "a.npz"),
    ),
    "zip": data("cifar10", lambda d: files.write_zip(d / "a.zip", ZIPPED), "a.zip", "a.zip"),
    "png": folder(".png", "PNG"),
    "jpeg": folder(".jpg", "JPEG"),
    "jpeg, progressive": folder(".jpg", "JPEG", progressive=True),
    "safetensors": weights(
        lambda d: safetensors(d / "w.safetensors", vit_arrays()), "w.safetensors"
    ),
    "weights in npz": weights(lambda d: npz(d / "w.npz", vit_arrays()), "w.npz"),
    "a shard": weights(shards, "m-00001-of-00002.safetensors"),
}  # fmt: skip


def mutated(content, rng):
    """One to four changes: bits flipped, bytes replaced, cut out or repeated, lengths made huge;
    mostly near the ends, where the structure of a file is."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        near = rng.integers(min(len(content), 600)) if content else 0
        place = (near, len(content) - near, rng.integers(len(content) + 1))[rng.integers(3)]
        length = rng.choice([1, 1, 2, 4, 8, 400])
        kind = rng.integers(7)
        if kind == 0:
            content[place : place + length] = bytes([rng.choice(TELLING)]) * length
        elif kind == 1:
            content[place : place + length] = rng.bytes(length)
        elif kind == 2:
            del content[place : place + length]
        elif kind == 3:
            content[place:place] = content[place : place + length]
        elif kind == 4:
            del content[place:]
        elif kind == 5 and place < len(content):
            content[place] ^= 1 << rng.integers(8)
        else:
            width, order = rng.choice([2, 4, 8]), rng.choice(["<", ">"])
            number = struct.pack(f"{order}Q", HUGE[rng.integers(len(HUGE))])
            content[place : place + width] = number[-width:] if order == ">" else number[:width]
    return bytes(content)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("seed", "count"), [(0, 15), pytest.param(1, 250, marks=pytest.mark.slow)])
def test_mutants_load_or_give_one_line(tmp_path, form, seed, count):
    """300 of them, and 5,000 in the slow run."""
    write, changed, read = FORMATS[form]
    write(tmp_path)
    read(tmp_path)
    whole = (tmp_path / changed).read_bytes()
    rng = np.random.default_rng(seed)
    lines = []
    tracemalloc.start()
    try:
        for i in range(count):
            (tmp_path / changed).write_bytes(mutated(whole, rng))
            started = time.process_time()
            try:
                read(tmp_path)
            except (DataError, WeightsError) as error:
                lines.append(str(error))
            except BaseException as error:
                raise AssertionError(f"mutant {i} of {form}") from error
            assert time.process_time() - started < 5
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**29
    assert len(lines) > count / 20
    for line in lines:
        assert line.isprintable()
        assert str(tmp_path) in line
        assert len(line.replace(str(tmp_path), "")) < 400
