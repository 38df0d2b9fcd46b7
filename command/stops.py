"""Ctrl-C, SIGTERM and SIGHUP at any moment of a command: one line, and exit 128 + the number.

Where they are ignored from the start (nohup, a job in the background), they stay ignored.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
AGAIN = 2.0  # seconds after which a stop that some library swallowed is raised once more


class _Asked:
    """What the process was asked, and whether it may be cut short now."""

    signum: int | None = None
    since = 0.0
    deferred = 0
    closing = True  # nothing is raised, before `raised` and after it


def asked() -> int | None:
    """The number of the signal that asked this process to stop, if one did."""
    return _Asked.signum


def end_at_once() -> None:
    """Until `raised` takes over (while a command imports), a stop ends the process where it is.

    An exception would not do: raised in the middle of an import it is a traceback at best, and is
    swallowed or made an ImportError at worst. Nothing has been written by then.
    """
    for signum in _heeded():
        signal.signal(signum, _leave)


def _heeded() -> list[int]:
    """The signals that are not ignored by the wish of whoever started the process."""
    return [signum for signum in WORDS if signal.getsignal(signum) not in (signal.SIG_IGN, None)]


def _leave(signum: int, frame: Any = None) -> NoReturn:
    if _Asked.signum is None:
        with contextlib.suppress(OSError):
            os.write(2, f"{WORDS[signal.Signals(signum)]}\n".encode())
    os._exit(128 + signum)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """A stop raises KeyboardInterrupt within, and again until `caught` says that it arrived.

    Python drops an exception that is raised while a destructor or a callback of JAX runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {signum: signal.signal(signum, _ask) for signum in _heeded()}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _ask_again)
    _Asked.signum, _Asked.deferred, _Asked.closing = None, 0, False
    try:
        yield
    finally:
        caught()
        for signum, handler in before.items():
            signal.signal(signum, handler)


def caught() -> None:
    """From here on nothing is raised any more; a further stop ends the process at once."""
    _Asked.closing = True
    if threading.current_thread() is threading.main_thread():
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """A stop waits for the end of the block, unless it is asked for again a second later."""
    _Asked.deferred += 1
    try:
        yield
    finally:
        _Asked.deferred -= 1
    if _Asked.signum is not None and not (_Asked.deferred or _Asked.closing):
        _raise()


def _ask(signum: int, frame: Any) -> None:
    now = time.monotonic()
    if _Asked.closing or (_Asked.signum and _Asked.deferred and now - _Asked.since > 1):
        os._exit(128 + signum)  # files are written whole or not at all: none is harmed
    if _Asked.signum is None:
        _Asked.signum, _Asked.since = signum, now
    if not _Asked.deferred:
        _raise()


def _ask_again(signum: int, frame: Any) -> None:
    if _Asked.signum is not None and not (_Asked.deferred or _Asked.closing):
        _raise()


def _raise() -> NoReturn:
    signal.setitimer(signal.ITIMER_REAL, AGAIN)
    raise KeyboardInterrupt


def word(signum: int | None) -> str:
    """How the line for a stop begins."""
    return WORDS.get(signal.Signals(signum or signal.SIGINT), "interrupted")


def at_the_last(error: BaseException) -> None:
    """For `sys.excepthook`: a KeyboardInterrupt that came too late for anyone to catch."""
    if isinstance(error, KeyboardInterrupt):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
        _leave(_Asked.signum or signal.SIGINT)
