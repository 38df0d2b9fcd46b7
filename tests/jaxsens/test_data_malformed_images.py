"""Image folders and pictures that are not right are one line each, in bounded memory."""

import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from witnesses import vision_files as files

from jaxsens.data import load

RIGHT = files.folder_files()
PNG, JPEG = (files.encoded(files.pictures(1)[0][0], form) for form in ("PNG", "JPEG"))
FIRST = "train/cat/0003.png"


def without(prefix):
    return {name: content for name, content in RIGHT.items() if not name.startswith(prefix)}


def folder(written):
    return lambda directory: files.write_files(directory, written)


def picture(content, name=FIRST):
    """The image folder with other bytes for one image."""
    return folder({**without(FIRST), name: content})


def chunk(kind, content):
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(width, height, pixels=b""):
    """A PNG that says it is of this size, eight bits of RGB."""
    start = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    )
    return start + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def flipped(content, place):
    """One bit of a file is another."""
    return content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]


def colours(shape, form="PNG", **options):
    images = files.pictures(1, shape)[0]
    return files.encoded(images[0].squeeze(), form, **options)


def jpeg_of_a_billion():
    start = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:start] + struct.pack(">HH", 40000, 40000) + JPEG[start + 4 :]


IS = r"cat/0003\.png in .* is "
PICTURES = {
    "text": (b"a cat", IS + "neither JPEG nor PNG: it is plain text"),
    "empty": (b"", IS + "neither JPEG nor PNG: it is empty"),
    "a GIF": (colours((32, 32), "GIF"), IS + "neither JPEG nor PNG: it is a GIF"),
    "a TIFF": (colours((32, 32, 3), "TIFF"), IS + "neither JPEG nor PNG: it is a TIFF"),
    "a WebP": (colours((32, 32, 3), "WEBP"), IS + "neither JPEG nor PNG: it is a WebP"),
    "PNG cut short": (PNG[: len(PNG) // 2], IS + "damaged: "),
    "PNG cut in the header": (PNG[:20], IS + "damaged: "),
    "PNG without its end": (PNG[:-20], IS + "damaged: "),
    "PNG with a bit flipped": (flipped(PNG, len(PNG) // 2), IS + "damaged: "),
    "PNG with a bit flipped in the header": (flipped(PNG, 20), IS + "damaged: "),
    "PNG without pixels": (png(32, 32), IS + "damaged: "),
    "PNG of no size": (png(0, 32), IS + "damaged: |" + IS + "0 x 32"),
    "PNG of 10^9 pixels": (png(40000, 25000), IS + "40000 x 25000, more than 67108864 pixels"),
    "PNG of 10^18 pixels": (png(2**31 - 1, 2**31 - 1), IS + "2147483647 x 2147483647, more than"),
    "JPEG cut short": (JPEG[: len(JPEG) // 2], IS + "damaged: "),
    "JPEG of a marker": (JPEG[:4], IS + "damaged: "),
    "JPEG of 1.6 10^9 pixels": (jpeg_of_a_billion(), IS + "40000 x 40000, more than 67108864 pix"),
    "another size": (
        colours((32, 31, 3)),
        IS + "31 x 32 in mode RGB; expected 32 x 32 in mode RGB",
    ),
    "grey": (colours((32, 32, 1)), IS + "32 x 32 in mode L; expected 32 x 32 in mode RGB"),
    "transparent": (
        colours((32, 32, 4)),
        IS + "32 x 32 in mode RGBA; expected 32 x 32 in mode RGB",
    ),
    "16 bits": (
        files.encoded(np.zeros((32, 32), np.uint16)),
        IS + "32 x 32 in mode I;16; expected",
    ),
}


@pytest.mark.parametrize("damage", PICTURES)
@pytest.mark.parametrize("archive", [False, True])
def test_pictures(tmp_path, damage, archive):
    content, message = PICTURES[damage]
    path = tmp_path
    if archive:
        path = files.write_zip(tmp_path / "a.zip", {**RIGHT, FIRST: content}, zipfile.ZIP_STORED)
    else:
        picture(content)(tmp_path)
    files.refused(load, "cifar10", path, message, tmp_path)


def test_colour_where_grey_is_needed(tmp_path):
    path = files.write_files(tmp_path, files.folder_files(tuple("0123456789"), (28, 28, 3)))
    files.refused(load, "mnist", path, "28 x 28 in mode RGB; expected 28 x 28 in mode L", tmp_path)


def link(directory):
    files.write_files(directory, without(FIRST))
    (directory / FIRST).symlink_to("nowhere.png")
    return directory


def pipe(directory):
    files.write_files(directory, without(FIRST))
    os.mkfifo(directory / FIRST)
    return directory


def hole(directory):
    files.write_files(directory, RIGHT)
    with open(directory / FIRST, "wb") as file:
        file.truncate(2**33)
    return directory


def nowhere(directory):
    (directory / "loop").symlink_to("loop")
    return directory / "loop"


def empty_class(directory):
    files.write_files(directory, without("test/cat/"))
    (directory / "test" / "cat").mkdir(exist_ok=True)
    return directory


OTHERS = files.folder_files(tuple("ABCDEFGHIJ"))
FOLDERS = {
    "an empty directory": (
        folder({}),
        r"holds no CIFAR-10 that can be read \(it is empty\); expected cifar-10-pyth",
    ),
    "no directory": (
        lambda d: d / "none",
        "there is no file or directory .*none; expected cifar-10",
    ),
    "a loop of links": (nowhere, "loop is a link to loop, where there is nothing; expected"),
    "a name with a zero": (lambda d: f"{d}\0", "there is no file or directory"),
    "a name with a line break": (
        lambda d: f"{d}\n/x",
        r"there is no file or directory .*\?/x; exp",
    ),
    "a text file": (
        lambda d: files.write_files(d, {"notes.txt": b"x"}) / "notes.txt",
        "holds no CIFAR",
    ),
    "no test part": (folder(without("test/")), "holds no folder test/ and no archive test.zip"),
    "no training part": (
        folder(without("train/")),
        "holds no folder train/ and no archive train.z",
    ),
    "no classes": (
        folder({**without("train/"), "train/.keep": b""}),
        "train holds no class folders",
    ),
    "a class missing in test": (
        folder(without("test/cat/")),
        "has the class cat in train/ but not in",
    ),
    "a class missing in train": (
        folder(without("train/ship/")),
        "has the class ship in test/ but not",
    ),
    "an empty class": (empty_class, "test has no images of the class cat"),
    "another class": (
        folder({**RIGHT, "train/x/1.png": PNG, "test/x/1.png": PNG}),
        "has the class x; e",
    ),
    "other classes": (folder(OTHERS), "has the class A; expected airplane, automobile, bird"),
    "nine classes": (
        folder({n: c for n, c in RIGHT.items() if "/dog/" not in n}),
        "has 9 class folders; expected airplane, automobile",
    ),
    "a class twice": (
        folder({**RIGHT, "train/Cat/1.png": PNG, "test/Cat/1.png": PNG}),
        "has 11 class folders; expected airplane",
    ),
    "an image outside the classes": (
        folder({**RIGHT, "train/1.png": PNG}),
        "1.png in .* is no class f",
    ),
    "a file of another kind": (
        folder({**RIGHT, "train/cat/a.txt": b""}),
        "cat/a.txt in .* is no image",
    ),
    "a folder within a class": (
        folder({**RIGHT, "test/cat/x/a.png": PNG}),
        "cat/x in .* is no image",
    ),
    "a folder called .png": (
        folder({**RIGHT, "test/cat/x.png/a": b""}),
        "cat/x.png in .* is no image",
    ),
    "a dangling link": (link, "cat/0003.png in .* is a link to nowhere.png, which is not there"),
    "a pipe": (pipe, "cat/0003.png in .* is no image"),
    "a file of 8 GB": (hole, "cat/0003.png in .* cannot be read: it is larger than 67108864 bytes"),
    "two archives": (
        folder({"a-train.zip": b"", "b-train.zip": b""}),
        r"holds several archives of train/: (a-train.zip, b|b-train.zip, a)",
    ),
    "a long name": (picture(b"x", f"train/cat/{'x' * 200}.png"), r"cat/xxx.*\.\.\.x.* is neither"),
    "a name that moves the cursor": (
        picture(b"x", "train/cat/\x1b[2J\n.png"),
        r"cat/\?\[2J\?.png in",
    ),
}


@pytest.mark.parametrize("damage", FOLDERS)
def test_folders(tmp_path, damage):
    build, message = FOLDERS[damage]
    files.refused(load, "cifar10", build(tmp_path), message, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_may_not_be_read(tmp_path):
    files.write_files(tmp_path, RIGHT)
    (tmp_path / "train").chmod(0)
    try:
        files.refused(load, "cifar10", tmp_path, "train cannot be read: .*Permission", tmp_path)
    finally:
        (tmp_path / "train").chmod(0o700)


def test_a_directory_that_cannot_be_read(tmp_path, monkeypatch):
    def scandir(path):
        raise PermissionError(13, "Permission denied", str(path))

    files.write_files(tmp_path, RIGHT)
    monkeypatch.setattr(os, "scandir", scandir)
    files.refused(load, "cifar10", tmp_path, "cannot be read: .*Permission denied", tmp_path)
