"""Files that are written whole or not at all."""

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, content: bytes, *, make_folder: bool = True) -> None:
    """Write a file whole or not at all: write beside it, fsync, rename.

    ``make_folder=False`` raises FileNotFoundError where its folder is not there (any more).
    """
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        # By the name that the user knows.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # what went wrong before is what there is to tell
            partial.unlink(missing_ok=True)
