"""Sharpness, blow-up, norm and sensitivity against the number of bits (paper B, Fig. 1, 5 to 8)."""

import numpy as np

from experiments.paper import claim
from experiments.reports.length.lines import (
    Lines,
    fitted_slope,
    groups,
    hardly_changes,
    mean_and_error,
    values,
)
from experiments.run import report
from experiments.run.evidence import Evidence, shown
from experiments.run.record import RunRecord

ROUNDING = 1e-6
PANELS = {
    "sharpness": "sharpness",
    "average_sensitivity": "average sensitivity",
    "blowup": "layer-norm blow-up",
    "norm": "parameter norm",
    "sharpness_slack": "least E(f-g)² - bound over draws",
    "theorem_4": "max s(f,x) / (√(n log n) Blowup(x)²)",
}


def summary(record: RunRecord) -> str:
    """The table: for each function and length how many have fitted, and the means of those.

    Where none has, the means of all of them, in brackets.
    """
    rows, fields = [], ("sharpness", "sharpness_bound", "average_sensitivity")
    final = record.read("result.json")["final"]
    for (function, bits), lines in groups(final).items():
        fitted = [line for line in lines if line["fitted"]]
        shown, form = (fitted, "{}") if fitted else (lines, "({})")

        def said(field: str, digits: str, shown: Lines = shown, form: str = form) -> str:
            mean, several = values(shown, field).mean(), len(shown) > 1
            spread = f" ± {values(shown, field).std(ddof=1):{digits}}" if several else ""
            return form.format(f"{mean:{digits}}{spread}")

        rows.append(
            [
                function,
                str(bits),
                f"{len(fitted)} of {len(lines)}",
                f"{np.mean([line['step'] for line in lines]):.0f}",
                said("test_loss", ".2g"),
                *[said(field, ".3g") for field in (*fields, "blowup", "norm", "theorem_4")],
            ]
        )
    header = ["function", "n", "fitted", "steps", "loss", "sharpness", "bound", "as_n",
              "blow-up", "norm", "Thm 4"]  # fmt: skip
    text = report.table(header, rows)
    least = min(line["sharpness_slack"] for line in final)
    return (
        f"{text}\n± is the standard deviation over seeds; sharpness in ±1 units. The inequality "
        f"E(f-g)² >= (√(as f/n) - √(as g/n))² holds with at least {least:.2g} to spare for every "
        f"network, batch and draw ({len(final)} networks)"
    )


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run from its record; hollow marks are networks that did not fit."""
    result = record.read("result.json")
    found = groups(result["final"])
    functions = list(dict.fromkeys(name for name, _ in found))
    drawn, grid = report.figure(11, 6, nrows=2, ncols=3)
    panels = dict(zip(PANELS, grid.ravel(), strict=True))
    for number, function in enumerate(functions):
        color = f"C{number}"
        lengths = [n for name, n in found if name == function]
        for field, panel in panels.items():
            means = []
            for n in lengths:
                lines = found[function, n]
                for fitted in (True, False):
                    chosen = [line for line in lines if line["fitted"] is fitted]
                    panel.plot(
                        [n] * len(chosen), values(chosen, field), "o", markersize=3.5, color=color,
                        markerfacecolor=color if fitted else "none", alpha=0.7,
                    )  # fmt: skip
                fits = [line for line in lines if line["fitted"]]
                means.append(values(fits, field).mean() if fits else np.nan)
            panel.plot(lengths, means, color=color, linewidth=1, label=function)
        known = [
            (line["bits"], line["average_sensitivity"])
            for line in result["reference"]
            if line["function"] == function and line["average_sensitivity"] is not None
        ]
        if known:
            n, exact = np.array(known, float).T
            style = {"color": color, "linestyle": ":", "linewidth": 1}
            panels["sharpness"].plot(n, exact / n, **style)
            panels["average_sensitivity"].plot(n, exact, **style)
    for field, title in PANELS.items():
        panels[field].set(xlabel="bits n", title=title)
        if field not in ("sharpness_slack", "norm"):
            panels[field].set_yscale("log")
    panels["sharpness_slack"].axhline(0, color="k", linewidth=0.6)
    panels["sharpness_slack"].set_yscale("symlog", linthresh=1e-6)
    missing = sum(not line["fitted"] for line in result["final"])
    panels["sharpness"].plot([], [], "k:", linewidth=1, label="as_n(f) / n, asymptotic; exact as_n")
    panels["sharpness"].plot(
        [], [], "ko", markerfacecolor="none", markersize=3.5,
        label=f"did not fit: {missing} of {len(result['final'])}",
    )  # fmt: skip
    handles, labels = panels["sharpness"].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8)
    report.save(drawn, record.directory / "scaling.png")


def evidence(record: RunRecord) -> list[Evidence]:
    """Fig. 1 and 5 to 8, Theorems 4 and 6, over the networks that fitted."""
    config, final = record.read("config.json"), record.read("result.json")["final"]
    fitted = [line for line in final if line["fitted"]]
    span = max(config["lengths"]) - min(config["lengths"])
    differs = (
        f"n = {min(config['lengths'])} to {max(config['lengths'])}, width {config['width']}, "
        f"batch {config['batch_size']}, rate {config['learning_rate']:g}, at most "
        f"{config['steps']} steps" + (", stopped when fitted" if config["stop"] else "")
    )
    found = []
    for function in dict.fromkeys(line["function"] for line in fitted):
        value, error = fitted_slope(final, function, "sharpness")
        if not np.isfinite(error) or function not in ("parity", "majority", "first", "mean"):
            continue
        said = f"slope {value:+.5f} ± {error:.5f} a bit"
        if function != "parity":
            same = claim("Fig. 1, 5-8", function.upper(), "sharpness with n", paper="B")
            flat = hardly_changes(value, error, span)
            found.append(Evidence(same, said, holds=flat, differs=differs))
            continue
        rises = claim("Fig. 1", "PARITY", "sharpness with n", paper="B")
        found.append(Evidence(rises, said, holds=shown(value, error), differs=differs))
        longest = max(line["bits"] for line in fitted if line["function"] == "parity")
        ends = [line for line in fitted if (line["function"], line["bits"]) == ("parity", longest)]
        ours = mean_and_error(values(ends, "sharpness"))
        at = claim("Fig. 1", "PARITY", "sharpness at n = 30", paper="B")
        where = f"at n = {longest}, the longest that fitted; {differs}"
        found.append(Evidence(at, *ours, differs=where))
    if not fitted:
        return found
    least = min(line["sharpness_slack"] for line in final)
    found.append(
        Evidence(
            claim("Theorem 6", "any transformer", "sharpness", paper="B"),
            f"least E(f-g)² - (√(as f/n) - √(as g/n))² over networks and draws: {least:.2g}",
            holds=least > -ROUNDING,
            differs="our own inequality, exact at finite n for every network and draw",
        )
    )
    value, error = fitted_slope(final, None, "theorem_4")
    largest = np.nanmax(values(fitted, "theorem_4"))
    found.append(
        Evidence(
            claim("Theorem 4", "any transformer", "layer-norm blow-up", paper="B"),
            f"max s(f,x) / (√(n log n) Blowup(x)²) at most {largest:.3g}, slope {value:+.2g} ± "
            f"{error:.2g} a bit",
            holds=bool(value <= 2 * error) if np.isfinite(error) else None,
            differs=f"whether it rises with n; {differs}",
        )
    )
    return found
