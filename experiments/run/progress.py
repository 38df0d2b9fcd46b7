"""Progress with rate and time left: a line that moves on a terminal, plain lines elsewhere."""

import contextlib
import shutil
import sys
import time
from typing import TextIO


class Progress:
    """Counts work done out of a total; a failing terminal never stops the run.

    ``update(done, note)`` shows ``label 12/100 epochs  3.1/s  28 s left  note``. Away from a
    terminal a line is printed at most every ``interval`` seconds, and at the end.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        *,
        interval: float = 10.0,
        file: TextIO | None = None,
    ) -> None:
        self.label, self.total, self.unit, self.interval = label, total, unit, interval
        self.file = sys.stderr if file is None else file
        self.terminal = False
        with contextlib.suppress(AttributeError, OSError, ValueError):  # no stream, or a closed one
            self.terminal = self.file.isatty()
        self.open_line = False
        self.started = time.monotonic()
        self.first: int | None = None  # what was already done when a resumed run began
        self.shown = -float("inf")

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` units are complete."""
        now = time.monotonic()
        if self.first is None:
            self.first = done
        last = done >= self.total
        if not (self.terminal or last or now - self.shown >= self.interval):
            return
        self.shown = now
        text = self.line(done, now - self.started, note)
        if self.terminal:  # a wrapped line could not be taken back
            text = "\r\x1b[K" + text[: shutil.get_terminal_size().columns - 1]
        self._print(text, end="\n" if last or not self.terminal else "")

    def close(self) -> None:
        """End a line that is still moving, so that what follows starts on its own."""
        if self.open_line:
            self._print("", end="\n")

    def _print(self, text: str, *, end: str) -> None:
        self.open_line = not end
        if self.file is not None:
            with contextlib.suppress(OSError, ValueError):  # a closed stream is no reason to stop
                print(text, end=end, file=self.file, flush=True)

    def line(self, done: int, seconds: float, note: str) -> str:
        """The text for ``done`` units after ``seconds`` of work."""
        text = f"{self.label} {done}/{self.total} {self.unit}"
        worked = done - (self.first or 0)
        if worked > 0 and seconds > 0:
            rate = worked / seconds
            speed = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
            left = (self.total - done) / rate
            text += f"  {speed}  " + (f"{_duration(left)} left" if left > 0 else "done")
        return f"{text}  {note}".rstrip()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
