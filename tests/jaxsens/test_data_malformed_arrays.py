"""Damaged, foreign and hostile .npz and .mat files are one line each, in bounded memory."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
import scipy.io
from witnesses import vision_files as files

from jaxsens.data import load

ZEROS = bytes(2**22)
RIGHT = files.arrays()


def npz(**changes):
    """An .npz file with other arrays, or without those that are None."""

    def build(directory):
        arrays = {key: value for key, value in {**RIGHT, **changes}.items() if value is not None}
        np.savez(directory / "data.npz", **arrays)
        return directory / "data.npz"

    return build


def member(content, name="train_images.npy", compression=zipfile.ZIP_DEFLATED):
    """An .npz file with one member of other bytes."""

    def build(directory):
        path = npz()(directory)
        with zipfile.ZipFile(path) as archive:
            written = {n: archive.read(n) for n in archive.namelist()}
        return files.write_zip(path, {**written, name: content}, compression)

    return build


def header(shape, dtype="|u1", rest="", version=1):
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}{rest}}}\n".encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes((version, 0)) + size + text


def raw(content):
    def build(directory):
        (directory / "data.npz").write_bytes(content)
        return directory / "data.npz"

    return build


def encrypted(directory):
    path = npz()(directory)
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(signature)
        content[start + place] |= 1
    path.write_bytes(content)
    return path


IMAGES = RIGHT["train_images"]
UNREADABLE = "data.npz cannot be read(:| as an .npz file)"
NPZ = {
    "objects": (npz(train_images=np.array([{}] * 20)), "train_images in .* object; expected uint8"),
    "labels as objects": (
        npz(test_labels=np.array([{}] * 10)),
        "test_labels in .* object; expected w",
    ),
    "floats": (npz(train_images=IMAGES / 255), "train_images in .* holds float64; expected uint8"),
    "signed": (npz(train_images=IMAGES.astype(np.int8)), "holds int8; expected uint8"),
    "labels as floats": (npz(train_labels=np.full(20, 0.5)), "train_labels in .* holds float64"),
    "labels as words": (npz(train_labels=np.array(["cat"] * 20)), "holds <U3; expected whole num"),
    "labels in two axes": (npz(train_labels=np.zeros((20, 2), int)), r"labels of int64 with shape"),
    "labels in no axis": (npz(train_labels=np.array(3)), r"labels of int64 with shape \(\)"),
    "labels out of range": (
        npz(test_labels=np.arange(10) + 1),
        "labels from 1 to 10; expected 0 to",
    ),
    "negative labels": (npz(test_labels=np.arange(10) - 1), "the test part .* labels from -1 to 8"),
    "fewer labels": (npz(train_labels=np.zeros(19, int)), "has 20 images but 19 labels"),
    "no images": (
        npz(train_images=IMAGES[:0], train_labels=np.zeros(0, int)),
        "holds no images|cannot",
    ),
    "grey": (
        npz(train_images=IMAGES[..., 0]),
        r"shape \(20, 32, 32\); expected .* \(N, 32, 32, 3\)",
    ),
    "another size": (
        npz(train_images=IMAGES[:, :28]),
        r"shape \(28, 32, 3\); expected \(32, 32, 3\)",
    ),
    "channels first": (
        npz(train_images=IMAGES.transpose(0, 3, 1, 2)),
        r"shape \(3, 32, 32\); expe",
    ),
    "one image": (npz(train_images=IMAGES[0]), r"with shape \(32, 32, 3\)"),
    "no train_images": (
        npz(train_images=None),
        "holds no train_images but test_im.*; expected train_",
    ),
    "no test_labels": (npz(test_labels=None), "holds no test_labels but .*; expected train_images"),
    "claims terabytes": (
        member(header((10**9, 32, 32, 3))),
        "it takes more than 402653184 bytes in memory",
    ),
    "claims beyond integers": (member(header((2**64, 2**64))), "its shape is"),
    "a negative shape": (
        member(header((-4, 32, 32, 3))),
        "cannot be read: its shape is",
    ),
    "twice negative": (member(header((-4, -32, 32, 3)) + ZEROS), "its shape is"),
    "no magic": (member(b"images"), UNREADABLE),
    "empty": (member(b""), UNREADABLE),
    "no header": (member(header((4,))[:9]), UNREADABLE),
    "no dict": (member(b"\x93NUMPY\1\0\4\0[1]\n"), UNREADABLE),
    "a header of gigabytes": (member(b"\x93NUMPY\2\0\xff\xff\xff\xff{"), UNREADABLE),
    "a nested header": (member(header("(" * 5000 + ")" * 5000)), UNREADABLE),
    "a header that computes": (member(header("__import__('os').getpid()")), UNREADABLE),
    "another version": (member(header((4,), version=3)), r"of .npy version \(3, 0\); expected"),
    "shorter": (member(header((20, 32, 32, 3)) + bytes(99)), "is shorter than its header says"),
    "longer": (member(header((1, 32, 32, 3)) + ZEROS), "is longer than its header says"),
    "fields": (member(header((4,), [("a", "|u1"), ("b", "|O")])), "expected uint8"),
    "objects by header": (
        member(header((4,), "|O") + b"cos\nsystem\n(S'false'\ntR."),
        "holds object",
    ),
    "another compression": (
        member(b"", compression=zipfile.ZIP_LZMA),
        "is not deflated; write it by numpy.savez",
    ),
    "encrypted": (encrypted, "is encrypted; decrypt the archive first"),
    "no zip": (raw(b"text" * 99), UNREADABLE),
    "nothing": (raw(b""), UNREADABLE),
}


@pytest.mark.parametrize("damage", NPZ)
def test_npz(tmp_path, damage):
    build, message = NPZ[damage]
    files.refused(load, "cifar10", build(tmp_path), message, tmp_path)


X, Y = IMAGES.transpose(1, 2, 3, 0), RIGHT["train_labels"][:, None].astype(np.uint8)


def mat(content, **options):
    """SVHN with other variables in its test file, or other bytes."""

    def build(directory):
        files.write_svhn(directory)
        if isinstance(content, bytes):
            (directory / "test_32x32.mat").write_bytes(content)
        else:
            scipy.io.savemat(directory / "test_32x32.mat", content, **options)
        return directory

    return build


def matlab(*elements):
    """A file of these elements: (kind, claimed size or None, content)."""
    start = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    return start + b"".join(
        struct.pack("<II", kind, len(content) if size is None else size) + content
        for kind, size, content in elements
    )


def whole():
    file = io.BytesIO()
    scipy.io.savemat(file, {"X": X, "y": Y}, do_compression=False)
    return file.getvalue()


def deflated_zeros(count):
    deflate = zlib.compressobj(1)
    return b"".join(deflate.compress(ZEROS) for _ in range(count)) + deflate.flush()


WHOLE = whole()
COUNT, MANY = (struct.pack("<i", n) for n in (20, 1398101))  # 4 GB of pixels
SIZES = [struct.pack("<II", 2, size) for size in (X.nbytes, 2**32 - 8)]
SHAPES = [b"".join((struct.pack("<3i", *X.shape[:3]), n)) for n in (COUNT, MANY)]
TALL = [n + struct.pack("<i", 1) for n in (COUNT, MANY)]
FOREIGN = "test_32x32.mat cannot be read as a MATLAB file"
MAT = {
    "no X": (
        mat({"y": Y}),
        r"has as X no variable of shape \(\); expected uint8 of shape \(32, 32",
    ),
    "no y": (mat({"X": X}), r"has as y no variable of shape \(\); expected 20 labels"),
    "nothing in it": (mat({}), "has as X no variable"),
    "X of floats": (mat({"X": X / 255, "y": Y}), "has as X double of shape"),
    "X as a cell": (mat({"X": np.array([{}]), "y": Y}), "has as X cell of shape"),
    "X as words": (mat({"X": "pixels", "y": Y}), "has as X char of shape"),
    "X of another size": (mat({"X": X[:28], "y": Y}), r"has as X uint8 of shape \(28, 32, 3, 20\)"),
    "X with images first": (
        mat({"X": IMAGES, "y": Y}),
        r"has as X uint8 of shape \(20, 32, 32, 3\)",
    ),
    "X of one image": (mat({"X": X[..., 0], "y": Y}), r"has as X uint8 of shape \(32, 32, 3\)"),
    "fewer labels": (mat({"X": X, "y": Y[1:]}), r"has as y uint8 of shape \(19, 1\); expected 20"),
    "labels as a cell": (mat({"X": X, "y": np.array([{}] * 20)}), "has as y cell"),
    "labels with fractions": (mat({"X": X, "y": Y + 0.5}), "has the label 0.5; expected whole"),
    "a label that is no number": (
        mat({"X": X, "y": Y * np.nan}),
        "has the label nan; expected whole",
    ),
    "an infinite label": (
        mat({"X": X, "y": Y + np.inf}),
        "labels from inf to inf; expected 0 to 9",
    ),
    "a label out of range": (mat({"X": X, "y": Y + 2}), "labels from 0 to 11; expected 0 to 9"),
    "MATLAB 4": (mat({"y": Y}, format="4"), "is no MATLAB 5 file: it starts with"),
    "MATLAB 7.3": (mat(b"MATLAB 7.3 MAT-file, HDF5".ljust(512) + b"\x89HDF"), "save -v7"),
    "HDF5": (
        mat(b"\x89HDF\r\n\x1a\n" * 99),
        "is no MATLAB 5 file: it is an HDF5 file, expected",
    ),
    "text": (mat(b"labels, 1, 2, 3\n"), "is no MATLAB 5 file"),
    "empty": (mat(b""), "it is empty, expected 4d41544c"),
    "a header alone": (mat(WHOLE[:128]), "has as X no variable"),
    "cut in the header": (mat(WHOLE[:60]), FOREIGN),
    "cut in X": (mat(WHOLE[:9999]), f"{FOREIGN}: it is cut short"),
    "damaged compression": (mat(matlab((15, None, b"no zlib at all"))), FOREIGN),
    "cut compression": (mat(matlab((15, None, zlib.compress(WHOLE[128:])[:99]))), FOREIGN),
    "grows without end": (
        mat(matlab((15, None, deflated_zeros(140)))),
        "it takes more than 402653184 bytes in memory",
    ),
    "claims an element of gigabytes": (mat(matlab((14, 2**32 - 8, b"x" * 99))), "it is cut short"),
    "claims bytes of gigabytes": (mat(WHOLE.replace(*SIZES)), FOREIGN),
    "claims pixels of gigabytes": (
        mat(WHOLE.replace(*SHAPES)),
        f"{FOREIGN}: it holds 61440 numbers for the shape",
    ),
    "claims labels as well": (mat(WHOLE.replace(*SHAPES).replace(*TALL)), FOREIGN),
    "an unknown element": (mat(matlab((99, None, b"x" * 64))), FOREIGN),
    "another byte order": (mat(WHOLE[:126] + b"MI" + WHOLE[128:]), FOREIGN),
    "no test file": (
        lambda d: (files.write_svhn(d) / "test_32x32.mat").unlink() or d,
        "test_32x32.mat cannot be read: there is no such file",
    ),
}


@pytest.mark.parametrize("damage", MAT)
def test_mat(tmp_path, damage):
    build, message = MAT[damage]
    files.refused(load, "svhn", build(tmp_path), message, tmp_path)
