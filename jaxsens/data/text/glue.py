"""Paraphrase corpora as they are published: GLUE's tab-separated files and the MSR corpus."""

from pathlib import Path

from jaxsens.data.dataset import DataError, reason, shown
from jaxsens.data.files import names, opened
from jaxsens.data.files.budget import Budget, OverBudget
from jaxsens.data.text.pairs import Pairs, checked

# The columns of each task: sentences, label. A header names them.
COLUMNS = {
    "mrpc": ("#1 String", "#2 String", "Quality"),
    "qqp": ("question1", "question2", "is_duplicate"),
}
# Files of a folder, the training part first. The MSR corpus has no validation part; its test part
# serves, and has labels, unlike GLUE's.
FILES = (
    ("train.tsv", "dev.tsv"),
    ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"),
)
FOLDERS = {"mrpc": ("mrpc",), "qqp": ("qqp",)}
# Headers of other tasks that come in the same form, by a column that no other has.
OTHERS = {
    "RTE or WNLI": {"sentence1", "sentence2", "label"},
    "QNLI": {"question", "sentence"},
    "SST-2": {"sentence", "label"},
    "MNLI": {"gold_label"},
    "STS-B": {"score"},
}
# QQP as published has 24 broken lines in 363,870; others skip them too.
MAX_BROKEN = 1e-4


def read_path(path: str | Path, task: str) -> tuple[Pairs, Pairs]:
    """Training and validation pairs of ``mrpc`` or ``qqp`` at a path.

    ``path`` is the folder that holds ``train.tsv`` and ``dev.tsv`` (GLUE) or
    ``msr_paraphrase_train.txt`` and ``msr_paraphrase_test.txt`` (MRPC), the folder above it, or one
    of these files. Nothing is executed. Raises DataError, one line, for files that are missing, not
    text in UTF-8, of another task, or that have lines of other than the expected columns, labels
    other than 0 and 1, or empty sentences.
    """
    path, budget = Path(path).expanduser(), Budget()
    if not path.exists():
        link = " (a broken link)" if path.is_symlink() else ""
        raise DataError(f"{path} does not exist{link}; expected {_expected(task)}")
    for wanted in FILES:
        found = names.find(path, wanted, budget, FOLDERS[task])
        missing = [name for name in wanted if name not in found]
        if not missing:
            train, validation = (read_file(found[name], task, budget) for name in wanted)
            return train, validation
        if found:
            beside = next(iter(found.values()))
            raise DataError(f"{missing[0]} is missing beside {beside}")
    raise DataError(
        f"{path} holds no {task.upper()}; expected {_expected(task)}{names.holding(path)}"
    )


def read_file(path: Path, task: str, budget: Budget) -> Pairs:
    """The pairs of one tab-separated file with a header.

    Fields are not quoted: a quotation mark is a character like any other. Pairs with the ids -1 are
    left out: the MSR corpus puts four worked examples among its pairs.
    """
    lines = _lines(path, budget)
    header = lines[0].split("\t")
    if not set(COLUMNS[task]) <= set(header):
        raise DataError(_wrong_header(path, task, header))
    places = [header.index(name) for name in COLUMNS[task]]
    ids = [i for i, name in enumerate(header) if name in ("#1 ID", "#2 ID")]
    first: list[str] = []
    second: list[str] = []
    labels: list[int] = []
    broken: list[tuple[int, int]] = []
    for number, line in enumerate(lines[1:], 2):
        fields = line.split("\t")
        if len(fields) != len(header):
            broken.append((number, len(fields)))
            continue
        if ids and all(fields[i] == "-1" for i in ids):
            continue
        one, two, label = (fields[i].strip() for i in places)
        if label not in ("0", "1"):
            raise DataError(
                f"{path} has the label {shown(label)!r} in line {number}; expected 0 or 1"
            )
        for sentence in (one, two):
            if not sentence:
                raise DataError(f"{path} has an empty sentence in line {number}")
        first.append(one)
        second.append(two)
        labels.append(int(label))
    if broken and (task != "qqp" or len(broken) > MAX_BROKEN * len(lines)):
        number, found = broken[0]
        raise DataError(
            f"{path} has {found} columns in line {number}; expected {len(header)}, as in its header"
            f" ({len(broken)} such lines in all)"
        )
    return checked(first, second, labels, str(path))


def _lines(path: Path, budget: Budget) -> list[str]:
    """The lines of a text file in UTF-8, a byte-order mark left out."""
    try:
        content = opened.whole(path, budget)
    except (OSError, OverBudget) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    start = content[: opened.START]
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path} is text in UTF-16; expected UTF-8: convert it")
    kind = opened.looks(start)
    if not kind.startswith(("is plain text", "starts with")):
        raise DataError(f"{path} {kind}; expected tab-separated text")
    if b"\0" in content:
        raise DataError(f"{path} holds NUL bytes; it is not text in UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path} is not text in UTF-8 (line {line}); convert it") from None
    # Not splitlines: sentences hold other characters that it takes for the end of a line.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if len(lines) == 1 and "\r" in text:
        lines = text.split("\r")
    return lines[:-1] if not lines[-1] else lines


def _wrong_header(path: Path, task: str, header: list[str]) -> str:
    need = ", ".join(COLUMNS[task])
    for other, fields in COLUMNS.items():
        if set(fields) <= set(header):
            return f"{path} is of {other.upper()}, not {task.upper()}; name it with --task {other}"
    if set(COLUMNS[task][:2]) <= set(header):
        return (
            f"{path} has no column {COLUMNS[task][2]!r}: labels of the test part are not published;"
            " expected the training and validation parts"
        )
    for other, columns in OTHERS.items():
        if columns <= set(header):
            return f"{path} looks like {other}, not {task.upper()}; expected the columns {need}"
    found = ", ".join(shown(name) for name in header[:6])
    return f"{path} has the columns {found} in its first line; expected {need}, tab-separated"


def _expected(task: str) -> str:
    kinds = FILES if task == "mrpc" else FILES[:1]
    return "the folder of " + " or of ".join(" and ".join(names) for names in kinds)
