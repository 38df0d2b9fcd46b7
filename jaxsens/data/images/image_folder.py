"""Image folders: a directory or a zip archive that holds ``<split>/<class>/<name>.jpg``."""

import io
import os
import stat
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from jaxsens.data.dataset import DataError, reason, shown
from jaxsens.data.files.bounded import WholeFile

SUFFIXES = (".jpg", ".jpeg", ".png")
# Named by what a file starts with, not by its name: ImageNet has a PNG called .JPEG. Opening the
# plug-ins themselves leaves the question of how many pixels are too many to MAX_PIXELS alone.
DECODERS = {b"\xff\xd8\xff": JpegImageFile, b"\x89PNG\r\n\x1a\n": PngImageFile}
MAX_PIXELS = 2**26  # ImageNet's largest photographs are just below; 200 MB once decoded
MAX_FILE_BYTES = 2**26
MAX_RATIO = 100  # JPEG and PNG are compressed already: a zip cannot honestly shrink them further


class ImageTree:
    """The images of one split of an image folder, listed at construction and read one by one.

    ``path`` is a directory or a zip archive that holds ``<split>/<class>/<name>`` with names in
    .jpg, .jpeg or .png, perhaps below one single top-level directory; or a directory of archives,
    one a split, named ``<split>.zip`` or ``<anything>-<split>.zip``. Archives are never extracted.
    Hidden files are passed over; anything else that is no image is refused.

    classes: names of the class folders, sorted; a label is a place in this tuple.
    labels: int32 (N,).
    names: ``<class>/<name>`` of each image, sorted.
    where: the folder or the archive that they are in.

    Raises DataError when there is no such split, a class is empty, or an archive is damaged,
    encrypted, names places outside itself, or grows absurdly when decompressed.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    names: tuple[str, ...]

    def __init__(self, path: Path, split: str):
        place = self.find(path, split)
        if place is None:
            raise DataError(
                f"{path} holds no folder {split}/ and no archive {split}.zip; expected "
                f"{split}/<class>/<name>.jpg"
            )
        in_folder = os.path.isdir(place)
        self._files = _Directory(place) if in_folder else _Archive(place, split)
        self.where = self._files.where
        # An archive may list its members in any order, and a file system does.
        folders: dict[str, list[str]] = {}
        for folder, name in self._files.entries():
            members = folders.setdefault(folder, [])
            if name is not None:
                members.append(name)
        if not folders:
            raise DataError(
                f"{self.where} holds no class folders; expected {split}/<class>/<name>.jpg"
            )
        self.classes = tuple(sorted(folders))
        for folder in self.classes:
            if not folders[folder]:
                raise DataError(f"{self.where} has no images of the class {shown(folder)}")
        counts = [len(folders[folder]) for folder in self.classes]
        self.labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.names = tuple(f"{c}/{name}" for c in self.classes for name in sorted(folders[c]))

    @staticmethod
    def find(path: Path, split: str) -> Path | None:
        """The folder, or else the archive, that holds a split; None where a directory has neither.

        A ``path`` that is no directory is taken for an archive, unopened. Raises DataError when
        several archives are named after the split.
        """
        if not os.path.isdir(path):
            return path
        if os.path.isdir(path / split):
            return path / split
        entries = _scan(path)
        inner = [entry.path for entry in entries if entry.is_dir()]
        if len(inner) == 1 and os.path.isdir(Path(inner[0], split)):
            return Path(inner[0], split)
        ends = (f"-{split}.zip", f"_{split}.zip")
        names = [e.name for e in entries if e.name == f"{split}.zip" or e.name.endswith(ends)]
        if len(names) > 1:
            raise DataError(f"{path} holds several archives of {split}/: {shown(', '.join(names))}")
        return path / names[0] if names else None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Image.Image:
        """Image ``index``, decoded, in the mode it is stored in (RGB, L, P, CMYK, ...).

        The orientation in the metadata is not applied. Raises DataError when the file is neither
        JPEG nor PNG, is damaged, or says before it is decoded that it is larger than 2^26 pixels or
        64 MiB.
        """
        name = self.names[index]
        label = f"{shown(name)} in {self.where}"
        try:
            content = self._files.read(name)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{label} cannot be read: {reason(error)}") from None
        return decode(content, label)


def decode(content: bytes, label: str) -> Image.Image:
    """The image in a JPEG or PNG file. Raises DataError starting with ``label``."""
    plugin = next((p for magic, p in DECODERS.items() if content.startswith(magic)), None)
    if plugin is None:
        raise DataError(
            f"{label} is neither JPEG nor PNG: it starts with {content[:4].hex() or 'nothing'}"
        )
    try:
        image = plugin(io.BytesIO(content))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(f"{label} is {width} x {height}, more than {MAX_PIXELS} pixels")
        if plugin is PngImageFile:
            image.verify()  # decoding alone passes over the checksums of the pixels
            image = plugin(io.BytesIO(content))
        image.load()
    except DataError:
        raise
    except Exception as error:  # decoders fail on damaged bytes in any way there is
        raise DataError(f"{label} is damaged: {reason(error)}") from None
    return image


class _Directory:
    """Class folders and images below a directory of the file system."""

    def __init__(self, path: Path):
        self.where = path

    def entries(self) -> Iterator[tuple[str, str | None]]:
        for folder in _scan(self.where):
            if not folder.is_dir():
                raise DataError(f"{shown(folder.name)} in {self.where} is no class folder; move it")
            yield folder.name, None
            for file in _scan(folder.path):
                if not file.is_file() or not file.name.lower().endswith(SUFFIXES):
                    raise _foreign(f"{folder.name}/{file.name}", self.where)
                yield folder.name, file.name

    def read(self, name: str) -> bytes:
        with open(self.where / name, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise OSError(f"it is larger than {MAX_FILE_BYTES} bytes")
        return content


class _Archive:
    """Class folders and images below ``<split>/`` in a zip archive."""

    def __init__(self, path: Path, split: str):
        self.where = path
        try:
            file = WholeFile(path)
            weakref.finalize(self, file.close)  # the archive closes only what it opened itself
            self.zip = zipfile.ZipFile(file)
        except FileNotFoundError:
            raise DataError(f"there is no file or directory {path}") from None
        except Exception as error:  # the header of a damaged archive breaks the reader in many ways
            raise DataError(f"{path} cannot be read as a zip archive: {reason(error)}") from None
        self.members: dict[str, zipfile.ZipInfo] = {}
        for info in self.zip.infolist():
            name = info.filename.removesuffix("/")
            parts = name.split("/")
            if not {"", ".", ".."}.isdisjoint(parts) or "\\" in name or ":" in parts[0]:
                raise DataError(f"{path} names a place outside itself: {shown(info.filename)}")
            if parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts):
                continue
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(
                    f"{shown(name)} in {path} is a link or a device; expected files only"
                )
            if name in self.members:
                raise DataError(f"{path} holds {shown(info.filename)} twice")
            self.members[name] = info
        tops = {n.split("/")[0] for n, i in self.members.items() if "/" in n or i.is_dir()}
        top = f"{tops.pop()}/" if len(tops) == 1 and split not in tops else ""
        self.root = f"{top}{split}/"
        if not any(f"{name}/".startswith(self.root) for name in self.members):
            raise DataError(f"{path} holds no {split}/; expected {split}/<class>/<name>.jpg")

    def _check(self, info: zipfile.ZipInfo) -> None:
        label = f"{shown(info.filename)} in {self.where}"
        if info.flag_bits & 1:
            raise DataError(f"{label} is encrypted; decrypt the archive first")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{label} is compressed by a method other than deflate")
        if info.file_size > MAX_FILE_BYTES or info.file_size > MAX_RATIO * (info.compress_size + 1):
            raise DataError(
                f"{label} would grow from {info.compress_size} to {info.file_size} bytes; expected "
                f"at most {MAX_FILE_BYTES}, and {MAX_RATIO} times its size in the archive"
            )

    def entries(self) -> Iterator[tuple[str, str | None]]:
        for name, info in self.members.items():
            if not name.startswith(self.root):
                continue
            parts = name.removeprefix(self.root).split("/")
            if info.is_dir() and len(parts) == 1:
                yield parts[0], None
            elif info.is_dir() or len(parts) != 2 or not parts[1].lower().endswith(SUFFIXES):
                raise _foreign("/".join(parts), self.where)
            else:
                self._check(info)
                yield parts[0], parts[1]

    def read(self, name: str) -> bytes:
        # ZipFile reads no more than the size it was told, and checks the checksum.
        try:
            return self.zip.read(self.members[self.root + name])
        except (RuntimeError, NotImplementedError) as error:  # the member's own header disagrees
            raise zipfile.BadZipFile(reason(error)) from None


def _scan(path: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None


def _foreign(name: str, where: Path) -> DataError:
    return DataError(
        f"{shown(name)} in {where} is no image; expected <class>/<name>.jpg, .jpeg or .png alone"
    )
