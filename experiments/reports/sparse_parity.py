"""Table and figure of the sparse parity experiment, from run records alone."""

from experiments.run import report
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
            ]
        )
    goal = config["relevant"] / config["bits"]
    header = ["setting", "epochs", "train acc. %", "test acc. %"]
    return report.table([*header, f"sensitivity (p/d = {goal:.4g})", "Fourier weight"], rows)


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
