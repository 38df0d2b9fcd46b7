"""Sharpness while a function is learned (paper B, Fig. 3), from run records alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.paper import CLAIMS, claim
from experiments.reports.length.lines import mean_and_error
from experiments.run import report
from experiments.run.evidence import Evidence
from experiments.run.record import RunRecord

LEARNED = 0.01  # loss at which curves are aligned
BEGUN = 0.9  # of its first value: the loss has begun to fall when it is below this for good
PANELS = {
    "test_loss": "loss (labels 0, 1)",
    "sharpness": "sharpness",
    "blowup": "layer-norm blow-up",
    "norm": "parameter norm",
}


def curves(record: RunRecord) -> dict[float, list[Mapping[str, Any]]]:
    """For each decay the curves of its networks: steps and fields."""
    lines, decays = record.read_metrics(), record.read("result.json")["decays"]
    found: dict[float, list[Mapping[str, Any]]] = {}
    for number, decay in decays.items():
        mine = [line for line in lines if line["seed"] == int(number)]
        fields = {
            field: np.array([np.nan if line[field] is None else line[field] for line in mine])
            for field in (*PANELS, "sharpness_slack")
        }
        found.setdefault(decay, []).append({"step": np.array([m["step"] for m in mine]), **fields})
    return found


def learned_at(curve: Mapping[str, Any]) -> int | None:
    """Where the loss is first below 0.01, as a place in the curve; None if nowhere."""
    places = np.flatnonzero(curve["test_loss"] < LEARNED)
    return int(places[0]) if len(places) else None


def begun_at(curve: Mapping[str, Any], end: int) -> int:
    """Where the fall to 0.01 began: after the last place above 0.9 of the loss at chance, 1/4."""
    above = np.flatnonzero(curve["test_loss"][: end + 1] > BEGUN / 4)
    return int(above[-1]) if len(above) else 0


def printed(decay: float) -> str:
    """The paper's steps from the start of the drop to the loss of 0.01."""
    for one in CLAIMS:
        if one.place == "Fig. 3" and one.setting.endswith(f"decay {decay:g}"):
            return f"{one.value:.0f}"
    return "-"


def summary(record: RunRecord) -> str:
    """The table: how many learned it, when, and sharpness before, at its peak and at the end."""
    rows, slack = [], np.inf
    for decay, found in curves(record).items():
        ends = [learned_at(curve) for curve in found]
        known = [(c, end) for c, end in zip(found, ends, strict=True) if end is not None]
        slack = min(slack, *(curve["sharpness_slack"].min() for curve in found))
        row = [f"{decay:g}", f"{len(known)} of {len(found)}"]
        if known:
            steps = [c["step"][end] for c, end in known]
            drop = [c["step"][end] - c["step"][begun_at(c, end)] for c, end in known]
            before = [c["sharpness"][begun_at(c, end)] for c, end in known]
            peak = [c["sharpness"].max() for c, _ in known]
            last = [c["sharpness"][-1] for c, _ in known]
            row += [f"{np.mean(steps):.0f}", f"{np.mean(drop):.0f}", printed(decay)]
            row += [f"{np.mean(part):.3g}" for part in (before, peak, last)]
        else:
            row += ["-"] * 2 + [printed(decay)] + ["-"] * 3
        rows.append(row)
    header = ["decay", "learned", "at step", "drop lasts", "paper (n = 25)", "sharpness before",
              "peak", "end"]  # fmt: skip
    text = report.table(header, rows)
    return f"{text}\nleast E(f-g)² - bound over networks, steps and draws: {slack:.2g}"


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run: each decay's networks, aligned where the loss is first 0.01.

    The mean is drawn where at least a quarter of them have a value, as in the paper. Networks
    that did not learn it are dashed, and end at 0.
    """
    found = curves(record)
    drawn, panels = report.figure(12, 3.2, ncols=len(PANELS))
    for number, (decay, networks) in enumerate(found.items()):
        ends = [learned_at(curve) for curve in networks]
        color = f"C{number}"
        for (field, title), panel in zip(PANELS.items(), panels, strict=True):
            shifted: dict[int, list[float]] = {}
            for curve, end in zip(networks, ends, strict=True):
                if end is None:
                    steps = curve["step"] - curve["step"][-1]
                    style = {"linestyle": "--", "linewidth": 0.7, "alpha": 0.6}
                    panel.plot(steps, curve[field], color=color, **style)
                    continue
                steps = curve["step"] - curve["step"][end]
                panel.plot(steps, curve[field], color=color, linewidth=0.5, alpha=0.3)
                for step, value in zip(steps, curve[field], strict=True):
                    shifted.setdefault(int(step), []).append(value)
            kept = sorted(s for s, v in shifted.items() if 4 * len(v) >= len(networks))
            label = f"decay {decay:g}: {len(ends) - ends.count(None)} of {len(ends)} learned it"
            panel.plot(kept, [np.mean(shifted[s]) for s in kept], color=color, label=label)
            panel.set(title=title, xlabel="steps from a loss of 0.01")
            if field == "test_loss":
                panel.set_yscale("log")
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(
        handles, labels, loc="outside lower center", ncols=4, fontsize=8,
        title="dashed: did not learn it, aligned at their last step", title_fontsize=8,
    )  # fmt: skip
    report.save(drawn, record.directory / "dynamics.png")


def evidence(record: RunRecord) -> list[Evidence]:
    """Fig. 3: sharpness about the fall of the loss, and how long the fall takes."""
    config, found, ups = record.read("config.json"), [], []
    if config["function"] != "parity":
        return []
    differs = (
        f"n = {config['bits']}, width {config['width']}, batch {config['batch_size']}, rate "
        f"{config['learning_rate']:g}, {config['steps']} steps, {config['seeds']} seeds"
    )
    for decay, networks in curves(record).items():
        drops = []
        for curve in networks:
            end = learned_at(curve)
            if end is None:
                continue
            begun = begun_at(curve, end)
            drops.append(curve["step"][end] - curve["step"][begun])
            sharpness = curve["sharpness"]
            peak = sharpness[begun:].max()
            ups.append((peak > 2 * sharpness[begun], sharpness[-1] < peak))
        if drops and printed(decay) != "-":
            quantity = "steps from the start of the drop to a loss of 0.01"
            at = claim("Fig. 3", "PARITY", quantity, setting=f"n = 25, decay {decay:g}", paper="B")
            found.append(Evidence(at, *mean_and_error(drops), differs=differs))
    if ups:
        rose, fell = np.sum(ups, axis=0)
        at = claim("Fig. 3", "PARITY", "sharpness when the loss drops", paper="B")
        said = f"doubles in {rose} of {len(ups)} networks, falls afterwards in {fell}"
        both = bool(min(rose, fell) > len(ups) / 2)
        found.append(Evidence(at, said, holds=both, differs=differs))
    return found
