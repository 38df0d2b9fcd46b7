"""The report: a row for every claim, whatever the records are; one page that needs nothing else."""

import base64
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from witnesses.commands import execute

from experiments import paper
from experiments.report import __main__ as report
from experiments.report import commands, html, keep, markdown, pictures, rows, stated
from experiments.run.evidence import AGREES, DISAGREES, NOT_RUN, UNUSABLE
from experiments.run.record import RunRecord
from experiments.run.reports import report_of

STATED = {
    "evidence": [
        {"place": "Fig. 4", "model": "ConvMixer", "quantity": "sensitivity", "value": 0.077,
         "stderr": 0.01, "differs": "1,000 images | <b>", "size": "one seed"},
        {"place": "Fig. 4", "model": "ViT-small", "quantity": "sensitivity", "value": 0.5},
        {"place": "Fig. 1", "model": "PARITY", "quantity": "sharpness with n", "paper": "B",
         "value": "rises & rises", "holds": True},
    ]
}  # fmt: skip


def write(directory, **files):
    directory.mkdir(parents=True)
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        suffix = "jsonl" if name == "metrics" else "json"
        (directory / f"{name}.{suffix}").write_text(text)
    return directory


@pytest.fixture
def place(tmp_path):
    meta = {"command": "python -m x", "note": "from a <text>", "figures": ["a.png", "../b.png"]}
    return write(tmp_path / "told", config={"experiment": "stated"}, result=STATED, meta=meta)


def found(*directories):
    return rows.rows([rows.kept(directory) for directory in directories])


def test_without_records_every_claim_is_a_row_that_says_so():
    told = found()
    assert [row.claim for row in told] == list(paper.CLAIMS)
    assert {row.verdict for row in told} == {NOT_RUN}
    for text in (markdown.page(told), html.page(told)):
        assert text.count(NOT_RUN) >= len(paper.CLAIMS)


def test_what_a_record_says_is_judged_and_shown(place):
    told = {row.claim: row for row in found(place) if row.evidence is not None}
    assert [row.verdict for row in told.values()] == [DISAGREES, AGREES, AGREES]
    row = told[paper.claim("Fig. 4", "ConvMixer", "sensitivity")]
    assert (row.size, row.command) == ("one seed", "python -m x")
    assert row.record.figures == (keep.FIGURES / "a.png",)
    assert row.record.note == "from a <text>"
    shown = markdown.page(list(told.values()))
    assert (
        "| 0.0829 | 0.0770 ± 0.0100 | **agrees** | one seed<br>1,000 images &#124; &#60;b>" in shown
    )
    page = html.page(list(told.values()))
    assert "0.0770 ± 0.0100" in page
    assert "<small>1,000 images | &lt;b&gt;; from a &lt;text&gt;</small>" in page
    assert "rises &amp; rises" in page


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "there is no config.json"),
        ({"config": "{"}, "config.json is damaged"),
        ({"config": "[1]"}, "expected an object, got list"),
        ({"config": {"experiment": "os"}}, "names no experiment that is known here: 'os'"),
        ({"config": {"experiment": "mnist"}}, "there is no result.json"),
        ({"config": {"experiment": "mnist"}, "result": {}}, "KeyError('final')"),
        ({"config": {"experiment": "cifar"}, "result": {"final": [3]}}, "something other"),
        ({"config": {"experiment": "synthetic"}, "result": {"final": {}, "ideal": []}}, "other"),
        ({"config": {"experiment": "grokking"}, "metrics": "{}\n"}, "nothing in it speaks"),
        ({"config": {"experiment": "grokking"}}, "something other"),
        ({"config": {"experiment": "priors"}}, "nothing in it speaks"),
        ({"config": {"experiment": "stated"}, "result": {"evidence": [{}]}}, "needs place"),
        ({"config": {"experiment": "stated"}, "result": {"evidence": 3}}, "something other"),
        (
            {"config": {"experiment": "stated"},
             "result": {"evidence": [STATED["evidence"][0] | {"value": [1]}]}},
            "must be numbers or words",
        ),
        (
            {"config": {"experiment": "stated"},
             "result": {"evidence": [STATED["evidence"][0] | {"model": "x"}]}},
            "no paper claims that",
        ),
        ({"config": {"experiment": "stated"}, "result": STATED, "meta": "no"}, "damaged"),
        ({"config": {"experiment": "stated"}, "result": STATED, "metrics": "[]\n"}, "every line"),
    ],
)  # fmt: skip
def test_a_record_that_is_not_whole_is_a_row_that_says_so(tmp_path, place, files, said):
    broken = write(tmp_path / "broken", **files)
    told = found(place, broken)
    assert [row.verdict for row in told].count(UNUSABLE) == 1
    assert told[-1].record.name == "broken"
    assert said in told[-1].record.trouble
    assert str(tmp_path) not in told[-1].record.trouble
    assert sum(row.evidence is not None for row in told) == 3  # the other one's
    assert "unusable record" in markdown.page(told)
    assert "unusable record" in html.page(told)


