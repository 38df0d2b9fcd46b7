"""The language experiment: malformed text and options that cannot be are one line each."""

import pytest
from witnesses.commands import one_line

from experiments import language

HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
ROWS = "1\t1\t2\ta b\ta b\n0\t3\t4\tc d\te f\n"
MALFORMED = {
    "columns": (f"{HEADER}\n{ROWS}1\t2\n", "2 columns in line 4; expected 5"),
    "labels": (f"{HEADER}\n{ROWS}7\t1\t2\ta\tb\n", "the label '7' in line 4; expected 0 or 1"),
    "no-labels": (f"index\t{HEADER.split(chr(9), 1)[1]}\n{ROWS}", "labels of the test part"),
    "nul": (f"{HEADER}\n{ROWS}1\t1\t2\ta\0\tb\n", "NUL"),
    "encoding": (f"{HEADER}\n{ROWS}".encode("utf-16"), "UTF-16; expected UTF-8"),
    "latin-1": (f"{HEADER}\n{ROWS}1\t1\t2\tcaf\u00e9\tb\n".encode("latin-1"), "not text in UTF-8"),
    "empty-sentence": (f"{HEADER}\n{ROWS}1\t1\t2\t \tb\n", "an empty sentence in line 4"),
    "megabyte": (f"{HEADER}\n{ROWS}1\t1\t2\t{'a ' * 2**19}\tb\n", "characters in pair 3"),
    "other-task": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n", "is of QQP"),
    "nothing": ("", "is empty"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_text_is_one_line(tmp_path, capsys, kind):
    content, said = MALFORMED[kind]
    content = content if isinstance(content, bytes) else content.encode()
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    words = ["--data", tmp_path, "--smoke", "--out", out]
    assert said in one_line(language, *words, capsys=capsys)
    assert not out.exists()


WORDS = {
    "width": (["--width", 12, "--heads", 8], "--width must be a multiple of --heads (8), got 12"),
    "points": (["--points", 5], "--points must be at least --batch-size (32), got 5"),
    "one": (["--validation-examples", 1], "--validation-examples must lie between 2 and"),
    "none": (["--arch", "none"], "--arch none is for comparing"),
    "tokens": (["--tokens", 50], "--tokens must be at most 8"),
    "beside": (["--beside", "nowhere"], "there is no nowhere/config.json"),
    "source": (["--task", "verses"], "--data embedded"),
}


@pytest.mark.parametrize("kind", WORDS)
def test_options_that_cannot_be_are_one_line(mrpc, capsys, kind):
    words, said = WORDS[kind]
    more = ["--batch-size", 8] if kind == "tokens" else []
    assert said in one_line(language, "--data", mrpc, *more, *words, capsys=capsys)
