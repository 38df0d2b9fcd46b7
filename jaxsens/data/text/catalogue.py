"""The paraphrase tasks: what they are called, and where their pairs come from."""

from collections.abc import Callable
from pathlib import Path

from jaxsens.data.dataset import DataError
from jaxsens.data.files.budget import Budget
from jaxsens.data.images.tensorflow_datasets import load_columns
from jaxsens.data.text import glue, verses
from jaxsens.data.text.pairs import Pairs, TextData, checked

TASKS = {
    "mrpc": "Microsoft Research Paraphrase Corpus",
    "qqp": "Quora Question Pairs",
    "verses": "the same verse or not",
}
# Names of the columns in tensorflow-datasets.
COLUMNS = {"mrpc": ("sentence1", "sentence2"), "qqp": ("question1", "question2")}


def load(task: str, source: str | Path) -> TextData:
    """The pairs of ``mrpc``, ``qqp`` or ``verses`` (paper A, Section 6; verses is our own).

    ``source`` is ``tfds`` (glue/mrpc and glue/qqp through tensorflow-datasets), ``embedded``
    (verses alone: two translations inside installed packages) or a path (:func:`glue.read_path`).
    Raises DataError, one line, for a task or source that does not exist or data that cannot be
    right.
    """
    if task not in TASKS:
        raise DataError(f"there is no task {task!r}; expected one of {', '.join(TASKS)}")
    if (task == "verses") != (source == "embedded"):
        raise DataError(
            "verses come from installed packages: --data embedded"
            if task == "verses"
            else f"no installed package carries {task.upper()}; name its files with --data PATH, "
            "or use --data tfds, or --task verses"
        )
    read: dict[str, Callable[[], tuple[Pairs, Pairs]]] = {
        "embedded": verses.read_verses,
        "tfds": lambda: (_from_tfds(task, "train"), _from_tfds(task, "validation")),
    }
    if source == "":
        raise DataError("--data is empty; expected tfds, embedded or a path")
    train, validation = read.get(str(source), lambda: glue.read_path(Path(source), task))()
    return TextData(task, str(source), train, validation)


def _from_tfds(task: str, split: str) -> Pairs:
    name = f"glue/{task}"
    columns = load_columns(name, split, (*COLUMNS[task], "label"), Budget())
    first, second = ([_text(value) for value in column] for column in columns[:2])
    return checked(first, second, [int(label) for label in columns[2]], f"{name} ({split})")


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
