"""The report as one page that needs nothing else."""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from experiments.report import words
from experiments.report.pictures import inlined
from experiments.report.rows import Row
from experiments.run.evidence import RULE

STYLE = """
:root { --ink: #1d2129; --soft: #5b6270; --line: #dfe3ea; --page: #fff; --head: #f5f7fa;
  --agrees: #1a7f4b; --same-order: #9a6b00; --disagrees: #b3261e; --undecided: #5a5fb0;
  --not-run: #767d8a; --no-claim: #767d8a;
  --unusable-record: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ec; --soft: #a2a9b6; --line: #363c47;
  --page: #16191f; --head: #1e232b; --agrees: #5fc890; --same-order: #e0b04a;
  --disagrees: #f28b82; --undecided: #a9adf0; --not-run: #98a0ad; --no-claim: #98a0ad;
  --unusable-record: #f28b82; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1360px; padding: 1.5rem; color: var(--ink);
  background: var(--page); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { max-width: 75ch; } a { color: inherit; }
table { width: 100%; border-collapse: collapse; }
caption { text-align: left; font-weight: 600; padding: 1.2rem 0 .3rem; }
th, td { text-align: left; vertical-align: top; padding: .45rem .7rem .45rem 0;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
thead th { font-weight: 500; color: var(--soft); border-top: 0; font-size: .85rem; }
col.what { width: 23%; } col.paper { width: 13%; } col.here { width: 23%; }
col.verdict { width: 9%; } col.run { width: 32%; }
small { display: block; color: var(--soft); font-size: .83rem; }
.verdict { font-weight: 600; white-space: nowrap; }
code { font: .8rem/1.4 ui-monospace, monospace; }
ul.counts { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .4rem 1.4rem; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; height: auto; background: #fff; }
figcaption { color: var(--soft); font-size: .85rem; }
@media (max-width: 760px) {
  body { padding: 1rem; }
  thead, colgroup { display: none; }
  table, tbody, tr, td, caption { display: block; width: 100%; }
  tr { border-top: 1px solid var(--line); padding: .6rem 0; }
  td { border: 0; padding: .1rem 0; }
  td[data-label]:not(:empty)::before { content: attr(data-label) " "; color: var(--soft);
    font-size: .83rem; }
}
"""


def page(rows: Sequence[Row]) -> str:
    """The whole page; the figures of the records are inside it."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(words.TITLE)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(words.TITLE)}</h1>",
        f"<p>{escape(words.introduction(rows))}</p>",
        f"<p>{_bold(RULE)}</p>",
        "<p>Made by <code>python -m experiments.report</code> from the records in "
        "<code>figures/records/</code> and the papers' numbers in "
        "<code>experiments/paper.py</code>.</p>",
        _counts(rows),
    ]
    pictures = _pictures(rows)
    current = None
    for paper, place, mine in words.sections(rows):
        if paper != current:
            parts.append(f"<h2>{escape(words.PAPERS[paper])}</h2>")
            current = paper
        parts.append(_table(place, mine, pictures))
    if pictures:
        parts.append("<h2>Figures</h2>")
        parts += [
            f'<figure id="{_id(path)}"><img src="{source}" alt="" loading="lazy">'
            f"<figcaption>{escape(words.figure(path))}</figcaption></figure>"
            for path, source in pictures.items()
        ]
    return "\n".join([*parts, "</body></html>", ""])


def _counts(rows: Sequence[Row]) -> str:
    counts = {one: sum(row.verdict == one for row in rows) for one in words.VERDICTS}
    items = [f"<li>{_verdict(one)} {n}</li>" for one, n in counts.items() if n]
    return f'<ul class="counts">{"".join(items)}</ul>'


def _pictures(rows: Sequence[Row]) -> dict[Path, str]:
    """The figures of every record that is shown."""
    paths = dict.fromkeys(path for row in rows if row.record for path in row.record.figures)
    found = {path: inlined(path) for path in paths}
    return {path: source for path, source in found.items() if source is not None}


def _table(place: str, rows: Sequence[Row], pictures: dict[Path, str]) -> str:
    classes = ("what", "paper", "here", "verdict", "run")
    columns = "".join(f'<col class="{one}">' for one in classes)
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in words.HEADER)
    body = "".join(_row(row, pictures) for row in rows)
    caption = f"<caption>{escape(place)}</caption>" if place else ""
    return (
        f"<table>{caption}<colgroup>{columns}</colgroup><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _row(row: Row, pictures: dict[Path, str]) -> str:
    about = [_two(*words.run(row))]
    if row.record is not None:
        paths = [path for path in row.record.figures if path in pictures]
        links = [f'<a href="#{_id(path)}">{escape(words.figure(path))}</a>' for path in paths]
        figures = f", figure {', '.join(links)}" if links else ""
        about.append(f"<small>record {escape(row.record.name)}{figures}</small>")
    if row.command:
        about.append(f"<small><code>{escape(row.command)}</code></small>")
    cells = (
        ("", _two(*words.what(row))),
        ("paper:", escape(words.paper(row))),
        ("here:", _two(*words.here(row))),
        ("", _verdict(row.verdict)),
        ("", "".join(about)),
    )
    return "<tr>" + "".join(
        f'<td data-label="{label}">{cell}</td>' if label else f"<td>{cell}</td>"
        for label, cell in cells
    ) + "</tr>"  # fmt: skip


def _two(first: str, second: str) -> str:
    return escape(first) + (f"<small>{escape(second)}</small>" if second else "")


def _verdict(verdict: str) -> str:
    colour = verdict.replace(" ", "-")
    return f'<span class="verdict" style="color: var(--{colour})">{escape(verdict)}</span>'


def _bold(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(text))


def _id(path: Path) -> str:
    return "figure-" + re.sub(r"[^a-z0-9]+", "-", words.figure(path).lower())
