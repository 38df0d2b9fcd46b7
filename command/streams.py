"""Standard output and error that take any text, and may be closed at any moment."""

import codecs
import contextlib
import io
import os
import sys
import unicodedata

_SPELLED = {"±": "+/-", "∓": "-/+", "×": "x", "·": "*", "…": "...", "–": "-", "—": "-", "−": "-"}
_SPELLED |= {"‘": "'", "’": "'", "“": '"', "”": '"', "→": "->", "≤": "<=", "≥": ">=", "∞": "inf"}
_SPELLED |= {"│": "|", "─": "-", "∑": "sum", "√": "sqrt", "≈": "~", "≠": "!="}


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """For what an encoding lacks: ASCII that says the same, as ``+/-`` for ±."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all("\udc80" <= c <= "\udcff" for c in text):  # bytes of a file's name, as they came
        return bytes(ord(c) - 0xDC00 for c in text), error.end
    return "".join(map(_ascii, text)), error.end


def _ascii(character: str) -> str:
    if character in _SPELLED:
        return _SPELLED[character]
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    if plain:
        return plain
    name = unicodedata.name(character, "")
    if name.startswith("GREEK"):
        return name.split(" WITH ")[0].split()[-1].lower()
    if name.startswith("BOX DRAWINGS"):
        return "+"
    return character.encode("ascii", "backslashreplace").decode()


def take_any_text() -> None:
    """No character is an error any more, on an ASCII terminal too."""
    codecs.register_error("spelled", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="spelled")


def close_quietly() -> None:
    """What cannot be written any more is dropped: Python would complain of it when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def say(line: str) -> None:
    """A line on standard error, where there is one."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(line, file=sys.stderr, flush=True)
