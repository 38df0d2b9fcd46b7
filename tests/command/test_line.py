"""What comes from the surroundings is one line and exit 2; what is a bug keeps its traceback."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command import line, start, streams
from command.line import UserError, explain

ROOT = Path(line.__file__).parents[1]


def os_error(*args):
    return OSError(*args)


def caused(error, cause):
    error.__cause__ = cause
    return error


EXPLAINED = [
    (os_error(28, "No space left on device", "/x/y"), "No space left on device: /x/y"),
    (os_error(13, "Permission denied", "a", None, "b"), "Permission denied: a -> b"),
    (os_error(30, "Read-only file system"), "Read-only file system"),
    (os_error("what a library says"), "what a library says"),
    (MemoryError("Unable to allocate 3 EiB"), "out of memory: Unable to allocate 3 EiB; make the"),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating"), "out of memory on the device:"),
    (ModuleNotFoundError("No module named 'x'", name="x.y"), "the Python package x is not insta"),
    (FloatingPointError("the loss is not finite"), "the loss is not finite"),
    (ExceptionGroup("2 errors", [ValueError("a"), os_error(28, "No space left")]), "No space left"),
    (caused(ValueError("tensor"), os_error(28, "No space left", "/x")), "No space left: /x"),
    (caused(RuntimeError("thread"), UserError("wrong option")), "wrong option"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "said"), EXPLAINED)
def test_errors_of_the_surroundings_are_explained(error, said):
    found = explain(error)
    assert found is not None
    assert found.startswith(said)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bug"),
        KeyError("bug"),
        RuntimeError("INTERNAL: bug"),
        ModuleNotFoundError("No module named 'jaxsens.nothing'", name="jaxsens.nothing"),
    ],
)
def test_bugs_are_not(error):
    error.__context__ = OSError(2, "No such file")  # nor is one that happens while that is handled
    assert explain(error) is None


@dataclasses.dataclass(frozen=True)
class Options:
    """Paths in every form."""

    out: Path = Path("~/runs")
    data: str = "~/digits"
    more: tuple[str, ...] = ("~/a", "b~", "/~")
    nothing: Path | None = None
    count: int = 3


def test_home_is_expanded_in_every_option(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = line.parse(Options, prog="task", args=["--out", "~/x"])
    assert found == Options(Path("/home/me/x"), "/home/me/digits", ("/home/me/a", "b~", "/~"))


def test_a_home_that_nobody_has_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        line.parse(Options, prog="task", args=["--out=~nobody-of-this-name/x"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: the home directory in ~nobody-of-this-name/x")


@pytest.mark.parametrize(
    ("text", "ascii"),
    [
        ("0.1 ± 0.2", "0.1 +/- 0.2"),
        ("σ² ≤ Δ", "sigma2 <= delta"),
        ("é – ﬁ", "e - fi"),
        ("┌─┐", "+-+"),
        ("漢", "\\u6f22"),
        ("a\udcffb", b"a\xffb".decode("latin-1")),
    ],
)
def test_an_ascii_terminal_is_told_the_same(text, ascii, monkeypatch):
    streams.take_any_text()
    assert text.encode("ascii", "spelled").decode("latin-1") == ascii


CHILD = """
import os, sys
from command import line
line.parse = lambda *_, **__: None
def main(_):
    {body}
line.run(main, None, prog="task")
"""


def child(body, shell="{}", **env):
    script = f"{sys.executable} -c {shlex_quote(CHILD.format(body=body))}"
    return subprocess.run(
        ["bash", "-c", shell.format(script)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, **env}, timeout=60,
    )  # fmt: skip


def shlex_quote(text):
    import shlex

    return shlex.quote(text)


@pytest.mark.parametrize(
    "env",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_no_character_ends_a_command(env):
    done = child(r"print('\u03c3 \xb1 1'); raise line.UserError('no \xb1 there')", **env)
    assert (done.returncode, done.stdout) == (2, "sigma +/- 1\n")
    assert done.stderr == "error: no +/- there\n"


PIPES = {
    "nobody reads": (
        "for i in range(100000): print(i)",
        "{} | head -1; exit ${{PIPESTATUS[0]}}",
        141,
        "",
    ),
    "nobody reads the end": ("print(1)", "{} | true; exit ${{PIPESTATUS[0]}}", (0, 141), ""),
    "nobody reads the errors": (
        "print('x' * 10**6, file=sys.stderr) if 0 else None",
        "{} 2>&1 | true; exit ${{PIPESTATUS[0]}}",
        0,
        "",
    ),
    "no output": ("print(1)", "{} >&-", 0, ""),
    "no errors": ("raise line.UserError('x')", "{} 2>&-", 2, ""),
    "a full disk": ("print(1)", "{} >/dev/full", 2, "error: No space left on device\n"),
    "errors to a full disk": ("raise line.UserError('x')", "{} 2>/dev/full", 2, ""),
}


@pytest.mark.parametrize(("body", "shell", "code", "said"), PIPES.values(), ids=PIPES)
def test_streams_that_end_are_quiet(body, shell, code, said):
    done = child(body, shell)
    assert done.returncode in (code if isinstance(code, tuple) else (code,))
    assert done.stderr == said


def test_a_bug_keeps_its_traceback():
    done = child("raise KeyError('bug')")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "KeyError: 'bug'" in done.stderr


@pytest.mark.parametrize(
    ("module", "env"),
    [
        ("experiments.mnist", {"JAX_PLATFORMS": "cuda"}),
        ("experiments.mnist", {"JAX_ENABLE_X64": "perhaps"}),
        ("theory check --d 4", {"JAX_PLATFORMS": "nonsense"}),
    ],
)
def test_a_platform_that_is_not_there_is_one_line(module, env, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", *module.split()], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, **env, "PYTHONPATH": str(ROOT)}, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = done.stderr.splitlines()
    assert said.startswith("error: ")
    assert next(iter(env.values())) in said
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_or_broken_is_one_line(tmp_path):
    for content, said in {
        "raise ModuleNotFoundError('no', name='tyro')": "the Python package tyro is not installed",
        "raise OSError(28, 'No space left on device')": "No space left on device",
    }.items():
        (tmp_path / "tyro.py").write_text(content)
        done = subprocess.run(
            [sys.executable, "-m", "theory", "table"], cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"}, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {said}")
        assert len(done.stderr.splitlines()) == 1
    assert start.missing(ModuleNotFoundError("no", name="theory.nothing")) is None