def test_an_unfinished_run_says_how_far_it_is(tmp_path):
    shutil.copytree(keep.RECORDS / "grokking_published", tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink(missing_ok=True)
    kept = rows.kept(tmp_path / "run")
    assert kept.trouble == ""
    assert kept.note.startswith("unfinished, at epoch ")
    priors = {"config": {"experiment": "priors"}, "metrics": '{"model": "lstm"}\n'}
    assert rows.kept(write(tmp_path / "uncounted", **priors)).note == "unfinished"
    report_of("grokking").draw(RunRecord(tmp_path / "run"))
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


def checked(text):
    """The tags of a page that is well formed, with their attributes."""
    open_tags, seen = [], []
    void = {"meta", "img", "col", "br"}

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append((tag, dict(attrs)))
            if tag not in void:
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Reader().feed(text)
    assert open_tags == []
    return seen


def test_pictures_are_inside_the_page_and_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    start, content = pictures.inlined(tmp_path / "a.png").split(",")
    assert start == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as shown:
        assert (shown.format, shown.size) == ("PNG", (1000, 133))
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert pictures.inlined(tmp_path / "b.png") is None
    assert pictures.inlined(tmp_path / "c.png") is None


def test_the_page_is_well_formed_and_needs_nothing_else(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(html, "inlined", lambda path: "data:image/png;base64,A")
    assert execute(report, "--out", tmp_path) == 0
    text = (tmp_path / "report.html").read_text()
    tags = checked(text)
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert max(Counter(ids).values(), default=1) == 1
    addresses = [attrs.get(key) for _, attrs in tags for key in ("src", "href") if key in attrs]
    assert addresses
    for address in addresses:
        assert address.startswith("data:image/png;base64,") or address[1:] in ids
    assert not re.search(r"<script|<link|@import|url\(", text)
    cells = [attrs for tag, attrs in tags if tag == "tr"]
    rows_said = int(re.search(r"(\d+) rows", capsys.readouterr().out)[1])
    heads = sum(tag == "thead" for tag, _ in tags)
    assert len(cells) == rows_said + heads


def test_committed_records_are_whole_and_tell_no_machine():
    found = rows.read_all(keep.RECORDS)
    assert found
    assert [kept.trouble for kept in found if kept.trouble] == []
    for kept in found:
        files = list(kept.directory.iterdir())
        assert sum(path.stat().st_size for path in files) < 1.1 * keep.LARGEST, kept.name
        text = "".join(path.read_text() for path in files)
        assert not re.search(r"""["' =]/(?:work|root|home|tmp|usr)/""", text), kept.name
        for figure in kept.figures:
            assert figure.is_file(), (kept.name, figure)


def test_claims_name_their_command():
    for name in {commands.command(claim).split()[2] for claim in paper.CLAIMS
                 if commands.command(claim)}:  # fmt: skip
        assert importlib.util.find_spec(name) is not None
    said = Counter(bool(commands.command(claim)) for claim in paper.CLAIMS if claim.paper == "A")
    assert said[True] > 60
    assert commands.command(paper.claim("Fig. 19", "ResNet-18", "sensitivity")).startswith(
        "python -m experiments.svhn"
    )


def test_the_command_reads_runs_without_jax_or_training(tmp_path):
    code = (
        "import sys; sys.argv = ['report', *sys.argv[1:]];"
        "from experiments.report.__main__ import *;"
        "main(Config(runs=(Path(sys.argv[1]),), out=Path(sys.argv[2])));"
        "print({'jax', 'jaxsens', 'jaxsens.training', 'matplotlib'} & set(sys.modules))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, keep.RECORDS / "synthetic", tmp_path],
        cwd=keep.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines()[-1] == "set()"


def test_options_that_do_not_fit_are_one_line(place, capsys):
    for args, said in (
        (("--keep", place, place), "--keep takes one run"),
        (("--as", "x"), "go with --keep RUN"),
        ((place / "none",), "there is no directory"),
    ):
        assert execute(report, *args) == 2
        assert said in capsys.readouterr().err


def test_stated_records_name_what_they_may(place):
    assert len(stated.evidence(rows.RunRecord(place))) == 3
    (place / "result.json").write_text(
        json.dumps({"evidence": [STATED["evidence"][0] | {"valeu": 1}]})
    )
    assert "an entry has no 'valeu'" in rows.kept(place).trouble
