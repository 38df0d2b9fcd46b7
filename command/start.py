"""The first moments of `python -m ...`, while the command still imports: stops and missing things.

A package whose modules are commands calls `guard()` before it imports anything else. All here is
the standard library.
"""

import os
import sys
import sysconfig
import traceback
from types import TracebackType

from command import stops

_THIRD_PARTY = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib")})


def guard() -> None:
    """When this package was named to `python -m`: a stop, or a package that fails, is one line."""
    if sys.argv[:1] == ["-m"]:  # only while Python looks for the module it is to run
        stops.end_at_once()
        sys.excepthook = _hook


def is_process() -> bool:
    """Whether the process is there for the command alone."""
    return sys.excepthook in (_hook, _late)


def over() -> None:
    """The command has started: from here on, an exception that escapes is a bug."""
    if sys.excepthook is _hook:
        sys.excepthook = _late


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    stops.at_the_last(error)
    message = why_not(error)
    if message is None:
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(f"error: {message}\n")
    sys.stderr.flush()
    os._exit(2)


def _late(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    stops.at_the_last(error)
    sys.__excepthook__(kind, error, trace)


def why_not(error: BaseException) -> str | None:
    """Why the command cannot start, on one line; None where the fault is in the code here."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        return missing(error)
    if isinstance(error, OSError):
        return of_the_system(error)
    frames = traceback.extract_tb(error.__traceback__)
    if frames and frames[-1].filename.startswith(_THIRD_PARTY) and isinstance(error, Exception):
        package = os.path.relpath(frames[-1].filename, _THIRD_PARTY[0]).split(os.sep)[0]
        return f"{package} cannot be imported: {said}"
    return None


def missing(error: ModuleNotFoundError) -> str | None:
    """What to install; None for a module of our own."""
    package = (error.name or "").split(".")[0]
    if package in ("", "command", "experiments", "jaxsens", "theory"):
        return None
    return (
        f"the Python package {package} is not installed; run, in the clone: pip install -e . "
        "--group experiments --group theory"
    )


def of_the_system(error: OSError) -> str:
    """What the system said, without its number."""
    if error.strerror is None:
        return str(error)
    where = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{error.strerror}: {where}" if where else error.strerror
