"""One process at a time writes a record."""

import contextlib
import errno
import fcntl
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

from command.line import UserError


class Lock:
    """A hold on a file, which the system ends with the process, however that ends.

    Within one process everybody who asks shares it.
    """

    def __init__(self, descriptor: int, identity: tuple[int, int]) -> None:
        self.identity = identity
        self._close = weakref.finalize(self, os.close, descriptor)


_held: weakref.WeakValueDictionary[tuple[int, int], Lock] = weakref.WeakValueDictionary()


def hold(path: Path, *, name: Path) -> Lock:
    """The lock of an existing file; UserError, about ``name``, while another process has it.

    A file system without locks (some are mounted so) gives a lock that keeps nobody out.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"{name} cannot be written: {error.strerror}") from None
    found = os.fstat(descriptor)
    identity = found.st_dev, found.st_ino
    if (held := _held.get(identity)) is not None:
        os.close(descriptor)
        return held
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(descriptor)
            raise UserError(
                f"{name} is being written by another process; wait until it ends, or stop it"
            ) from None
    lock = _held[identity] = Lock(descriptor, identity)
    return lock


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Others who want the same wait; a moment's work, such as to make a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # network file systems may not lock a folder
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
