"""Tar archives, gzipped or not: their plain files, one after another, and nothing else."""

import re
import tarfile
from collections.abc import Callable, Iterator

from jaxsens.data.dataset import shown
from jaxsens.data.files.budget import FILE
from jaxsens.data.files.names import member_parts
from jaxsens.data.files.opened import Stream

BLOCK = 512
MAX_NOTE = 2**16  # bytes that may be said of one member beside its header
NOTES = {
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
}
PATH = re.compile(rb"(?:^|\n)\d+ path=([^\n]*)\n")


def members(
    stream: Stream, largest: int = FILE
) -> Iterator[tuple[tuple[str, ...], Callable[[], bytes]]]:
    """The parts of each file's name, and a function that reads it, to be called at once or never.

    ``largest`` is how many bytes one of them may have.

    Headers are decoded by the standard library, whose own reader makes room for anything that they
    claim. Raises ValueError, EOFError, OSError or tarfile.HeaderError for an archive that is
    damaged, holds links, devices or sparse files, or names places outside itself.
    """
    longer = None
    while (header := stream.read(BLOCK)).strip(b"\0"):
        stream.count()
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        padding = -info.size % BLOCK
        if info.type in NOTES:
            if not 0 <= info.size <= MAX_NOTE:
                raise ValueError(f"it says {info.size} bytes of one member, more than {MAX_NOTE}")
            note = stream.exactly(info.size + padding)[: info.size]
            if b"GNU.sparse" in note or re.search(rb"\d+ size=", note):
                raise ValueError("it holds a sparse file; expected plain ones")
            if info.type == tarfile.GNUTYPE_LONGNAME:
                longer = note.rstrip(b"\0")
            elif info.type == tarfile.XHDTYPE and (path := PATH.search(note)):
                longer = path[1]
            continue
        name = info.name if longer is None else longer.decode("utf-8", "surrogateescape")
        longer = None
        parts = member_parts(name)
        if info.type == tarfile.DIRTYPE:
            continue
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
            raise ValueError(f"{shown(name)} is a link, a device or sparse; expected files only")
        if not 0 <= info.size <= largest:
            raise ValueError(f"{shown(name)} is larger than {largest} bytes")
        unread = [info.size]

        def read(unread: list[int] = unread) -> bytes:
            return stream.exactly(unread.pop())

        yield parts, read
        stream.skip(sum(unread) + padding)
    stream.skip()
