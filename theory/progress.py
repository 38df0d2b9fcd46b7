"""What long commands say on standard error: what it will take, and how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable

from command.streams import say

PATIENCE = 5.0  # seconds that need no explanation
Tell = Callable[[str, float, str], None]  # what is being done, the share done, of which task


def silent(text: str, done: float, task: str) -> None:
    """Say nothing."""


class Progress:
    """Called with what is being done and the share of it that is done.

    After a second of work the time that the rest takes is known (the first piece, which may have
    to compile something, left out): where that is more than a few seconds it is said, and from
    then on every few seconds.
    """

    def __init__(self) -> None:
        self._begun = self._said = time.monotonic()
        self._task, self._announced = "", False
        self._from: tuple[float, float] | None = None  # when a first share was done, and which

    def __call__(self, text: str, done: float, task: str) -> None:
        """`text` says what is being done of the `task`."""
        now = time.monotonic()
        if task != self._task:
            self._task, self._from, self._announced = task, None, False
        if self._from is None and done:
            self._from = now, done
        left = 0.0
        if self._from is not None and done > self._from[1]:
            since, share = self._from
            left = (now - since) * (1 - done) / (done - share)
            if not self._announced and now - since > 1 and left > PATIENCE:
                self._announced = True
                self._print(f"{task}: about {_duration(left)}", now)
                return
        if now - self._begun > PATIENCE and now - self._said > PATIENCE:
            rest = f", {_duration(left)} left" if left else ""
            self._print(f"{text} ({now - self._begun:.0f} s{rest})", now)

    def _print(self, line: str, now: float) -> None:
        self._said = now
        say(line)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
