"""Layer-norm blow-up against parameter norm (paper B, Fig. 2), from run records alone."""

import numpy as np

from experiments.paper import claim
from experiments.reports.length.lines import fitted_slope, groups, slope, values
from experiments.run import report
from experiments.run.evidence import Evidence
from experiments.run.record import RunRecord


def summary(record: RunRecord) -> str:
    """The table: median blow-up and norm by function and length, and how they grow with n."""
    final = record.read("result.json")["final"]
    rows = []
    for (function, bits), lines in groups(final).items():
        fitted = [line for line in lines if line["fitted"]]
        shown = fitted or lines
        form = "{:.3g} ({:.3g} to {:.3g})" if fitted else "[{:.3g} ({:.3g} to {:.3g})]"
        quartiles = [
            form.format(*np.quantile(values(shown, field), (0.5, 0.25, 0.75)))
            for field in ("blowup", "norm", "sharpness")
        ]
        rows.append([function, str(bits), f"{len(fitted)} of {len(lines)}", *quartiles])
    text = report.table(["function", "n", "fitted", "blow-up", "norm", "sharpness"], rows)
    for function in dict.fromkeys(line["function"] for line in final):
        fitted = [line for line in final if line["function"] == function and line["fitted"]]
        if len(fitted) < 3:
            text += f"\n{function}: {len(fitted)} runs fitted, too few for a slope"
            continue
        n = values(fitted, "bits")
        blowup, norm = (np.log(values(fitted, field)) for field in ("blowup", "norm"))
        said = [
            f"{name} {value:+.4f} ± {error:.4f}"
            for name, (value, error) in {
                "log blow-up": slope(n, blowup),
                "log norm": slope(n, norm),
            }.items()
        ]
        text += f"\n{function}: slope with n over {len(fitted)} fitted runs, {', '.join(said)}"
    return f"{text}\nmedian (quartiles) of the runs that fitted; in brackets of all where none did"


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run from its record: a panel for each function."""
    final = record.read("result.json")["final"]
    functions = list(dict.fromkeys(line["function"] for line in final))
    drawn, panels = report.figure(
        2.9 * len(functions) + 0.9, 3.2, ncols=len(functions), squeeze=False, sharey=True
    )
    lengths = [line["bits"] for line in final]
    shades = {"vmin": min(lengths), "vmax": max(max(lengths), min(lengths) + 1), "cmap": "viridis"}
    for function, panel in zip(functions, panels[0], strict=True):
        lines = [line for line in final if line["function"] == function]
        for fitted in (False, True):
            chosen = [line for line in lines if line["fitted"] is fitted]
            marks = panel.scatter(
                values(chosen, "norm"), values(chosen, "blowup"), c=values(chosen, "bits"),
                s=14 if fitted else 10, marker="o" if fitted else "x", linewidth=0.8, **shades,
            )  # fmt: skip
        missing = sum(not line["fitted"] for line in lines)
        panel.set(xlabel="parameter norm", yscale="log")
        panel.set_title(f"{function}\n{missing} of {len(lines)} did not fit (×)", fontsize=9)
    panels[0, 0].set_ylabel("layer-norm blow-up")
    drawn.colorbar(marks, ax=list(panels[0]), label="bits n")
    report.save(drawn, record.directory / "tradeoff.png")


def evidence(record: RunRecord) -> list[Evidence]:
    """Fig. 2: whether blow-up or norm grows with n, over the runs that fitted."""
    config, final = record.read("config.json"), record.read("result.json")["final"]
    differs = (
        f"n = {', '.join(map(str, config['lengths']))}, width {config['width']}, batch "
        f"{config['batch_size']}; {config['seeds']} runs a function and length"
    )
    grows: dict[str, list[bool]] = {}
    said: dict[str, list[str]] = {}
    for function in ("parity", "majority", "first", "mean"):
        model = "PARITY" if function == "parity" else "MAJORITY, FIRST, MEAN"
        for field in ("blowup", "norm"):
            value, error = fitted_slope(final, function, field, log=True)
            if np.isfinite(error):
                grows.setdefault(model, []).append(bool(value > 2 * error))
                said.setdefault(model, []).append(
                    f"{function}, log {field}: {value:+.4f} ± {error:.4f} a bit"
                )
    return [
        Evidence(
            claim("Fig. 2", model, "layer-norm blow-up or parameter norm", paper="B"),
            "; ".join(said[model]),
            holds=any(parts) if model == "PARITY" else not any(parts),
            differs=differs,
        )
        for model, parts in grows.items()
    ]
