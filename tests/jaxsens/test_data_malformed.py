"""Damaged, foreign and hostile files of arrays are one line each, in bounded memory.

IDX files are in test_data_mnist.py, image folders in test_data_malformed_images.py.
"""

import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
from witnesses import vision_files as files

from jaxsens.data import load

IMAGES, LABELS = files.pictures(4)
BATCH = files.batch(IMAGES, LABELS)
PICKLE = files.python2(BATCH)
BINARY = files.cifar_files("binary")["cifar-10-batches-bin/data_batch_2.bin"]
ZEROS = bytes(2**22)


class Runs:
    """Pickled, a call of ``function``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def batch(content, kind="python"):
    """CIFAR-10 whose second batch is ``content``, or what that makes of its dict."""

    def build(directory):
        written = files.cifar_files(kind)
        (name,) = (name for name in written if "data_batch_2" in name)
        written[name] = content
        return files.write_files(directory, written)

    return build


def changed(**changes):
    data = {**BATCH, **{key.encode(): value for key, value in changes.items()}}
    data = {key: value for key, value in data.items() if value is not None}
    return batch(pickle.dumps(data, protocol=2))


def array_of(shape=b"", kind=b"(U\x02u1K\x00K\x01tR", content=b"U\x02ab", tail=b"b"):
    """A batch whose array says of itself what is given here, in opcodes."""
    shape = shape or b"(K\x01K\x02t"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR("
    array += b"K\x01" + shape + b"cnumpy\ndtype\n" + kind + b"\x89" + content + b"t" + tail
    return batch(b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x01eu.")


NOT_ALONE = "data_batch_2 in .* is no pickle of arrays, lists, numbers and strings alone: "
ASKS = NOT_ALONE + "it asks for "
PICKLES = {
    "empty": (batch(b""), NOT_ALONE),
    "cut short": (batch(PICKLE[:-100]), NOT_ALONE),
    "cut after a byte": (batch(PICKLE[:1]), NOT_ALONE),
    "text": (batch(b"airplane, 3, 4\n"), NOT_ALONE),
    "runs a command": (batch(pickle.dumps(Runs(os.system, "false"), 2)), ASKS + "posix.system"),
    "runs a command, protocol 4": (batch(pickle.dumps(Runs(os.system, "x"), 4)), ASKS + "posix"),
    "evaluates": (batch(pickle.dumps(Runs(eval, "1/0"), 2)), ASKS + "__builtin__.eval"),
    "gets an attribute": (batch(pickle.dumps(Runs(getattr, 1, "x"), 2)), ASKS + "__builtin__.geta"),
    "loads a file": (batch(pickle.dumps(Runs(np.load, "x"), 2)), ASKS + "numpy.*load"),
    "maps a file": (batch(b"cnumpy\nmemmap\n(U\x01xtR."), ASKS + "numpy.memmap"),
    "a module within numpy": (batch(b"cnumpy.os\nsystem\n(U\x01xtR."), ASKS + "numpy.os.system"),
    "an object": (batch(pickle.dumps(Runs(complex, 1), 2)), ASKS + "__builtin__.complex"),
    "encodes by name": (
        batch(pickle.dumps(Runs(__import__("_codecs").encode, "x" * 9, "rot13"), 2)),
        NOT_ALONE + "it encodes something else",
    ),
    "an extension": (batch(b"\x80\x02\x82\x01."), NOT_ALONE + "it uses the operation EXT1"),
    "a persistent id": (batch(b"Pnumber\n."), NOT_ALONE + "it uses the operation PERSID"),
    "another persistent id": (batch(b"\x80\x02K\x01Q."), NOT_ALONE + ".* BINPERSID"),
    "an instance": (batch(b"(ios\nsystem\n."), NOT_ALONE + "it uses the operation INST"),
    "a new object": (batch(pickle.dumps(IndentationError(), 4)), ASKS + "builtins.Indentation"),
    "a buffer from outside": (batch(b"\x80\x05\x97."), NOT_ALONE + ".* NEXT_BUFFER"),
    "an array of objects": (
        changed(data=np.array([[{}]])),
        NOT_ALONE + "it holds an array of b?'O8",
    ),
    "an array of floats": (changed(data=np.zeros((4, 3072))), NOT_ALONE + ".* expected 'u1'"),
    "an array of records": (changed(data=np.zeros(4, "u1,u1")), NOT_ALONE + ".* expected 'u1'"),
    "claims an array of gigabytes": (
        array_of(b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft"),
        NOT_ALONE + "it holds 2 bytes for the shape",
    ),
    "an array of negative shape": (array_of(b"(J\xff\xff\xff\xffJ\xfe\xff\xff\xfft"), "impossible"),
    "an array of 1000 axes": (array_of(b"(" + b"K\x01" * 1000 + b"t"), "impossible shape"),
    "an array of a number": (array_of(content=b"K\x07"), "something else than bytes"),
    "an array without elements of a kind": (array_of(kind=b""), NOT_ALONE),
    "an array never built": (array_of(tail=b"0"), NOT_ALONE),
    "changes a function": (batch(b"cnumpy\ndtype\n}U\x01aK\x01sb."), "it changes a function"),
    "changes a function by slots": (
        batch(b"cnumpy\ndtype\n(N}U\x01aK\x01stb."),
        "it changes a fun",
    ),
    "claims a string of a terabyte": (
        batch(b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a."),
        NOT_ALONE,
    ),
    "claims a string of gigabytes": (batch(b"\x80\x02T\xff\xff\xff\x7fa."), NOT_ALONE),
    "claims billions of objects": (
        batch(b"\x80\x02]r\xff\xff\xff\x7f."),
        "data_batch_2 in .* holds a list; expected a dict",
    ),
    "claims billions of objects in words": (
        batch(b"(lp2147483647\n."),
        "holds a list; expected a dict",
    ),
    "a frame of a terabyte": (
        batch(b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N."),
        "holds a None",
    ),
    "lists in lists": (
        batch(b"\x80\x02" + b"]" * 2**15 + b"a" * (2**15 - 1) + b"."),
        "holds a list; expected a dict",
    ),
    "doubled lists": (
        batch(
            b"\x80\x02]q\x00(" + b"".join(b"]q%c(h%ch%ce" % (i, i - 1, i - 1) for i in range(1, 99))
        ),
        NOT_ALONE,
    ),
    "a number of 5000 digits": (batch(b"L" + b"9" * 5000 + b"L\n."), NOT_ALONE),
    "a list": (batch(pickle.dumps([1, 2], 2)), "data_batch_2 in .* holds a list; expected a dict"),
    "no data": (changed(data=None), "data_batch_2 in .* has no array of bytes called data"),
    "data as a list": (changed(data=[1, 2]), "has no array of bytes called data"),
    "no labels": (changed(labels=None), "has no list of whole numbers from 0 to 9 called labels"),
    "labels as fractions": (changed(labels=[0.5] * 4), NOT_ALONE + ".* BINFLOAT"),
    "labels as words": (changed(labels=["cat"] * 4), "has no list of whole numbers"),
    "labels as truths": (changed(labels=[True] * 4), "has no list of whole numbers"),
    "a huge label": (changed(labels=[10**100, 1, 2, 3]), "has no list of whole numbers"),
    "a label out of range": (
        changed(labels=[10, 1, 2, 3]),
        "has labels from 0 to 10; expected 0 to 9",
    ),
    "a negative label": (changed(labels=[-1, 1, 2, 3]), "has labels from -1 to 9; expected 0 to 9"),
    "fewer labels": (changed(labels=[1, 2, 3]), "data_batch_2 in .* has 4 images but 3 labels"),
    "data in images": (
        changed(data=IMAGES),
        r"has data of shape \(4, 32, 32, 3\); expected \(N, 3072\)",
    ),
    "grey data": (changed(data=BATCH[b"data"][:, :1024]), r"has data of shape \(4, 1024\)"),
    "a shorter batch": (
        changed(data=BATCH[b"data"][:3], labels=[1, 2, 3]),
        "data_batch_2 in .* holds 3 images, but data_batch_1 4; expected the same number",
    ),
    "binary, cut short": (
        batch(BINARY[:-1], "binary"),
        "has 12291 bytes; expected a multiple of 3073",
    ),
    "binary, an image less": (batch(BINARY[3073:], "binary"), "holds 3 images, but data_batch_1 4"),
    "binary, empty": (batch(b"", "binary"), "holds 0 images, but data_batch_1 4"),
    "binary, label out of range": (batch(b"\xff" + BINARY[1:], "binary"), "labels from 0 to 255"),
}


@pytest.mark.parametrize("damage", PICKLES)
def test_batches_of_cifar(tmp_path, damage):
    build, message = PICKLES[damage]
    files.refused(load, "cifar10", build(tmp_path), message, tmp_path)


def tar(*members, first=True, last=b""):
    """An archive of CIFAR-10 with these headers and contents before, or after, the rest."""

    def build(directory):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            rest = [(tarfile.TarInfo(n), c) for n, c in files.cifar_files().items()]
            for info, content in [*members, *rest] if first else [*rest, *members]:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        path = directory / "cifar-10-python.tar.gz"
        path.write_bytes(gzip.compress(raw.getvalue(), 1) + last)
        return path

    return build


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def archive(content, name="cifar-10-python.tar.gz"):
    def build(directory):
        (directory / name).write_bytes(content)
        return directory / name

    return build


def header(name, size, kind):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def without_a_batch(directory):
    written = files.cifar_files()
    del written["cifar-10-batches-py/data_batch_4"]
    return files.write_tar(directory / "cifar-10-python.tar.gz", written)


BOMB = gzip.compress(header("x", 2**33, tarfile.REGTYPE)) + gzip.compress(ZEROS) * 70
LONG = gzip.compress(header("x", 2**33, tarfile.GNUTYPE_LONGNAME)) + gzip.compress(ZEROS) * 70
TAR = tar()
OUTSIDE, LINK = "names a place outside itself: ", "is a link, a device or sparse; expected files"
TARS = {
    "above": (tar(member("../data_batch_1")), OUTSIDE + r"\.\./data_batch_1"),
    "above, deep": (tar(member("a/b/../../../x")), OUTSIDE),
    "absolute": (tar(member("/etc/data_batch_1")), OUTSIDE + "/etc"),
    "a symbolic link": (tar(member("data_batch_1", tarfile.SYMTYPE, "/etc/passwd")), LINK),
    "a hard link": (tar(member("data_batch_1", tarfile.LNKTYPE, "x")), LINK),
    "a device": (tar(member("data_batch_1", tarfile.CHRTYPE)), LINK),
    "a pipe": (tar(member("data_batch_1", tarfile.FIFOTYPE)), LINK),
    "a line break in a name": (
        tar(member("../data\n\x1b[2Jbatch")),
        OUTSIDE + r"\.\./data\?\?\[2J",
    ),
    "twice": (
        tar((tarfile.TarInfo("x/test_batch"), PICKLE), first=False),
        "holds test_batch twice",
    ),
    "a batch missing": (without_a_batch, "holds no data_batch_4; expected data_batch_1, data_b"),
    "empty": (archive(b""), "holds no data_batch_1|cannot be read as a .tar.gz"),
    "not compressed": (archive(b"ustar" * 999), "cannot be read as a .tar.gz: Not a gzipped file"),
    "no archive": (archive(gzip.compress(b"text" * 999)), "cannot be read as a .tar.gz"),
    "grows without end": (archive(BOMB), "x is larger than 67108864 bytes"),
    "a name without end": (archive(LONG), "says 8589934592 bytes of one member, more than 65536"),
    "names of names": (
        archive(gzip.compress((header("x", 512, tarfile.GNUTYPE_LONGNAME) + bytes(512)) * 9999)),
        "it has more than 4096 members",
    ),
    "a batch of 8 GB": (
        archive(gzip.compress(header("test_batch", 2**33 - 1, tarfile.REGTYPE) + ZEROS)),
        "test_batch is larger than 67108864 bytes",
    ),
}


@pytest.mark.parametrize("damage", TARS)
def test_archives_of_cifar(tmp_path, damage):
    build, message = TARS[damage]
    files.refused(load, "cifar10", build(tmp_path), message, tmp_path)
