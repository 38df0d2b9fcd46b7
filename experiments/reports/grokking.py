"""Table and figure of the grokking experiment, from run records alone."""

from typing import TYPE_CHECKING

import numpy as np

from experiments.reports.grokking_evidence import PERTURBED, phases_of
from experiments.reports.grokking_evidence import condense as condense
from experiments.reports.grokking_evidence import evidence as evidence
from experiments.run import report
from experiments.run.record import RunRecord

if TYPE_CHECKING:
    from jaxsens.measures.phases import Phases

# The Fourier measures of Nanda et al., and how a figure calls them.
MEASURES = {
    "restricted_loss": "restricted",
    "excluded_loss": "excluded",
    "embedding_gini": "Gini",
}


def all_phases(record: RunRecord) -> "dict[int, Phases]":
    """The phases of each seed."""
    return phases_of(record.read_metrics(), "sensitivity")


def summary(record: RunRecord) -> str:
    """The table: for each seed the epochs of the phases, and what moved first."""
    from jaxsens.measures.phases import Phases, half_way  # and JAX, which reading does without

    result, rows, leads = record.read("result.json"), [], []
    show = lambda value: "-" if value is None else str(value)  # noqa: E731
    for seed, found in all_phases(record).items():
        final = next(line for line in result["final"] if line["seed"] == seed)
        halves = []
        for field in MEASURES:
            epochs, values = report.curve(result["progress"], field, seed=seed)
            later = epochs >= (found.memorised or 0)
            halves.append(half_way(epochs[later], values[0, later]))
        rows.append(
            [
                str(seed),
                f"{100 * final['train_accuracy']:.1f} / {100 * final['test_accuracy']:.1f}",
                f"{final['sensitivity']:.4f}",
                *map(show, found),
                show(found.lead),
                *map(show, halves),
            ]
        )
        leads += [found.lead] if found.lead is not None else []
    header = ["seed", "train / test acc. %", "sensitivity", *Phases._fields, "lead"]
    text = report.table([*header, *[f"half of {name}" for name in MEASURES.values()]], rows)
    if leads:
        spread = f" ± {np.std(leads, ddof=1):.0f} (standard deviation)" if len(leads) > 1 else ""
        text += f"\nlead: {np.mean(leads):.0f}{spread} epochs, {len(leads)} of {len(rows)} seeds"
    return text


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run from its record; the phases shaded are those of the first seed."""
    from jaxsens.measures.phases import running_median

    lines = record.read_metrics()
    seeds = sorted({line["seed"] for line in lines})
    # The Fourier measures come with the result, which an unfinished run has not got.
    finished = (record.directory / "result.json").exists()
    progress = record.read("result.json")["progress"] if finished else []
    kept = [line for line in progress if line["epoch"] > 0]
    shown = {
        "accuracy": {"train_accuracy": "train", "test_accuracy": "test"},
        "sensitivity": {name: label for name, label in PERTURBED.items() if name in lines[0]},
        "weight norm": {"weight_norm": "norm"},
        "cross-entropy": {
            "train_loss": "train",
            "test_loss": "test",
            "restricted_loss": "restricted to key frequencies (all pairs)",
            "excluded_loss": "without key frequencies (train)",
        },
        "Gini coefficient of\nembedding frequencies": {"embedding_gini": "Gini"},
    }
    shown = {
        title: {f: label for f, label in curves.items() if kept or f not in MEASURES}
        for title, curves in shown.items()
    }
    shown = {title: curves for title, curves in shown.items() if curves}
    if kept and "sharpness" in kept[0]:  # earlier records have none
        shown["sharpness\n(noise of std 0.02)"] = {"sharpness": "train"}
    figure, panels = report.figure(7.5, 2 * len(shown), nrows=len(shown), sharex=True)
    for panel, (title, curves) in zip(panels, shown.items(), strict=True):
        for number, (field, label) in enumerate(curves.items()):
            source = kept if field in (*MEASURES, "sharpness") else lines
            for i, seed in enumerate(seeds):
                epochs, values = report.curve(source, field, seed=seed)
                style = {"color": f"C{number}", "linewidth": 0.8, "alpha": 1.0 if i == 0 else 0.4}
                if field in PERTURBED:
                    panel.plot(epochs, values[0], color=style["color"], linewidth=0.4, alpha=0.3)
                    values = running_median(values[0], 15)[None]
                panel.plot(epochs, values[0], label=label if i == 0 else None, **style)
        panel.set_ylabel(title)
        if len(curves) > 1:
            panel.legend(fontsize=7, loc="center right" if title == "accuracy" else "lower left")
    panels[1].set_yscale("log")
    panels[3].set_yscale("log")
    found, end = all_phases(record)[seeds[0]], lines[-1]["epoch"]
    if found.peak is None:  # sensitivity falls throughout: nothing divides the time to the jump
        middle = {"test accuracy low": found.jump or end}
    else:
        middle = {"circuit formation": found.peak, "clean-up": found.jump or end}
    edges = {
        "memorisation": found.lowest or found.memorised or end,
        **middle,
        "after the jump": end,
    }
    start = 0
    for i, (name, stop) in enumerate(edges.items()):
        for panel in panels if stop > start else []:
            panel.axvspan(start, stop, color=f"C{4 + i}", alpha=0.12, linewidth=0)
        if stop - start > 0.1 * end:
            where = {"ha": "center", "transform": panels[0].get_xaxis_transform()}
            panels[0].text((start + stop) / 2, 1.04, name, fontsize=7, **where)
        start = max(start, stop)
    for panel in panels[:2] if found.fall is not None else []:
        panel.axvline(found.fall, color="k", linewidth=0.7, linestyle="--")
    panels[-1].set_xlabel("epoch (a full-batch step)")
    report.save(figure, record.directory / "curves.png")
