"""Image folders: a directory or a zip archive that holds ``<split>/<class>/<name>.jpg``."""

import itertools
import os
import re
import stat
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from jaxsens.data.dataset import DataError, reason, shown
from jaxsens.data.files.budget import FILE, Budget, for_one_image
from jaxsens.data.files.names import dangling, holding, is_litter, member_parts, plain, scan
from jaxsens.data.files.opened import WholeFile, looks
from jaxsens.data.images.pictures import opened

SUFFIXES = (".jpg", ".jpeg", ".png")
SPLITS = ("train", "test", "val", "validation")
ONE_SPLIT = re.compile(f"(|.*[-_])({'|'.join(SPLITS)})\\.zip")


class ImageTree:
    """The images of one split of an image folder, listed at construction and read one by one.

    ``path`` is a directory or a zip archive that holds ``<split>/<class>/<name>`` with names in
    .jpg, .jpeg or .png, perhaps below one single top-level directory; or a directory of archives,
    one a split, named ``<split>.zip`` or ``<anything>-<split>.zip``. Archives are never extracted.
    Hidden files and what else operating systems leave are passed over; anything else that is no
    image is refused.

    classes: names of the class folders, sorted; a label is a place in this tuple.
    labels: int32 (N,).
    names: ``<class>/<name>`` of each image, sorted.
    where: the folder or the archive that they are in.

    Raises DataError when there is no such split, a class is empty, or an archive is damaged,
    encrypted, or names places outside itself.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    names: tuple[str, ...]

    def __init__(self, path: str | Path, split: str, budget: Budget | None = None):
        path, budget = Path(path), budget or Budget()
        place = self.find(path, split)
        if place is None:
            if away := dangling(path / split):
                raise DataError(f"{path / split} {away}")
            raise DataError(
                f"{path} holds no folder {split}/ and no archive {split}.zip{holding(path)}; "
                f"expected {split}/<class>/<name>.jpg"
            )
        in_folder = os.path.isdir(place)
        self._files = _Directory(place, budget) if in_folder else _Archive(place, split, budget)
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
    def find(path: str | Path, split: str) -> Path | None:
        """The folder, or else the archive, that holds a split; None where a directory has neither.

        A ``path`` that is no directory is taken for an archive, unopened. The folder or archive of
        one split stands for those of the others beside it. Raises DataError when several archives
        are named after the split.
        """
        path = Path(path)
        if not os.path.isdir(path):
            named = ONE_SPLIT.fullmatch(path.name)
            beside = path.with_name(f"{named[1]}{split}.zip") if named else path
            return beside if os.path.isfile(beside) else path
        if os.path.isdir(path / split):
            return path / split
        entries = scan(path, Budget())
        inner = [entry.path for entry in entries if os.path.isdir(entry.path)]
        if len(inner) == 1 and os.path.isdir(Path(inner[0], split)):
            return Path(inner[0], split)
        ends = (f"-{split}.zip", f"_{split}.zip")
        names = [
            entry.name
            for entry in entries
            if plain(entry.name) == f"{split}.zip" or plain(entry.name).endswith(ends)
        ]
        if len(names) > 1:
            raise DataError(f"{path} holds several archives of {split}/: {shown(', '.join(names))}")
        if names:
            return path / names[0]
        beside = path.parent / split
        return beside if path.name in SPLITS and os.path.isdir(beside) else None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int, budget: Budget | None = None) -> Image.Image:
        """Image ``index`` in the mode it is stored in (RGB, L, P, CMYK, ...), decoded on first use.

        The orientation in the metadata is not applied. Raises DataError when the file is neither
        JPEG nor PNG, or says that it is larger than 2^26 pixels or 64 MiB; `decoded` does where its
        pixels are damaged.
        """
        name = self.names[index]
        label = f"{shown(name)} in {self.where}"
        budget = budget or for_one_image()
        try:
            content = self._files.read(name, budget)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{label} cannot be read: {reason(error)}") from None
        return opened(content, label, budget)


class _Directory:
    """Class folders and images below a directory of the file system."""

    def __init__(self, path: Path, budget: Budget):
        self.where = path
        self._budget = budget

    def entries(self) -> Iterator[tuple[str, str | None]]:
        for folder in scan(self.where, self._budget):
            if not os.path.isdir(folder.path):
                what = dangling(folder.path) or "is no class folder; move it"
                raise DataError(f"{shown(folder.name)} in {self.where} {what}")
            yield folder.name, None
            for file in scan(folder.path, self._budget):
                if away := dangling(file.path):
                    name = shown(f"{folder.name}/{file.name}")
                    raise DataError(f"{name} in {self.where} {away}")
                if not file.is_file() or not file.name.lower().endswith(SUFFIXES):
                    raise _foreign(f"{folder.name}/{file.name}", self.where)
                yield folder.name, file.name

    def read(self, name: str, budget: Budget) -> bytes:
        with WholeFile(self.where / name) as file:
            content = file.read(FILE + 1)
        if len(content) > FILE:
            raise OSError(f"it is larger than {FILE} bytes")
        budget.spend(len(content))
        return content


class _Archive:
    """Class folders and images below ``<split>/`` in a zip archive."""

    def __init__(self, path: Path, split: str, budget: Budget):
        self.where = path
        try:
            file = WholeFile(path, budget)
            weakref.finalize(self, file.close)  # the archive closes only what it opened itself
            self.zip = zipfile.ZipFile(file)
            budget.count(len(self.zip.infolist()))
        except FileNotFoundError as error:
            problem = f": {error}" if os.path.islink(path) else ""
            raise DataError(f"there is no file or directory {path}{problem}") from None
        except Exception as error:  # the header of a damaged archive breaks the reader in many ways
            raise DataError(
                f"{path} cannot be read as a zip archive: {reason(error)}{_instead(path)}"
            ) from None
        self.members: dict[str, zipfile.ZipInfo] = {}
        for info in self.zip.infolist():
            try:
                parts = member_parts(info.filename)
            except ValueError as error:
                raise DataError(f"{path} {error}") from None
            if not parts or any(is_litter(part) for part in parts):
                continue
            name = "/".join(parts)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(
                    f"{shown(name)} in {path} is a link or a device; expected files only"
                )
            if name in self.members:
                if _is_folder(info) and _is_folder(self.members[name]):
                    continue
                raise DataError(f"{path} holds {shown(info.filename)} twice")
            self.members[name] = info
        tops = {n.split("/")[0] for n, i in self.members.items() if "/" in n or _is_folder(i)}
        top = f"{tops.pop()}/" if len(tops) == 1 and split not in tops else ""
        self.root = f"{top}{split}/"
        if not any(f"{name}/".startswith(self.root) for name in self.members):
            some = ", ".join(map(shown, itertools.islice(self.members, 3))) or "nothing"
            raise DataError(
                f"{path} holds no {split}/ but {some}; expected {split}/<class>/<name>.jpg"
            )

    def _check(self, info: zipfile.ZipInfo) -> None:
        label = f"{shown(info.filename)} in {self.where}"
        if info.flag_bits & 1:
            raise DataError(f"{label} is encrypted; decrypt the archive first")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{label} is compressed by a method other than deflate")
        if info.file_size > FILE:
            raise DataError(
                f"{label} would grow from {info.compress_size} to {info.file_size} bytes; expected "
                f"at most {FILE}"
            )

    def entries(self) -> Iterator[tuple[str, str | None]]:
        for name, info in self.members.items():
            if not name.startswith(self.root):
                continue
            parts = name.removeprefix(self.root).split("/")
            if _is_folder(info) and len(parts) == 1:
                yield parts[0], None
            elif _is_folder(info) or len(parts) != 2 or not parts[1].lower().endswith(SUFFIXES):
                raise _foreign("/".join(parts), self.where)
            else:
                self._check(info)
                yield parts[0], parts[1]

    def read(self, name: str, budget: Budget) -> bytes:
        # ZipFile reads no more than the size it was told, and checks the checksum.
        info = self.members[self.root + name]
        budget.spend(info.file_size)
        try:
            return self.zip.read(info)
        except (RuntimeError, NotImplementedError) as error:  # the member's own header disagrees
            raise zipfile.BadZipFile(reason(error)) from None


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith(("/", "\\"))


def _instead(path: Path) -> str:
    """What a file called a zip is in truth, where its first bytes tell."""
    try:
        with WholeFile(path) as file:
            what = looks(file.read(512))
    except OSError:
        return ""
    return "" if "zip archive" in what else f"; it {what}"


def _foreign(name: str, where: Path) -> DataError:
    return DataError(
        f"{shown(name)} in {where} is no image; expected <class>/<name>.jpg, .jpeg or .png alone"
    )
