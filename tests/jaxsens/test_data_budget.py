"""Small files that ask for much: one budget of bytes, items and work bounds every reader."""

import functools
import gzip
import os
import pickle
import struct
import tarfile
import threading
import time
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from witnesses import vision_files as files

from jaxsens.data import DataError, load
from jaxsens.data.files.budget import Budget, OverBudget
from jaxsens.data.files.restricted_pickle import loads
from jaxsens.data.images import catalogue, image_folder, imagenet, pictures


def test_what_is_charged_is_bounded():
    budget = Budget(size=10, items=2, work=5)
    assert budget.keep(10) == 10
    budget.count(2)
    budget.spend(5)
    with pytest.raises(OverBudget, match="more than 10 bytes in memory"):
        budget.keep(1)
    with pytest.raises(OverBudget, match="more than 2 parts"):
        budget.count()
    with pytest.raises(OverBudget, match="more than 5 bytes on the way"):
        budget.spend(1)
    with pytest.raises(OverBudget):
        Budget().keep(-1)


SOURCES = {
    "idx": ("mnist", files.write_idx, ""),
    "pickles": ("cifar10", lambda d: files.write_files(d, files.cifar_files()), ""),
    "binary": ("cifar10", lambda d: files.write_files(d, files.cifar_files("binary")), ""),
    "tar": ("cifar10", lambda d: files.write_tar(d / "a.tar.gz", files.cifar_files()), "a.tar.gz"),
    "mat": ("svhn", files.write_svhn, ""),
    "npz": ("cifar10", lambda d: np.savez(d / "a.npz", **files.arrays()), "a.npz"),
    "folder": ("cifar10", lambda d: files.write_files(d, files.folder_files()), ""),
    "zip": ("cifar10", lambda d: files.write_zip(d / "a.zip", files.folder_files()), "a.zip"),
}
OUT = {"mnist": 30 * (28 * 28 + 1)}  # bytes of the images and labels, at the least


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", ["size", "items", "work"])
def test_every_reader_keeps_to_the_budget_of_the_whole(tmp_path, monkeypatch, source, kind):
    """Each of the files fits by itself; together they do not."""
    name, write, loaded = SOURCES[source]
    write(tmp_path)
    spent = []

    class Watched(Budget):
        def __post_init__(self):
            super().__post_init__()
            spent.append(self)

    monkeypatch.setattr(catalogue, "Budget", Watched)
    load(name, tmp_path / loaded)
    (budget,) = spent
    used = {k: getattr(Budget(), k) - getattr(budget, k) for k in ("size", "items", "work")}
    assert used["items"] > 0
    assert used["size"] >= OUT.get(name, 24 * 32 * 32 * 3)
    assert used["work"] >= OUT.get(name, 24 * 32 * 32 * 3) / (3 if source != "idx" else 1)
    limits = {kind: used[kind] - 1}
    monkeypatch.setattr(catalogue, "Budget", functools.partial(Budget, **limits))
    files.refused(load, name, tmp_path / loaded, f"more than {used[kind] - 1} ", tmp_path)


def quickly(seconds=2.0):
    """The block takes no longer."""

    class Clock:
        def __enter__(self):
            self.start = time.process_time()

        def __exit__(self, *_):
            assert time.process_time() - self.start < seconds

    return Clock()


def test_a_sparse_file_in_a_tar(tmp_path):
    """157 bytes that the standard library reads as 335 MB of zeros."""
    info = tarfile.TarInfo("test_batch.bin")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (109190 * 3073)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(bytes(header) + bytes(1024)))
    assert path.stat().st_size < 200
    message = r"test_batch.bin is a link, a device or sparse; expected files only"
    files.refused(load, "cifar10", path, message, tmp_path)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        (b"22 GNU.sparse.major=1\n", "it holds a sparse file"),
        (b"20 size=99999999999\n", "it holds a sparse file"),
        (b"x" * 2**17, "says 131072 bytes of one member, more than 65536"),
    ],
)
def test_notes_in_a_tar(tmp_path, note, message):
    info = tarfile.TarInfo("note")
    info.type, info.size = tarfile.XHDTYPE, len(note)
    content = info.tobuf() + note + bytes(-len(note) % 512)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(content + tarfile.TarInfo("test_batch").tobuf()))
    files.refused(load, "cifar10", path, message, tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_axes_without_end_in_a_mat(tmp_path, compressed):
    """Compressed, 600 bytes: their product alone would take many seconds."""

    def element(kind, content):
        return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)

    axes = struct.pack("<i", 2**30) * 2**17
    flags = element(6, struct.pack("<II", 9, 0))
    matrix = element(14, flags + element(5, axes) + element(1, b"X") + element(2, b""))
    files.write_svhn(tmp_path)
    start = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    content = start + (element(15, zlib.compress(matrix, 9)) if compressed else matrix)
    (tmp_path / "train_32x32.mat").write_bytes(content)
    with quickly():
        files.refused(load, "svhn", tmp_path, "it holds an array of 131072 axes", tmp_path)


@pytest.mark.parametrize("content", [b"", struct.pack("<II", 14, 0), struct.pack("<II", 15, 0)])
def test_empty_elements_of_a_mat(tmp_path, content):
    files.write_svhn(tmp_path)
    start = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    (tmp_path / "train_32x32.mat").write_bytes(start + content)
    files.refused(load, "svhn", tmp_path, "has as X no variable|cannot be read as a", tmp_path)


def test_a_text_encoded_again_and_again():
    """A megabyte of pickle that asks for gigabytes: every call would make another copy."""
    text, calls = b"X" + struct.pack("<I", 2**19) + b"a" * 2**19, 4000
    call = b"c_codecs\nencode\n(h\0X\6\0\0\0latin1tRa"
    content = b"\x80\x02" + text + b"q\x00]" + call * calls + b"."
    with quickly(), pytest.raises(DataError, match="more than 402653184 bytes in memory"):
        loads(content, "here", Budget())


