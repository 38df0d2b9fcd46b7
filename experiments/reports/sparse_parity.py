"""Table and figure of the sparse parity experiment, from run records alone."""

import numpy as np

from experiments.paper import PARITIES, claim
from experiments.run import report
from experiments.run.evidence import Evidence, shown
from experiments.run.record import RunRecord


def summary(record: RunRecord) -> str:
    """The table: setting, epochs, accuracies, sensitivity and Fourier weight ± standard error."""
    config, rows = record.read("config.json"), []
    for line in record.read("result.json")["final"]:
        exact = line.get("sensitivity_exact")
        rows.append(
            [
                f"{line['model']}, seed {line['seed']}",
                str(line["epoch"]),
                *[f"{100 * line[f'{part}_accuracy']:.2f}" for part in ("train", "test")],
                f"{line['sensitivity']:.4f} ± {line['sensitivity_stderr']:.4f}"
                + ("" if exact is None else f" (exact {exact:.4f})"),
                f"{line['fourier_weight']:.3f} ± {line['fourier_weight_stderr']:.3f}",
                f"{line['sharpness']:.3g}, {line['blowup']:.3g}" if "sharpness" in line else "-",
            ]
        )
    goal = config["relevant"] / config["bits"]
    header = ["setting", "epochs", "train acc. %", "test acc. %"]
    return report.table(
        [*header, f"sensitivity (p/d = {goal:.4g})", "Fourier weight", "sharpness, blow-up"], rows
    )


def evidence(record: RunRecord) -> list[Evidence]:
    """Where sensitivity and accuracy end, and whether sensitivity rises before accuracy does.

    It rises where, of the evaluations before test accuracy first exceeds 55 %, the last third is
    above the first by more than two standard errors.
    """
    config, lines, found = record.read("config.json"), record.read_metrics(), []
    settings = {_named(text): text for text in PARITIES}
    differs = [f"{key} {config[key]}" for key in ("bits_per_token", "dropout") if key in config]
    other = "" if (config["bits"], config["relevant"]) == (40, 4) else "another d and p, "
    for line in record.read("result.json")["final"]:
        text = settings.get((line["model"], line["seed"]))
        if text is None or other:
            continue
        how = f"{line['epoch']} epochs, {', '.join(differs).replace('_', ' ')}"
        find = lambda quantity, text=text: claim(  # noqa: E731
            "A.6", "two-layer transformer", quantity, setting=text
        )
        value, error = line["sensitivity"], line["sensitivity_stderr"]
        found.append(Evidence(find("final sensitivity / d"), value, error, differs=how))
        accuracy = 100 * line["test_accuracy"]
        found.append(Evidence(find("final test accuracy, %"), accuracy, differs=how))
        mine = [x for x in lines if (x["model"], x["seed"]) == (line["model"], line["seed"])]
        place = next((i for i, x in enumerate(mine) if x["test_accuracy"] > 0.55), len(mine))
        flat = mine[:place]
        third = len(flat) // 3
        if third:
            first, last = (
                (np.mean([x["sensitivity"] for x in part]),
                 np.sqrt(np.sum(np.square([x["sensitivity_stderr"] for x in part]))) / third)
                for part in (flat[:third], flat[-third:])
            )  # fmt: skip
            said = f"from {first[0]:.3f} to {last[0]:.3f} in {flat[-1]['epoch']} epochs"
            told = shown(last[0] - first[0], float(np.hypot(first[1], last[1])))
            asked = find("sensitivity while accuracy is 50 %")
            found.append(Evidence(asked, said, None, told, how))
    return found


def _named(setting: str) -> tuple[str, int]:
    """Model and seed, as a record names them, of a setting as ``--setting`` takes it."""
    points, batch, width, rate, seed = setting.split(",")
    return f"{points} points, batch {batch}, width {width}, lr {float(rate):g}", int(seed)


def draw(record: RunRecord) -> None:
    """Redraw the figure of a run from its record."""
    config, lines = record.read("config.json"), record.read_metrics()
    runs = list(dict.fromkeys((line["model"], line["seed"]) for line in lines))
    fields = {
        "test_accuracy": "test accuracy",
        "sensitivity": "sensitivity / d",
        "fourier_weight": "Fourier weight on the parity",
    }
    figure, panels = report.figure(3.2 * len(fields), 3.4, ncols=len(fields))
    for panel, (field, title) in zip(panels, fields.items(), strict=True):
        for i, (name, seed) in enumerate(runs):
            epochs, values = report.curve(lines, field, model=name, seed=seed)
            (drawn,) = panel.plot(epochs, values[0], color=f"C{i}", label=f"{name}, seed {seed}")
            if f"{field}_stderr" in lines[0]:
                _, errors = report.curve(lines, f"{field}_stderr", model=name, seed=seed)
                panel.fill_between(
                    epochs,
                    values[0] - 1.96 * errors[0],
                    values[0] + 1.96 * errors[0],
                    color=drawn.get_color(),
                    alpha=0.25,
                    linewidth=0,
                )
        panel.set(xlabel="epoch", title=title)
    panels[1].axhline(config["relevant"] / config["bits"], color="k", linewidth=0.8, linestyle=":")
    panels[0].set_ylim(0.45, 1.02)
    panels[1].set_ylim(bottom=0)
    panels[2].set_ylim(-0.05, 1.05)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7)
    report.save(figure, record.directory / "curves.png")
