"""What is committed: the report is that of the records, and the README says nothing else."""

import re

from experiments.report import html, keep, markdown, rows, words
from experiments.run.evidence import AGREES, DISAGREES

README = (keep.ROOT / "README.md").read_text(encoding="utf-8")
LINE = re.compile(r"^\| (.+?) \| (.+?) \| (.+?) \| (\w+) \|$", re.MULTILINE)
IMAGE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")


def told():
    return rows.rows(rows.read_all(keep.RECORDS))


def test_every_verdict_in_the_readme_is_a_row_with_its_record():
    found = {
        (f"{row.claim.place}: {row.claim.model}: {row.claim.quantity}", row.verdict,
         row.record.name)
        for row in told()
        if row.record is not None and row.claim is not None
    }  # fmt: skip
    lines = [
        found for found in LINE.findall(README) if found[0] != "claim" and "---" not in found[0]
    ]
    said = [line for line in lines if line[2] in words.VERDICTS]
    assert {verdict for _, _, verdict, _ in said} >= {AGREES, DISAGREES}
    for claim, _, verdict, record in said:
        assert (claim, verdict, record) in found
    # And nowhere outside this table.
    rest = LINE.sub("", README)
    assert not re.search(r"\b(agrees|disagrees|as in the paper)\b", rest)


def test_the_committed_report_is_that_of_the_committed_records(monkeypatch):
    """After a new record or claim: python -m experiments.report."""
    monkeypatch.setattr(html, "inlined", lambda path: "data:image/png;base64,A")
    made, where = told(), keep.ROOT / "docs"
    again = "run python -m experiments.report and commit docs/report.md and docs/report.html"
    assert (where / "report.md").read_text(encoding="utf-8") == markdown.page(made), again
    kept = (where / "report.html").read_text(encoding="utf-8")
    # Pictures by their number alone: how they are packed differs between versions of Pillow.
    assert IMAGE.sub("", kept) == IMAGE.sub("", html.page(made)), again
