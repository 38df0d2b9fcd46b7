"""Progress on a terminal, away from one, and on streams that fail."""

import io
import sys
import threading

import pytest

from experiments.run import progress as module
from experiments.run.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def work(progress, clock, notes=("", "", "")):
    progress.update(0)
    for done, note in enumerate(notes, 1):
        clock.now += 2
        progress.update(done, note)


def test_plain_lines_come_at_intervals_and_at_the_end(clock):
    file = io.StringIO()
    work(Progress("vit", 5, "epochs", interval=3, file=file), clock, ["", "loss 1", "", "", "last"])
    assert file.getvalue().splitlines() == [
        "vit 0/5 epochs",
        "vit 2/5 epochs  2.0 s each  6 s left  loss 1",
        "vit 4/5 epochs  2.0 s each  2 s left",
        "vit 5/5 epochs  2.0 s each  done  last",
    ]


def test_a_bar_moves_on_a_terminal_and_ends_once(clock):
    file = Terminal()
    progress = Progress("vit", 3, "epochs", file=file)
    assert file.getvalue() == ""
    work(progress, clock, ["a note", "", "x"])
    progress.close()
    text = file.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    bars = text.split("\r")
    assert any(bar.startswith("vit:  33%") and "1/3" in bar and "a note" in bar for bar in bars)
    assert bars[-1].startswith("vit: 100%")


def test_a_bar_that_is_cut_short_is_ended_once(clock):
    file = Terminal()
    progress = Progress("vit", 3, "epochs", file=file)
    progress.close()
    assert file.getvalue() == ""
    progress.update(1)
    progress.close()
    progress.close()
    assert file.getvalue().count("\n") == 1


def test_no_thread_watches_over_a_bar(clock):
    before = threading.active_count()
    progress = Progress("vit", 3, "epochs", file=Terminal())
    progress.update(1)
    assert threading.active_count() == before
    progress.close()


def test_a_resumed_run_counts_its_own_work(clock):
    file = io.StringIO()
    progress = Progress("vit", 100, "epochs", interval=0, file=file)
    progress.update(90)
    clock.now += 10
    progress.update(95)
    assert file.getvalue().splitlines()[-1] == "vit 95/100 epochs  2.0 s each  10 s left"


@pytest.mark.parametrize(
    ("rate", "text"),
    [(1 / 4000, "90 h 0 min left"), (1 / 20, "27 min 0 s left"), (8.25, "8.2/s  10 s left")],
)
def test_rates_and_durations(rate, text):
    progress = Progress("x", 82, "steps", file=io.StringIO())
    done = 1
    assert text in progress.line(done, done / rate, "")


class Broken(io.StringIO):
    def __init__(self, error, terminal):
        super().__init__()
        self.error, self.terminal = error, terminal

    def isatty(self):
        if self.terminal is None:
            raise self.error
        return self.terminal

    def write(self, text):
        raise self.error


@pytest.mark.parametrize("terminal", [True, False, None])
@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(),
        OSError(5, "terminal is gone"),
        OSError(28, "full"),
        UnicodeEncodeError("ascii", "±", 0, 1, "no"),
    ],
)
def test_a_broken_stream_never_stops_the_run(clock, error, terminal):
    progress = Progress("vit", 3, "epochs", interval=0, file=Broken(error, terminal))
    work(progress, clock)
    progress.close()


def test_a_closed_or_missing_stream_never_stops_the_run(clock, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", None)
    for progress in (Progress("v", 3, "e", file=closed), Progress("v", 3, "e")):
        work(progress, clock)
        progress.close()
