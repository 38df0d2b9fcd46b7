"""Names of files: what systems leave beside data, second copies, places inside archives."""

import itertools
import os
import re
from collections.abc import Collection
from pathlib import Path

from jaxsens.data.dataset import DataError, reason, shown
from jaxsens.data.files.budget import Budget

LITTER = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "icon\r", "lost+found", "@eadir", "#recycle"),
}
COPY = re.compile(r"\s*\(\d+\)| - copy| copy( \d+)?(?=\.|$)")
DEPTH = 2  # folders below a path in which published files are looked for
DEEP_ENTRIES = 200  # of a folder there: more are images


def is_litter(name: str) -> bool:
    """Whether an operating system left a file of this name, hidden ones among them."""
    lower = name.lower()
    return lower.startswith((".", "~$")) or lower in LITTER or lower.endswith("zone.identifier")


def plain(name: str) -> str:
    """A name in small letters, without the mark of a second copy: ``x (1).gz`` is ``x.gz``."""
    return COPY.sub("", name.lower())


def member_parts(name: str) -> tuple[str, ...]:
    """The folders and the file that a member of an archive names, whoever wrote it.

    Some programs separate by backslashes, or begin with ``./``. Raises ValueError for a place
    outside the archive.
    """
    path = name.replace("\\", "/")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if path.startswith("/") or ".." in parts or re.match("[A-Za-z]:(/|$)", path):
        raise ValueError(f"names a place outside itself: {shown(name)}")
    return parts


def scan(path: str | Path, budget: Budget, limit: int | None = None) -> list[os.DirEntry[str]]:
    """What a folder holds, without litter, at most ``limit`` of it. Raises DataError."""
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in itertools.islice(entries, limit):
                budget.count()
                if not is_litter(entry.name):
                    found.append(entry)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    return sorted(found, key=lambda entry: entry.name)


def find(
    path: Path, wanted: Collection[str], budget: Budget, prefer: Collection[str] = ()
) -> dict[str, Path]:
    """The files called ``wanted`` (small letters) in ``path``, or in folders just below it.

    ``path`` may be one of them: then the others lie beside it. Where several folders hold files of
    one name, the nearest count, then those below a folder of a name in ``prefer``, in its order.
    {} where there are none. Raises DataError when it is still open which are meant.
    """
    if not os.path.isdir(path):
        if plain(path.name) not in wanted or not os.path.lexists(path):
            return {}
        return _in_folder(path.parent, scan(path.parent, budget), wanted, exact=path.name)
    level = [path]
    for depth in range(1 + DEPTH):
        found: dict[Path, dict[str, Path]] = {}
        below = []
        for folder in level:
            try:
                entries = scan(folder, budget, DEEP_ENTRIES if depth else None)
            except DataError:
                if depth == 0:
                    raise
                continue  # a folder beside the data that may not be read
            if files := _in_folder(folder, entries, wanted):
                found[folder] = files
            below += [Path(entry.path) for entry in entries if os.path.isdir(entry.path)]
        names = [name for files in found.values() for name in files]
        for preferred in prefer if len(names) > len(set(names)) else ():
            inside = {
                folder: files
                for folder, files in found.items()
                if preferred in (part.lower() for part in folder.relative_to(path).parts)
            }
            if inside:
                found, names = inside, [name for files in inside.values() for name in files]
                break
        if len(names) > len(set(names)):
            folders = ", ".join(sorted(str(folder.relative_to(path)) for folder in found))[:100]
            raise DataError(f"{path} holds {names[0]} in several folders; name one: {folders}")
        if found:
            return {name: file for files in found.values() for name, file in files.items()}
        level = below[:1000]
    return {}


def _in_folder(
    folder: Path, entries: list[os.DirEntry[str]], wanted: Collection[str], exact: str = ""
) -> dict[str, Path]:
    copies: dict[str, list[str]] = {}
    for entry in entries:
        if plain(entry.name) in wanted and not os.path.isdir(entry.path):
            copies.setdefault(plain(entry.name), []).append(entry.name)
    found = {}
    for name, files in copies.items():
        best = [f for f in files if f == exact] or [f for f in files if f.lower() == name] or files
        if len(best) > 1:
            raise DataError(f"{folder} holds copies of one file; keep one: {', '.join(best)[:100]}")
        found[name] = folder / best[0]
    return found


def holding(path: Path) -> str:
    """The first names that lie in a folder, for a message; what a file is called otherwise."""
    if not os.path.isdir(path):
        return ""
    names = [shown(entry.name) for entry in scan(path, Budget(), 1000)]
    if not names:
        return " (it is empty)"
    more = ", ..." if len(names) > 4 else ""
    return f" (it holds {', '.join(names[:4])}{more})"


def dangling(path: str | Path) -> str:
    """That a path is a link to nothing, to follow its name; "" where it is not."""
    if os.path.islink(path) and not os.path.exists(path):
        return f"is a link to {shown(os.readlink(path))}, which is not there"
    return ""
