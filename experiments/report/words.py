"""What both forms of the report say: titles, counts, cells."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.report.keep import FIGURES
from experiments.report.rows import Row
from experiments.run.evidence import (
    AGREES,
    DISAGREES,
    NO_CLAIM,
    NOT_RUN,
    ORDER,
    UNDECIDED,
    UNUSABLE,
)

TITLE = "What two papers print, and what was found here"
PAPERS = {
    "A": "A: Transformers Learn Low Sensitivity Functions (Vasudeva et al., arXiv 2403.06925)",
    "B": "B: Why are Sensitive Functions Hard for Transformers? (Hahn & Rofin, arXiv 2402.09963)",
    NO_CLAIM: "Beyond both papers",
    UNUSABLE: "Records of which nothing can be used",
}
VERDICTS = (AGREES, ORDER, DISAGREES, UNDECIDED, NOT_RUN, NO_CLAIM, UNUSABLE)
# What a setting lists, where it is numbers alone.
LISTS = {
    "Tables 1, 3": "n_s, n_d, n_f, m",
    "Fig. 3, 12": "n_s, n_d, n_f, m",
    "A.6": "points, batch, width, rate, seed",
}
HEADER = ("what", "paper", "here", "verdict", "our run")


def introduction(rows: Sequence[Row]) -> str:
    """How many claims there are, and what became of them."""
    claims = len({row.claim for row in rows if row.claim is not None})
    counts = Counter(row.verdict for row in rows)
    told = ", ".join(f"{counts[one]} {one}" for one in VERDICTS if counts[one])
    return (
        f"A row for every number and every curve of both papers that this project tries to "
        f"reproduce: {claims} claims, {len(rows)} rows, of which {told}. A claim that several "
        "records speak of, or that was measured in several ways, has several rows."
    )


def sections(rows: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """A key of `PAPERS`, place and rows, in the order of the claims; what has none comes last."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        key = (row.verdict, "") if row.claim is None else (row.claim.paper, row.claim.place)
        found.setdefault(key, []).append(row)
    for paper in PAPERS:
        for (own, place), mine in found.items():
            if own == paper:
                yield paper, place, mine


def what(row: Row) -> tuple[str, str]:
    """Model and quantity of a row, and below them the setting."""
    if row.claim is None:
        return (row.record.name if row.record else ""), "a record"
    setting, listed = row.claim.setting, LISTS.get(row.claim.place)
    if listed and setting[0].isdigit():
        setting = f"{listed} = {setting.replace(',', ', ')}"
    return f"{row.claim.model}: {row.claim.quantity}", setting


def number(value: float | str, stderr: float | None = None) -> str:
    """A value as it is shown, with its error."""
    if isinstance(value, str):
        return value
    digits = 0 if abs(value) >= 100 else 4 if abs(value) < 1 else 2
    text = f"{value:,.{digits}f}"
    if stderr is None:
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{text} ± {stderr:,.{digits}f}"


def figure(path: Path) -> str:
    """What a picture is called: by its run too, where it is not among the committed ones."""
    return path.stem if path.parent == FIGURES else f"{path.parent.name}/{path.stem}"


def paper(row: Row) -> str:
    return "" if row.claim is None else number(row.claim.value)


def here(row: Row) -> tuple[str, str]:
    """Our value, and below it how it was measured."""
    if row.evidence is None:
        return (row.record.trouble if row.record else ""), ""
    return number(row.evidence.value, row.evidence.stderr), row.evidence.measured


def run(row: Row) -> tuple[str, str]:
    """What was run and on what, and below it how that differs from the paper's."""
    differs = row.evidence.differs if row.evidence is not None else ""
    note = row.record.note if row.record is not None else ""
    return row.size, "; ".join(filter(None, (differs, note)))
