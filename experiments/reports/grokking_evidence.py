"""What a grokking run says of paper A's claims (Section 7).

The phases are read from every measurement of the run (`jaxsens.measures.phases`); a record that is
kept small holds them as ``condensed.json``.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.paper import claim
from experiments.run.curve import Lines, curve
from experiments.run.evidence import Evidence
from experiments.run.record import RunRecord

if TYPE_CHECKING:
    from jaxsens.measures.phases import Phases

# The fields that are sensitivities, by what was perturbed.
PERTURBED = {
    "sensitivity": "both numbers at once",
    "sensitivity_one": "one number at a time",
}
MODEL = "one-layer transformer"
FLIPS = 1e-3  # a sensitivity of a few flips in all, below which ratios are of chance
RISE = 1.5  # the factor by which the phases' rule calls a curve risen
EDGES = {
    "lowest": "epoch at which memorisation ends",
    "peak": "epoch at which sensitivity peaks",
    "jump": "epoch of the jump in test accuracy",
}


def phases_of(lines: Lines, sensitivity: str) -> "dict[int, Phases]":
    """The phases of each seed by one of the sensitivities."""
    from jaxsens.measures.phases import grokking_phases  # and JAX, which the rest does without

    found = {}
    for seed in sorted({line["seed"] for line in lines}):
        fields = ("train_accuracy", "test_accuracy", sensitivity)
        curves = [curve(lines, field, seed=seed) for field in fields]
        found[seed] = grokking_phases(curves[0][0], *(values[0] for _, values in curves))
    return found


def condense(record: RunRecord) -> dict[str, Any]:
    """For each sensitivity and seed: the phases, and what smoothed curves do in and after them."""
    lines = record.read_metrics()
    return {
        field: {
            str(seed): {**found._asdict(), **_curves(lines, field, seed, found)}
            for seed, found in phases_of(lines, field).items()
        }
        for field in PERTURBED
        if field in lines[0]
    }


def _curves(lines: Lines, field: str, seed: int, found: "Phases") -> dict[str, Any]:
    """Smoothed sensitivity where the phases change, the bump after the jump, the weight norm.

    ``bump`` and ``decline`` are of the smoothed sensitivity after the jump, see :func:`bump`;
    ``norm_rise`` is the largest ratio of a later weight norm to an earlier one, from memorisation
    to the jump.
    """
    from jaxsens.measures.phases import running_median

    epochs, values = curve(lines, field, seed=seed)
    smooth = running_median(values[0], 15)
    at = {
        f"at_{name}": float(smooth[np.searchsorted(epochs, epoch)])
        for name, epoch in found._asdict().items()
        if epoch is not None
    }
    norms = curve(lines, "weight_norm", seed=seed)[1][0]
    told: dict[str, Any] = {**at, "end": float(smooth[-1]), "epochs": int(epochs[-1])}
    if found.memorised is not None:
        middle = (epochs >= found.memorised) & (epochs <= (found.jump or epochs[-1]))
        told["norm_rise"] = float((norms[middle] / np.minimum.accumulate(norms[middle])).max())
    if found.jump is not None:
        told["bump"], told["decline"] = bump(smooth[epochs >= found.jump])
    return told


def bump(values: np.ndarray) -> tuple[float, float]:
    """By what factors the clearest peak stands above the lowest value before it, and after it.

    The clearest is where the smaller of both is largest: a rise at the end alone is no bump. What
    is below 0.001 counts as 0.001.
    """
    values = np.maximum(values, FLIPS)
    rise = values / np.minimum.accumulate(values)
    decline = values / np.minimum.accumulate(values[::-1])[::-1]
    peak = np.minimum(rise, decline).argmax()
    return float(rise[peak]), float(decline[peak])


def evidence(record: RunRecord) -> list[Evidence]:
    """The phases beside the paper's epochs, for each way of perturbing; standard errors by seed."""
    kept = record.directory / "condensed.json"
    condensed = record.read("condensed.json") if kept.exists() else condense(record)
    config, found = record.read("config.json"), []
    start = config.get("start", "nanda")
    for field, seeds in condensed.items():
        told = list(seeds.values())
        length = min(one["epochs"] for one in told)
        differs = "" if start == "published" else "from smaller weights, betas (0.9, 0.98); "
        differs += f"{len(told)} of 5 seeds, {length:,} of 20,000 epochs"
        settings: dict[str, Any] = {"differs": differs, "measured": PERTURBED[field]}
        for name, quantity in EDGES.items():
            reached = [one[name] for one in told if one[name] is not None]
            asked = claim("Section 7", MODEL, quantity)
            if name == "peak" and any(1.5 * at > length for at in reached):
                continue  # it may be rising still
            if len(reached) == len(told):
                error = np.std(reached, ddof=1) / np.sqrt(len(reached)) if len(told) > 1 else None
                found.append(Evidence(asked, float(np.mean(reached)), error, **settings))
            elif length >= 20_000 or (name != "jump" and all(one["jump"] for one in told)):
                said = f"no such epoch in {len(told) - len(reached)} of {len(told)} seeds"
                found.append(Evidence(asked, said, holds=False, **settings))
        found += _words(told, settings)
    return found


def _words(told: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[Evidence]:
    """The claims in words."""
    risen = [one["peak"] is not None for one in told]
    jumped = [one["jump"] is not None for one in told]
    fallen = [one["fall"] is not None for one in told]
    before = [up and down and one["fall"] <= (one["jump"] or one["epochs"])
              for up, down, one in zip(risen, fallen, told, strict=True)]  # fmt: skip
    text = (
        f"rises by {RISE:g} or more in {sum(risen)} of {len(told)} seeds, has halved again "
        f"before the jump in {sum(before)}"
    )
    if all(risen):
        text += f" ({_span(told, 'at_lowest')} at its lowest, {_span(told, 'at_peak')} at its peak)"
    holds = False if not any(risen) else True if all(before) else None if not all(jumped) else False
    found = [_word("sensitivity while test accuracy is flat", text, holds, settings)]
    falls = [one["at_lowest"] < one["at_memorised"] for one in told if "at_lowest" in one]
    if len(falls) == len(told):
        text = f"from {_span(told, 'at_memorised')} when memorised to {_span(told, 'at_lowest')}"
        found.append(_word("sensitivity when memorising", text, all(falls), settings))
    norms = [one.get("norm_rise", np.nan) for one in told]
    text = f"rises by a factor of {max(norms):.2f} at most between memorising and the jump"
    found.append(_word("weight norm", text, max(norms) < RISE, settings))
    if all(jumped):
        bumps = [one["bump"] >= RISE and one["decline"] >= RISE for one in told]
        text = f"a bump and a decline by {RISE:g} or more in {sum(bumps)} of {len(told)} seeds"
        holds = all(bumps) or (False if not any(bumps) else None)
        found.append(_word("sensitivity after the jump", text, holds, settings))
    return found


def _word(quantity: str, text: str, holds: bool | None, settings: Mapping[str, Any]) -> Evidence:
    return Evidence(claim("Section 7", MODEL, quantity), text, holds=holds, **settings)


def _span(told: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [one[name] for one in told]
    return f"{min(values):.3f} to {max(values):.3f}"