@pytest.mark.parametrize("key", ["number", "tuple"])
def test_keys_that_collide(key):
    """k (2^61 - 1) all have the hash 0: each is compared with all before it."""
    pickled = [pickle.dumps(k * (2**61 - 1), 2)[2:-1] for k in range(1, 20000)]
    if key == "tuple":
        pickled = [number + b"\x85" for number in pickled]
    content = b"\x80\x02}(" + b"".join(number + b"N" for number in pickled) + b"u."
    with quickly(), pytest.raises(DataError, match=r"it has a key of the type (int|tuple)"):
        loads(content, "here", Budget())


def test_operations_without_end():
    with pytest.raises(DataError, match="it has more than 1000 parts"):
        loads(b"\x80\x02" + b"N" * 2**20 + b".", "here", Budget(items=1000))


def test_a_header_of_gigabytes_in_an_npz(tmp_path):
    header = b"\x93NUMPY\2\0" + struct.pack("<I", 2**22) + b" " * 2**22
    files.write_zip(tmp_path / "a.npz", {f"{key}.npy": header for key in files.arrays()})
    message = "its header takes 4194304 bytes; expected at most 10000"
    files.refused(load, "cifar10", tmp_path / "a.npz", message, tmp_path)


def test_scans_without_end_in_a_jpeg():
    """Each goes over every pixel again."""
    jpeg = files.encoded(np.zeros((2048, 2048), np.uint8), "JPEG", progressive=True)
    start = jpeg.rindex(b"\xff\xda")
    scan = jpeg[start:-2]
    content = jpeg[:start] + scan * 4000 + jpeg[-2:]
    assert len(content) < 2**21
    with quickly(), pytest.raises(DataError, match=r"a\.jpg is damaged: it grows to more than 107"):
        pictures.decode(content, "a.jpg")
    assert pictures.decode(jpeg, "a.jpg").size == (2048, 2048)


@pytest.mark.parametrize("part", [b"\0\0\0\0prVt\xa6\x87\x8cI", b"\xff\xe1\0\2", b"\xff"])
def test_parts_without_end_in_an_image(part):
    """Pillow makes objects of every one, for a minute at 64 MiB."""
    form = "PNG" if b"prVt" in part else "JPEG"
    whole = files.encoded(files.pictures(1)[0][0], form)
    start = 33 if form == "PNG" else 2
    content = whole[:start] + part * (2**25 // len(part)) + whole[start:]
    with quickly(), pytest.raises(DataError, match="a is damaged: it has more than 65536 parts"):
        pictures.decode(content, "a")
    assert pictures.decode(whole[:start] + part * 3 + whole[start:], "a").size == (32, 32)


@pytest.mark.parametrize("archive", ["gzip", "tar", "npz"])
def test_members_without_end(tmp_path, archive):
    """Objects are made of each: a minute for 20 MB."""
    if archive == "gzip":
        files.write_idx(tmp_path)
        content = gzip.compress(b"") * 2**18
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
        name, path, message = "mnist", tmp_path, "it has more than 4096 compressed parts"
    elif archive == "tar":
        path = tmp_path / "a.tar.gz"
        path.write_bytes(gzip.compress(tarfile.TarInfo("x").tobuf() * 2**13))
        name, message = "cifar10", "it has more than 4096 members"
    else:
        path = files.write_zip(tmp_path / "a.npz", {f"{i}.npy": b"" for i in range(5000)})
        name, message = "cifar10", "it has more than 4096 members"
    with quickly():
        files.refused(load, name, path, message, tmp_path)


def test_gzip_in_several_parts_is_read(tmp_path):
    files.write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = gzip.decompress(path.read_bytes())
    parts = [gzip.compress(whole[i : i + 1000]) for i in range(0, len(whole), 1000)]
    path.write_bytes(b"".join(parts) + bytes(700))  # and filled up with zeros
    assert len(load("mnist", tmp_path).train.labels) == 20
    path.write_bytes(b"".join(parts)[:-3])
    files.refused(load, "mnist", tmp_path, "ended before the end-of-stream marker", tmp_path)


def test_members_without_end_in_a_zip(tmp_path):
    """Overlapping members are small in the archive and each as large as the others."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.folder_files().items():
            archive.writestr(name, content + bytes(2**22) * ("train" in name))
    assert (tmp_path / "a.zip").stat().st_size < 2**21
    with pytest.raises(DataError, match="cannot be read: it grows to more than 1000000 bytes"):
        image_folder.ImageTree(tmp_path / "a.zip", "train").read(0, Budget(work=10**6))


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(imagenet, "LARGE", 100)
    running, most = [], []

    class Slow(Image.Image):
        def __init__(self, side):
            super().__init__()
            self._size, self.most = (side, side), 0

        def load(self):
            running.append(self.size[0] > 10)
            time.sleep(0.002)
            most.append(sum(running))
            running.remove(self.size[0] > 10)

        def convert(self, mode):
            return Image.new(mode, self.size)

    class Images:
        labelled = False

        def read(self, index):
            return Slow(11 if index % 2 else 5), None

    assert sum(len(p) for p, _ in imagenet.batches(
        Images(), range(40), batch_size=8, size=4, crop=None
    )) == 40  # fmt: skip
    assert max(most) == 1


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "a.npz", "a.tar.gz", "a.zip"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    files.write_idx(tmp_path, "")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    found = []

    def attempt():
        with pytest.raises(DataError, match="no file but a folder, a pipe or a device") as error:
            load("mnist", tmp_path if name.startswith("train") else tmp_path / name)
        found.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(5)
    assert found
