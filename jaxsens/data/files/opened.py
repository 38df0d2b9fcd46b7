"""Files from outside, opened only where they are files, and called what their first bytes say."""

import io
import os
import re
import stat
import zlib
from pathlib import Path
from typing import Any, Self

from jaxsens.data.files.budget import MEMBERS, Budget

AGAIN = ", not the file: fetch it again"
# What a file turns out to be, by how it starts.
LOOKS = tuple(
    (re.compile(start, re.IGNORECASE | re.DOTALL), name)
    for start, name in (
        (rb"version https://git-lfs", "a git-lfs pointer, not the file itself: run git lfs pull"),
        (rb"\s*(<!--.*?-->\s*)?<(!doctype html|html|head)", f"a web page{AGAIN}"),
        (rb"(\xef\xbb\xbf)?\s*<\?xml|\s*<error", f"a message of a server in XML{AGAIN}"),
        (rb"\x1f\x8b", "compressed by gzip"),
        (rb"BZh", "compressed by bzip2"),
        (rb"\xfd7zXZ\0", "compressed by xz"),
        (rb"\(\xb5/\xfd", "compressed by zstandard"),
        (rb"PK[\x01-\x08]", "a zip archive"),
        (rb"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (rb"Rar!", "a RAR archive"),
        (rb".{257}ustar", "a tar archive"),
        (rb"MATLAB 7\.3", "a MATLAB 7.3 file; save it again with save -v7"),
        (rb"MATLAB 5\.0", "a MATLAB 5 file"),
        (rb"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (rb"\x93NUMPY", "a NumPy array (.npy)"),
        (rb"\0\0[\x08-\x0e][\x01-\x08]", "an IDX file"),
        (rb"\x80[\x02-\x05]", "a pickle"),
        (rb"PAR1", "a parquet file"),
        (rb"\x89PNG", "a PNG"),
        (rb"\xff\xd8\xff", "a JPEG"),
        (rb"GIF8", "a GIF"),
        (rb"RIFF....WEBP", "a WebP"),
        (rb"II\*\0|MM\0\*", "a TIFF"),
        (rb"BM....\0\0\0\0", "a BMP"),
        (rb"....ftyp(avif|heic|mif1)", "an AVIF or HEIC image"),
        (rb"%PDF", "a PDF"),
        (rb"\0+$", "nothing but zeros: its copy never ended"),
        (rb"[\t\r\n -~]+$", "plain text"),
    )
)  # fmt: skip
START = 512  # bytes that tell


def looks(start: bytes) -> str:
    """What a file is that starts so: to follow "it"."""
    if not start:
        return "is empty"
    for pattern, name in LOOKS:
        if pattern.match(start[:START]):
            return f"is {name}"
    return f"starts with {start[:4].hex()}"


class WholeFile(io.BufferedReader):
    """A file on disk; a read is cut to what is left of it before room is made.

    Raises OSError where ``path`` is no file: pipes and devices would be waited for without end.
    """

    def __init__(self, path: Path, budget: Budget | None = None):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            if os.path.islink(path):
                target = os.readlink(path)
                raise FileNotFoundError(f"it is a link to {target}, which is not there") from None
            raise FileNotFoundError("there is no such file") from None
        except ValueError as error:  # a name that no file can have
            raise FileNotFoundError(str(error)) from None
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no file but a folder, a pipe or a device")
        super().__init__(io.FileIO(path))
        self._size, self._budget = status.st_size, budget

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self._size - self.tell(), 0)
        content = super().read(left if size is None or size < 0 else min(size, left))
        if self._budget is not None:  # of every member of a zip an object of 600 bytes is made
            self._budget.count(content.count(b"PK\1\2"))
        return content


def whole(path: Path, budget: Budget, *, stays: bool = True) -> bytes:
    """All of a file, charged before it is read: what goes on the way is work alone.

    Raises OSError or OverBudget.
    """
    with WholeFile(path) as file:
        size = os.fstat(file.fileno()).st_size
        budget.spend(budget.keep(size))
        if not stays:
            budget.size += size
        return file.read()


class _Gunzip:
    """The inflated bytes of a gzip file; its checksums are compared."""

    def __init__(self, file: WholeFile):
        self._file, self._rest, self._members = file, b"", 0
        self._inflate: Any = None  # of the member that is being read

    def read(self, size: int) -> bytes:
        pieces = []
        while size > 0 and (piece := self._piece(size)) is not None:
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _piece(self, size: int) -> bytes | None:
        """At most ``size`` bytes, perhaps none; None at the end."""
        rest = self._rest or self._file.read(2**16)
        if self._inflate is None:
            rest = rest.lstrip(b"\0") if self._members else rest  # tapes are filled up
            if not rest:
                return None
            self._members += 1
            if self._members > MEMBERS:
                raise OSError(f"it has more than {MEMBERS} compressed parts")
            if self._members > 1 and not b"\x1f\x8b".startswith(rest[:2]):
                raise OSError("something else follows what is compressed")
            self._inflate = zlib.decompressobj(wbits=31)
        elif not rest and not self._inflate.unconsumed_tail:
            raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        piece = self._inflate.decompress(rest, size)
        self._rest = self._inflate.unconsumed_tail
        if self._inflate.eof:
            self._rest, self._inflate = self._inflate.unused_data, None
        return bytes(piece)


class Stream:
    """The bytes of a file, inflated where it is gzipped; each is charged as work.

    A context manager. Raises OSError, EOFError, zlib.error or OverBudget.
    """

    def __init__(self, path: Path, budget: Budget):
        self._raw = WholeFile(path)
        self.start = self._raw.read(START)
        self._raw.seek(0)
        self.gzipped = self.start.startswith(b"\x1f\x8b")
        self._file: WholeFile | _Gunzip = _Gunzip(self._raw) if self.gzipped else self._raw
        self._budget, self._members = budget, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._budget.spend(len(content))
        return content

    def count(self) -> None:
        """Charge one member. Raises OverBudget or ValueError."""
        self._budget.count()
        self._members += 1
        if self._members > MEMBERS:
            raise ValueError(f"it has more than {MEMBERS} members")

    def exactly(self, size: int) -> bytes:
        """``size`` bytes, charged as kept. Raises EOFError where there are fewer."""
        content = self.read(self._budget.keep(size))
        if len(content) < size:
            raise EOFError("it is cut short")
        return content

    def skip(self, size: int | None = None) -> None:
        """Read on by ``size`` bytes, or to the end, where gzip keeps its checksum."""
        while size is None or size > 0:
            content = self.read(2**20 if size is None else min(size, 2**20))
            if not content and size is None:
                return
            if not content:
                raise EOFError("it is cut short")
            size = None if size is None else size - len(content)
