"""Progress with rate and time left: tqdm's bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from typing import Any, TextIO


class Progress:
    """Counts work done out of a total; a failing terminal never stops the run.

    On a terminal ``update(done, note)`` moves a bar of tqdm's. Elsewhere it prints ``label 12/100
    epochs  3.1/s  28 s left  note`` at most every ``interval`` seconds, and at the end.
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
        self.started = time.monotonic()
        self.first: int | None = None  # what was already done when a resumed run began
        self.shown = -float("inf")
        self._bar: Any = None

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` units are complete."""
        now = time.monotonic()
        if self.first is None:
            self.first = done
        if self.terminal:
            self._move(done, note)
        elif done >= self.total or now - self.shown >= self.interval:
            self.shown = now
            if self.file is not None:
                with contextlib.suppress(OSError, ValueError):  # a closed stream is no reason
                    print(self.line(done, now - self.started, note), file=self.file, flush=True)

    def close(self) -> None:
        """End a bar that is still moving, so that what follows starts on a line of its own."""
        bar, self._bar = self._bar, None
        with contextlib.suppress(Exception):
            if bar is not None:
                bar.close()

    def _move(self, done: int, note: str) -> None:
        with contextlib.suppress(Exception):  # whatever a terminal, or tqdm, may have against it
            if self._bar is None:
                from tqdm import tqdm

                tqdm.monitor_interval = 0  # or a thread would watch over bars that move slowly
                self._bar = tqdm(
                    desc=self.label, total=self.total, initial=done, unit=f" {self.unit}",
                    file=self.file, dynamic_ncols=True, mininterval=0,
                )  # fmt: skip
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.n = done
            self._bar.refresh()
            if done >= self.total:
                self.close()

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
