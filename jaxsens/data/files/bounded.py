"""Files that take no more memory than they have bytes to give, whatever a reader asks them for.

Formats say how long their parts are, readers make room for that, and a file can say anything.
"""

import gzip
import io
import os
from pathlib import Path

from jaxsens.data.dataset import MAX_BYTES


class WholeFile(io.BufferedReader):
    """A file on disk; a read is cut to what is left of it before room is made."""

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self._size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


class Stream(io.RawIOBase):
    """Decompressed bytes; ends in an OSError where a decompression bomb would go on."""

    def __init__(self, file: gzip.GzipFile):
        self._file, self._left = file, MAX_BYTES

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise OSError(f"it grows to more than {MAX_BYTES} bytes")
        return content
