"""The report as Markdown, for the documentation."""

from collections.abc import Sequence

from experiments.report import keep, words
from experiments.report.rows import Row
from experiments.run.evidence import RULE

ENTITIES = str.maketrans({sign: f"&#{ord(sign)};" for sign in "&<|*_`[]"})
FIGURES = "figures"  # where the documentation has them


def page(rows: Sequence[Row]) -> str:
    """Headings for papers and places, a table for each place."""
    parts = [f"# {words.TITLE}", words.introduction(rows), f"**The rule.** {RULE}"]
    parts.append(
        "Made by `python -m experiments.report` from the records in `figures/records/` and the "
        "papers' numbers in `experiments/paper.py`; [the same on one page, with the figures]"
        "(report.html)."
    )
    current = None
    for paper, place, mine in words.sections(rows):
        if paper != current:
            parts.append(f"## {words.PAPERS[paper]}")
            current = paper
        if place:
            parts.append(f"### {place}")
        parts.append(table(mine))
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Row]) -> str:
    """The rows of one place."""
    lines = [(*words.HEADER, "figure", "command")]
    lines.append(("---",) * len(lines[0]))
    for row in rows:
        lines.append(
            (
                two(*words.what(row)),
                cell(words.paper(row)),
                two(*words.here(row)),
                f"**{row.verdict}**",
                two(*words.run(row)),
                ", ".join(
                    f"[{i + 1}]({FIGURES}/{path.name})"
                    if path.parent == keep.FIGURES
                    else f"`{words.figure(path)}`"
                    for i, path in enumerate(row.record.figures if row.record else ())
                ),
                f"`{row.command.replace('|', ' ')}`" if row.command else "",
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def two(first: str, second: str) -> str:
    """Two lines in one cell."""
    return "<br>".join(filter(None, (cell(first), cell(second))))


def cell(text: str) -> str:
    """Text that is a table's cell whatever it holds."""
    return " ".join(text.translate(ENTITIES).split())
