"""Pairs of sentences from their files, and their token ids."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxsens.data import DataError
from jaxsens.data.text import Pairs, Tokenizer, load, verses

MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
ROWS = ['1\t7\t8\tHe said "no.\tHe said no.', "0\t9\t10\tCaf\u00e9 \u2028 open\tRain fell"]
TEXT = ["the cat sat on the mat", "a dog ran", "the cat ran on", "dogs sat", "on the mat a cat"] * 8


def write(folder, train, validation=None, names=("train.tsv", "dev.tsv"), start=b""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in zip(names, (train, validation or train), strict=True):
        content = rows if isinstance(rows, bytes) else "\n".join(rows).encode()
        (folder / name).write_bytes(start + content)
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXT, vocabulary=300)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("inner", ["", "MRPC"])
def test_glue_and_msr_files_are_read_as_they_are_published(tmp_path, end, inner):
    msr = ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt")
    example = "0\t-1\t-1\tI like apples.\tI like no apples."
    for names in (("train.tsv", "dev.tsv"), msr):
        folder = tmp_path / names[0]
        content = (end.join([MRPC, *ROWS, example]) + end).encode()
        write(folder / inner, content, names=names, start=b"\xef\xbb\xbf")
        for source in (folder, folder / inner / names[0]):
            data = load("mrpc", str(source))
            assert data.train.first == ['He said "no.', "Caf\u00e9 \u2028 open"]
            assert data.train.second == ["He said no.", "Rain fell"]
            np.testing.assert_array_equal(data.validation.labels, [1, 0])


def test_qqp_leaves_out_the_few_broken_lines_that_it_is_published_with(tmp_path):
    rows = [f"{i}\t1\t2\tq {i}\tr {i}\t{i % 2}" for i in range(10_001)]
    broken = [QQP, *rows[:5], "7\tno more", *rows[5:]]
    data = load("qqp", str(write(tmp_path / "few", broken, [QQP, *rows[:4]])))
    assert len(data.train.labels) == 10_001
    with pytest.raises(DataError, match=r"2 columns in line 7; expected 6.*\(1 such lines"):
        load("qqp", str(write(tmp_path / "many", broken[:20])))


BAD = {
    "columns": ([MRPC, *ROWS, "1\t2\t3"], "3 columns in line 4; expected 5"),
    "no-labels": (["index\t#1 ID\t#2 ID\t#1 String\t#2 String", *ROWS], "no column 'Quality'"),
    "label": ([MRPC, *ROWS, "2\t1\t2\ta\tb"], "the label '2' in line 4; expected 0 or 1"),
    "one-label": ([MRPC, ROWS[0]], "only pairs of label 1"),
    "empty-sentence": ([MRPC, *ROWS, "1\t1\t2\t \tb"], "an empty sentence in line 4"),
    "megabyte": ([MRPC, *ROWS, f"1\t1\t2\ta\t{'b' * 2**20}"], "1048576 characters in pair 3"),
    "nul": (b"\t".join([MRPC.encode(), b"a\0b"]), "NUL bytes"),
    "latin-1": ("\n".join([MRPC, ROWS[1]]).encode("latin-1", "replace"), r"UTF-8 \(line 2\)"),
    "utf-16": ("\n".join([MRPC, *ROWS]).encode("utf-16"), "UTF-16"),
    "other-task": ([QQP, "1\t2\t3\ta\tb\t1"], "is of QQP, not MRPC; name it with --task qqp"),
    "sst": (["sentence\tlabel", "fine\t1"], "looks like SST-2"),
    "csv": (["Quality,#1 ID", "1,2"], "has the columns Quality,#1 ID in its first line"),
    "page": (b"<!DOCTYPE html><html>", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
    "archive": (b"PK\x03\x04rest", "a zip archive"),
    "nothing": (b"", "is empty"),
    "blank": (b"\n", "has the columns"),
    "header-only": ([MRPC], "holds no pairs"),
}


@pytest.mark.parametrize(("rows", "message"), BAD.values(), ids=BAD)
def test_a_malformed_file_is_one_line(tmp_path, rows, message):
    with pytest.raises(DataError, match=message) as caught:
        load("mrpc", str(write(tmp_path / "data", rows)))
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_one_line(tmp_path):
    (tmp_path / "other.tsv").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    alone = tmp_path / "alone"
    empty = tmp_path / "empty"
    alone.mkdir()
    empty.mkdir()
    (alone / "train.tsv").write_text("a")
    for task, source, message in [
        ("mrpc", tmp_path / "gone", "does not exist; expected the folder of train.tsv"),
        ("mrpc", tmp_path / "link", "a broken link"),
        ("mrpc", tmp_path / "other.tsv", "holds no MRPC"),
        ("qqp", empty, "holds no QQP; expected .* \\(it is empty\\)"),
        ("mrpc", alone, "dev.tsv is missing beside .*train.tsv"),
        ("mrpc", "embedded", "no installed package carries MRPC"),
        ("verses", tmp_path, "--data embedded"),
        ("cola", "tfds", "there is no task 'cola'"),
    ]:
        with pytest.raises(DataError, match=message):
            load(task, str(source))


def test_verses_pair_renderings_and_split_by_chapter(tmp_path):
    text = "alpha beta one. gamma delta two. epsilon three."
    source = 'bible = Bible(Version.X, "%s", {1001001: 0, 1001002: 16}, {1001001: 15, 1001002: 32})'
    module = tmp_path / "package" / "m.py"
    module.parent.mkdir()
    module.write_text("import os\n" + source % text)
    assert verses.read_module(module) == {1001001: "alpha beta one.", 1001002: "gamma delta two."}
    for damage in ("raise SystemExit(1)", "bible = f(1, 2, 3, 4)", "x = " + "(" * 5000, "\0"):
        module.write_text(damage)
        with pytest.raises(DataError, match="is not the module that package publishes"):
            verses.read_module(module)

    chapters = [
        verses.Verse(
            c, f"c{c} word{v} ours the", f"c{c} word{v} yours the {'near' if v < 2 else ''}"
        )
        for c in range(20)
        for v in range(3)
    ]
    train, validation = verses.pairs_of([*chapters, verses.Verse(99, "alone", "alone")])
    assert len(validation.labels) == 2 * 2 * 3
    assert not {a.split()[0] for a in train.first} & {a.split()[0] for a in validation.first}
    for part in (train, validation):
        assert part.labels.mean() == 0.5
        for a, b, same in zip(*part, strict=True):
            assert (a.split()[1] == b.split()[1]) == bool(same)
            assert a.split()[0] == b.split()[0]


def test_the_embedded_verses_are_the_two_translations():
    train, validation = verses.read_verses()
    assert len(train.labels) + len(validation.labels) == 2 * 31_099
    assert train.first[0] == "In the beginning God created the heavens and the earth."
    assert train.second[0].startswith("In the beginning of God")


@hypothesis.given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), min_size=1))
def test_ids_have_the_pair_form_and_the_padding_is_masked(tokenizer, pairs):
    first, second = (list(side) for side in zip(*pairs, strict=True))
    split = tokenizer.encode(Pairs(first, second, np.zeros(len(pairs), np.int32)), max_length=24)
    ids, mask = split.inputs
    assert ids.shape == mask.shape
    assert ids.shape[1] <= 24
    assert ids.max() < tokenizer.size
    start, pad, end = (tokenizer._inner.token_to_id(t) for t in ("<s>", "<pad>", "</s>"))
    assert (start, pad, end) == (0, 1, 2)
    for row, real in zip(ids, mask, strict=True):
        length = real.sum()
        assert real[:length].all()
        assert (row[length:] == pad).all()
        assert row[0] == start
        assert row[length - 1] == end
        ends = np.flatnonzero(row[:length] == end)
        assert np.diff(ends).min() == 1  # </s></s> between the two


def test_truncation_takes_from_the_longer_sentence(tokenizer):
    pairs = Pairs(["cat"], ["the cat sat on the mat a dog ran on and on and on"], np.array([1]))
    whole = tokenizer.encode(Pairs(["cat"], ["cat"], np.array([1]))).inputs.ids[0]
    cut = tokenizer.encode(pairs, max_length=12).inputs.ids[0]
    kept = np.flatnonzero(whole == 2)[0]
    np.testing.assert_array_equal(cut[: kept + 2], whole[: kept + 2])
    assert len(cut) == 12
    assert cut[-1] == 2


def test_a_tokenizer_is_the_same_again_and_reads_back(tokenizer, tmp_path):
    pairs = Pairs(["the cat"], ["na\u00efve \U0001f600"], np.array([1]))
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    tokenizer.encode(pairs, max_length=9)
    again = Tokenizer.train(TEXT, vocabulary=300)
    assert again.to_json() == tokenizer.to_json()
    tokenizer._inner.model.save(str(tmp_path))
    expected = tokenizer.encode(pairs).inputs.ids
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        np.testing.assert_array_equal(Tokenizer.read(path).encode(pairs).inputs.ids, expected)
    (tmp_path / "tokenizer.json").unlink()
    np.testing.assert_array_equal(Tokenizer.read(tmp_path).encode(pairs).inputs.ids, expected)
    assert "na\u00efve \U0001f600" in tokenizer._inner.decode(list(expected[0]))
    assert tokenizer.tokens(expected[0, :3]) == ["<s>", "the", " cat"]


def test_tokenizers_that_cannot_be_are_one_line(tokenizer, tmp_path):
    with pytest.raises(DataError, match="at least 260 tokens, got 100"):
        Tokenizer.train(TEXT, vocabulary=100)
    with pytest.raises(DataError, match=r"there is no .*vocab\.json"):
        Tokenizer.read(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="is no tokenizer") as caught:
        Tokenizer.read(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json().replace("<pad>", "<padding>"))
    with pytest.raises(DataError, match="no token <pad>"):
        Tokenizer.read(tmp_path)
    with pytest.raises(DataError, match="at least 6 tokens"):
        tokenizer.encode(Pairs(["a"], ["b"], np.array([1])), max_length=5)
