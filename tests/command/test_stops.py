"""A stop at any moment of a command is one line and 128 + the signal's number."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import line, stops

ROOT = Path(line.__file__).parents[1]
CHILD = """
import os, signal, sys, time
from command import line, stops
def main(_):
    {body}
line.parse = lambda *_, **__: None
line.run(main, None, prog="task")
"""


def child(body, *, before="", **settings):
    return subprocess.run(
        [sys.executable, "-c", before + CHILD.format(body=body)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, **settings,
    )  # fmt: skip


STOPS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}


@pytest.mark.parametrize("name", STOPS)
def test_a_stop_is_one_line_and_its_number(name):
    done = child(f"signal.raise_signal(signal.{name})")
    assert (done.returncode, done.stderr) == (128 + signal.Signals[name], f"{STOPS[name]}\n")


@pytest.mark.parametrize("name", STOPS)
def test_who_catches_a_stop_may_say_what_was_saved(name):
    done = child(
        f"""
    try: signal.raise_signal(signal.{name})
    except KeyboardInterrupt: raise KeyboardInterrupt("interrupted; saved") from None"""
    )
    assert (done.returncode, done.stderr) == (128 + signal.Signals[name], f"{STOPS[name]}; saved\n")


SWALLOWED = {
    "by a handler that is too broad": """
    try: signal.raise_signal(signal.SIGINT)
    except BaseException: pass
    time.sleep(60)""",
    "by a destructor": """
    class Cache:
        def __del__(self): signal.raise_signal(signal.SIGINT)
    sys.unraisablehook = lambda details: None
    Cache()
    time.sleep(60)""",
    "and the command ends well": """
    try: signal.raise_signal(signal.SIGINT)
    except BaseException: pass""",
    "and made another error": """
    try: signal.raise_signal(signal.SIGINT)
    except BaseException as error: raise RuntimeError("INTERNAL: callback") from error""",
}


@pytest.mark.parametrize("body", SWALLOWED.values(), ids=SWALLOWED)
def test_a_stop_that_a_library_swallows_arrives_all_the_same(body):
    begun = time.monotonic()
    done = child(f"stops.AGAIN = 0.1{body}")
    assert done.returncode == 130
    assert done.stderr.startswith("interrupted")
    assert len(done.stderr.splitlines()) == 1
    assert time.monotonic() - begun < 20


def test_a_callback_of_jax_does_not_keep_a_stop():
    done = child(
        """
    import jax, numpy
    def callback(x):
        signal.raise_signal(signal.SIGINT)
        return x
    f = lambda x: jax.pure_callback(callback, jax.ShapeDtypeStruct((), "float32"), x)
    jax.jit(f)(numpy.float32(0)).block_until_ready()""",
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1].startswith("interrupted")
    assert 'Traceback (most recent call last):\n  File "<string>"' not in done.stderr


def test_a_stop_waits_for_what_must_not_be_cut_short():
    done = child(
        """
    with stops.deferred():
        signal.raise_signal(signal.SIGTERM)
        print("written", flush=True)
    print("never")"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "written\n", "terminated\n")


def test_a_second_stop_a_second_later_does_not_wait():
    done = child(
        """
    with stops.deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # a terminal and `timeout` may both send one
        stops._Asked.since -= 2
        print("still here", flush=True)
        signal.raise_signal(signal.SIGINT)
        print("never")"""
    )
    assert (done.returncode, done.stdout) == (130, "still here\n")


def test_what_was_ignored_from_the_start_stays_ignored():
    done = child(
        "signal.raise_signal(signal.SIGHUP); print('went on')",
        before="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n",
    )
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_a_stop_is_over_with_what_it_stopped():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), stops.raised(), stops.deferred():
            signal.raise_signal(signal.SIGINT)
        with stops.deferred():  # of something later in the same process
            pass
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    finally:
        signal.signal(signal.SIGINT, before)


def test_handlers_are_given_back():
    before = [signal.getsignal(s) for s in (*stops.WORDS, signal.SIGALRM)]
    with stops.raised():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(s) for s in (*stops.WORDS, signal.SIGALRM)] == before


SENDER = """
import signal, sys
class Sender:
    def find_spec(self, wanted, path=None, target=None):
        if wanted == "{imported}":
            signal.raise_signal(signal.{name})
sys.meta_path.insert(0, Sender())
"""


@pytest.mark.parametrize("module", ["experiments.mnist", "theory", "experiments.benchmark"])
@pytest.mark.parametrize(("imported", "name"), [("numpy", "SIGINT"), ("jax._src", "SIGTERM")])
def test_a_stop_while_the_command_imports(tmp_path, module, imported, name):
    """The signal is sent from within the import of a package, the moment it begins."""
    (tmp_path / "sitecustomize.py").write_text(SENDER.format(imported=imported, name=name))
    done = subprocess.run(
        [sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (128 + signal.Signals[name], f"{STOPS[name]}\n")
