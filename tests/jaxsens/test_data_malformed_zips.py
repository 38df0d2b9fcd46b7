"""Zip archives of images that are damaged or hostile are one line each, in bounded memory."""

import stat
import struct
import zipfile

import pytest
from witnesses import vision_files as files

from jaxsens.data import load

RIGHT = files.folder_files()
FIRST = "train/cat/0003.png"


def without(prefix):
    return {name: content for name, content in RIGHT.items() if not name.startswith(prefix)}


def zipped(added=(), *, rest=RIGHT, patch=()):
    """A zip archive with members added, or with fields of its directory changed."""

    def build(directory):
        path = directory / "images.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for info, content in [*dict(rest).items(), *added]:
                archive.writestr(info, content)
        content = bytearray(path.read_bytes())
        for signature, place, value in patch:
            start = content.rindex(signature)
            content[start + place : start + place + len(value)] = value
        path.write_bytes(content)
        return path

    return build


def named(name, *, method=zipfile.ZIP_STORED, kind=0, content=b""):
    info = zipfile.ZipInfo("x")
    info.filename, info.compress_type = name, method
    info.external_attr = (kind | 0o600) << 16
    return [(info, content)]


def raw(content):
    def build(directory):
        (directory / "images.zip").write_bytes(content)
        return directory / "images.zip"

    return build


LOCAL, CENTRAL = b"PK\3\4", b"PK\1\2"
ENCRYPTED = [(LOCAL, 6, b"\1"), (CENTRAL, 8, b"\1")]
GIGABYTES = struct.pack("<I", 2**32 - 2)
ZEROS = bytes(2**21)
OUTSIDE, KIND = "names a place outside itself: ", "is a link or a device; expected files only"
NO_ZIP = "images.zip cannot be read as a zip archive: "
ZIPS = {
    "above": (zipped(named("../cat.png")), OUTSIDE + r"\.\./cat.png"),
    "above, deep": (zipped(named("train/cat/../../../x.png")), OUTSIDE),
    "above, by backslash": (zipped(named("train\\..\\..\\x.png")), OUTSIDE),
    "absolute": (zipped(named("/etc/x.png")), OUTSIDE + "/etc"),
    "a drive": (zipped(named("C:/x.png")), OUTSIDE + "C:/x.png"),
    "a line break in a name": (zipped(named("../\n\x1b[2J.png")), OUTSIDE + r"\.\./\?\?\[2J.png"),
    "a long name": (zipped(named("../" + "x" * 5000)), OUTSIDE + r"\.\./x+\.\.\.x+$"),
    "a link": (zipped(named("train/cat/x.png", kind=stat.S_IFLNK, content=b"/etc/passwd")), KIND),
    "a device": (zipped(named("train/cat/x.png", kind=stat.S_IFCHR)), KIND),
    "a pipe": (zipped(named("train/cat/x.png", kind=stat.S_IFIFO)), KIND),
    "encrypted": (zipped(patch=ENCRYPTED), r"in .*images.zip is encrypted; decrypt the archive"),
    "another name in the member": (zipped(patch=[(LOCAL, 30, b"X")]), "cannot be read: .* differ"),
    "a bomb": (
        zipped(named("train/cat/x.png", method=zipfile.ZIP_DEFLATED, content=bytes(2**26 + 1))),
        r"cat/x.png in .* would grow from \d+ to 67108865 bytes; expected at most 67108864",
    ),
    "claims four gigabytes": (
        zipped(patch=[(CENTRAL, 24, GIGABYTES)]),
        "to 4294967294 bytes; expec",
    ),
    "claims all gigabytes": (
        zipped(patch=[(CENTRAL, 20, GIGABYTES), (CENTRAL, 24, GIGABYTES)]),
        "to 4294967294 bytes; expected at most",
    ),
    "claims less": (zipped(patch=[(CENTRAL, 24, b"\x09\0")]), "cannot be read: "),
    "another checksum": (zipped(patch=[(CENTRAL, 16, b"\1\2")]), "cannot be read: Bad CRC-32"),
    "compressed by bzip2": (
        zipped(named("train/cat/x.png", method=zipfile.ZIP_BZIP2)),
        "is compressed by a method other than deflate",
    ),
    "somewhere else": (zipped(patch=[(CENTRAL, 42, GIGABYTES)]), "cannot be read|zip archive"),
    "a file of another kind": (zipped(named("train/cat/x.txt")), "cat/x.txt in .* is no image"),
    "an image outside the classes": (
        zipped(named("train/x.png")),
        "x.png in .* is no image; expected",
    ),
    "a folder within a class": (zipped(named("test/cat/x/a.png")), "cat/x/a.png in .* is no image"),
    "an empty class": (
        zipped([("test/cat/", b"")], rest=without("test/cat/")),
        "images.zip has no images of the class cat",
    ),
    "no test part": (
        zipped(rest=without("test/")),
        "images.zip holds no test/ but train/airplane/0000.png.*; expected test/<class>",
    ),
    "an empty archive": (
        zipped(rest={}),
        "images.zip holds no train/ but nothing; expected train/<class>/<name>",
    ),
    "a class missing": (
        zipped(rest=without("test/cat/")),
        "has the class cat in train/ but not in te",
    ),
    "no archive": (raw(b"text"), NO_ZIP + "File is not a zip file"),
    "nothing": (raw(b""), NO_ZIP),
    "an end alone": (raw(b"PK\5\6" + b"\xff" * 18), NO_ZIP),
}


@pytest.mark.parametrize("damage", ZIPS)
def test_zips(tmp_path, damage):
    build, message = ZIPS[damage]
    files.refused(load, "cifar10", build(tmp_path), message, tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(tmp_path):
    path = zipped(named(FIRST))(tmp_path)
    files.refused(load, "cifar10", path, "images.zip holds train/cat/0003.png twice", tmp_path)
