"""The command line: frozen dataclasses as options, errors on one line with exit code 2."""

import contextlib
import dataclasses
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from command import start, stops, streams

Config = TypeVar("Config")
PIPE = 128 + 13  # how a shell shows the end of a program by SIGPIPE


class UserError(Exception):
    """Something the user can put right; the message is one line."""


def parse(config: Any, *, prog: str, args: list[str] | None = None) -> Any:
    """The options as an instance of ``config``; one line on standard error and exit 2 if wrong.

    A path that begins with ``~`` is one in the home directory, also where the shell left it alone
    (as in ``--out=~/run``).
    """
    import tyro  # installed with experiments and theory alone

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            options = tyro.cli(config, prog=f"python -m {prog}", args=args)
    except SystemExit as stop:
        if stop.code:
            fail(f"{_one_line(errors.getvalue())} (see python -m {prog} --help)")
        raise
    try:
        return _at_home(options)
    except UserError as error:
        fail(str(error))


def run(
    main: Callable[[Any], None],
    config: Any,
    *,
    prog: str,
    args: list[str] | None = None,
    errors: tuple[type[Exception], ...] = (),
) -> None:
    """Parse the options and call ``main``; what the user can put right is one line and exit 2.

    That is a UserError, one of ``errors``, and what comes from the surroundings: files, memory,
    devices, packages (`explain`). Ctrl-C is one line too, and exit 130; SIGTERM 143, SIGHUP 129.
    Output that nobody reads any more (``| head``) is no error: nothing is said, and the exit code
    is the shell's for it, 141. Anything else is a bug and shows its traceback.
    """
    start.over()
    streams.take_any_text()
    code = 0
    with stops.raised():
        try:
            options = parse(config, prog=prog, args=args)
            main(options)
            if sys.stdout is not None:
                sys.stdout.flush()
            if stops.asked() is not None:  # and something swallowed it
                raise KeyboardInterrupt("the command had come to its end")
        except SystemExit as stop:
            if stop.code:
                raise
        except BrokenPipeError:
            code = PIPE
        except BaseException as error:
            # A library may have made something else of the interrupt that it came from.
            signum = stops.asked()
            stops.caught()
            if signum is not None or isinstance(error, KeyboardInterrupt):
                said = str(error) if isinstance(error, KeyboardInterrupt) else ""
                said = said.removeprefix("interrupted").removeprefix("; ")
                streams.say("; ".join([stops.word(signum), *[said][: len(said)]]))
                code = 128 + (signum or 2)
            else:
                message = explain(error, errors)
                if message is None:
                    raise
                streams.say(f"error: {' '.join(message.split())}")
                code = 2
        stops.caught()
    streams.close_quietly()
    if code > 128 and start.is_process():
        os._exit(code)  # the threads of JAX that were cut short may crash Python's own way out
    if code:
        sys.exit(code)


def fail(message: str) -> Any:
    """End the command with a line."""
    streams.say(f"error: {' '.join(message.split())}")
    sys.exit(2)


def explain(error: BaseException, known: tuple[type[Exception], ...] = ()) -> str | None:
    """One line for an error that is not a bug of ours; None for one that is."""
    for cause in _causes(error):
        if isinstance(cause, (UserError, FloatingPointError, *known)):
            return str(cause)
        if isinstance(cause, MemoryError):
            return f"out of memory: {str(cause) or 'nothing more is known'}; {_SMALLER}"
        if isinstance(cause, ModuleNotFoundError):
            return start.missing(cause)
        if isinstance(cause, OSError):
            return start.of_the_system(cause)
        if isinstance(cause, RuntimeError):
            said = str(cause)
            if "RESOURCE_EXHAUSTED" in said or "Out of memory" in said:
                return f"out of memory on the device: {said.splitlines()[0][:200]}; {_SMALLER}"
    return _no_device()


_SMALLER = "make the run smaller, or the batches"


def _no_device() -> str | None:
    """What JAX has against its platforms; None for nothing, or without JAX.

    Asked again rather than read off the error, which may be an AssertionError without a word.
    """
    jax: Any = sys.modules.get("jax")
    try:
        if jax is not None:
            jax.devices()
    except Exception as error:
        said = str(error).partition("(set JAX_PLATFORMS")[0].strip().rstrip(".")
        return (
            f"JAX has no device of the platform JAX_PLATFORMS={jax.config.jax_platforms}"
            f"{f' ({said})' if said else ''}; set JAX_PLATFORMS=cpu, or install JAX for that one"
        )
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and the members of groups."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        if isinstance(seen, BaseExceptionGroup):
            for member in seen.exceptions:
                yield from _causes(member)
        seen = seen.__cause__


def _at_home(options: Any) -> Any:
    """The options with ``~`` and ``~name`` at the beginning of paths and words replaced."""
    if isinstance(options, Path | str) and str(options).startswith("~"):
        try:
            return type(options)(os.fspath(Path(options).expanduser()))
        except RuntimeError:
            raise UserError(
                f"the home directory in {options} is not known; write the path out"
            ) from None
    if isinstance(options, tuple):
        return tuple(map(_at_home, options))
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        changed = {
            field.name: _at_home(getattr(options, field.name))
            for field in dataclasses.fields(options)
            if field.init
        }
        return dataclasses.replace(options, **changed)
    return options


def _one_line(box: str) -> str:
    """The first statement of an error that the parser drew in a box."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│| ").strip() for line in text.splitlines() if line[:1] in ("│", "|")]
    statement = []
    for line in lines:
        if not line or set(line) <= {"─", "-"}:
            break
        statement.append(line)
    return " ".join(statement) or " ".join(text.split())
