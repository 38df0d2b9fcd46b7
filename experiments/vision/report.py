"""Tables and figures of the vision experiments, from run records alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.run import report
from experiments.run.curve import Lines, by_model
from experiments.run.equal import at_accuracy, common_accuracy
from experiments.run.record import RunRecord
from experiments.vision.evidence import evidence as evidence


def summary(record: RunRecord) -> str:
    """A line for each network: accuracies in percent, sensitivities ± standard error.

    "At equal accuracy" is the sensitivity where the network first had the training accuracy that
    all of them reach, between two evaluations by a straight line. Below stand the differences of
    networks, paired: on the same images, patches and noise.
    """
    result, lines = record.read("result.json"), record.read_metrics()
    models, finals = by_model(lines), by_model(result["final"])
    level = common_accuracy(models)
    whole, scatter = (
        any(field in final for final in result["final"]) for field in ("whole", "scatter")
    )
    equal = [f"at {100 * level:.1f} % train acc."] if len(models) > 1 else []
    header = ["network", "seeds", "epochs", "train acc. %", "test acc. %", "sensitivity", *equal]
    header += ["random pixels", *equal] if scatter else []
    header += ["whole image", "paper, whole"] if whole else []
    header.append("paper")
    rows = []
    for name, final in finals.items():
        row = [final[0]["label"], str(len(final)), str(final[0]["epoch"])]
        row += [
            f"{100 * np.mean([line[f'{part}_accuracy'] for line in final]):.2f}"
            for part in ("train", "test")
        ]
        row.append(plus_minus([line["sweep"][0] for line in final]))
        if equal:
            row.append(plus_minus(at_accuracy(models[name], level)))
        if scatter:
            row.append(plus_minus([line["scatter"][0] for line in final]))
            if equal:
                row.append(plus_minus(at_accuracy(models[name], level, "sensitivity_scatter")))
        if whole:
            row += [plus_minus([line["whole"] for line in final]), known(final[0]["whole"])]
        rows.append([*row, known(final[0])])
    data = result["data"]
    title = (
        f"{data['name']}: {data['train']} training and {data['test']} test images; sensitivity on "
        f"{data['measured']} training images, noise of variance "
        f"{result['final'][0]['sweep'][0]['sigma2']:g} on a patch"
    )
    if scatter:
        pixels = result["final"][0]["scatter"][0]
        title += f", of variance {pixels['variance']:g} on as many random pixels"
    labels = {name: final[0]["label"] for name, final in finals.items()}
    return "\n".join([title, report.table(header, rows), *report.differences(result, labels)])


def plus_minus(values: Lines) -> str:
    """Mean over seeds ± standard error."""
    value, error = report.pooled(
        [v["sensitivity"] for v in values], [v["sensitivity_stderr"] for v in values]
    )
    return f"{value:.4f} ± {error:.4f}"


def known(line: Mapping[str, Any]) -> str:
    """The paper's number, or a dash."""
    return "-" if line["paper"] is None else f"{line['paper']:.4f}"


def draw(record: RunRecord) -> None:
    """Redraw every figure of a run from its record."""
    result, lines = record.read("result.json"), record.read_metrics()
    finals = by_model(result["final"])
    labels = {name: final[0]["label"] for name, final in finals.items()}
    data, sigma2 = result["data"], result["final"][0]["sweep"][0]["sigma2"]
    subject = f"{data['name']}, {data['train']:,} training images, $\\sigma^2$ = {sigma2:g}"
    _sensitivity(record, by_model(lines), labels, subject)
    _dynamics(record, by_model(lines), labels, subject)
    if len(result["final"][0]["sweep"]) > 1:
        _sweep(record, finals, labels, subject.rsplit(",", 1)[0])


def _sensitivity(
    record: RunRecord, models: Mapping[str, Lines], labels: Mapping[str, str], subject: str
) -> None:
    """Sensitivity by epoch, training accuracy by epoch, one against the other (Fig. 4).

    Before training sensitivity is anything between 0 and 1/2, and would set the scale for the rest:
    it is left to `_dynamics`.
    """
    figure, panels = report.figure(11, 3.6, ncols=3)
    for i, (name, lines) in enumerate(models.items()):
        style = {"color": f"C{i}", "label": labels[name]}
        lines = [line for line in lines if line["epoch"] > 0] or lines
        epochs, values = report.curve(lines, "sensitivity")
        _, errors = report.curve(lines, "sensitivity_stderr")
        _, accuracies = report.curve(lines, "train_accuracy")
        means, spread = _pooled_curve(values, errors)
        panels[0].plot(epochs, means, **style)
        panels[0].fill_between(
            epochs, means - 1.96 * spread, means + 1.96 * spread, color=f"C{i}", alpha=0.2, lw=0
        )
        report.draw_band(panels[1], epochs, 100 * accuracies, **style)
        panels[2].errorbar(
            100 * accuracies.mean(0), means, 1.96 * spread, fmt="o-", markersize=3, lw=1, **style
        )
    panels[0].set(xlabel="epoch", ylabel="sensitivity (95 % interval)")
    panels[1].set(xlabel="epoch", ylabel="training accuracy, %")
    panels[2].set(xlabel="training accuracy, %", ylabel="sensitivity (95 % interval)")
    for panel in (panels[0], panels[2]):
        panel.set_ylim(bottom=0)
    figure.suptitle(subject, fontsize=10)
    handles, names = panels[1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 5))
    report.save(figure, record.directory / "sensitivity.png")


def _pooled_curve(values: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`report.pooled` at every epoch, of values and standard errors (S, E)."""
    pairs = [report.pooled(v, e) for v, e in zip(values.T, errors.T, strict=True)]
    means, spread = np.array(pairs).T
    return means, spread


def _dynamics(
    record: RunRecord, models: Mapping[str, Lines], labels: Mapping[str, str], subject: str
) -> None:
    """Loss, accuracy and sensitivity of each network (Fig. 16)."""
    figure, panels = report.figure(
        2.6 * max(len(models), 2),
        6,
        nrows=3,
        ncols=len(models),
        sharex="col",
        sharey="row",
        squeeze=False,
    )
    for column, (name, lines) in zip(panels.T, models.items(), strict=True):
        for part, style in (("train", "C0-"), ("test", "C3:")):
            for panel, field, factor in ((column[0], "loss", 1), (column[1], "accuracy", 100)):
                epochs, values = report.curve(lines, f"{part}_{field}")
                colour, dash = style[:2], style[2:]
                report.draw_band(
                    panel, epochs, factor * values, color=colour, linestyle=dash, label=part
                )
        epochs, values = report.curve(lines, "sensitivity")
        report.draw_band(column[2], epochs, values, color="C2")
        column[0].set_title(labels[name], fontsize=9)
        column[2].set(xlabel="epoch")
    for panel in (panels[0, 0], panels[2, 0]):  # the rows share their scales
        panel.set_ylim(bottom=0)
    for panel, label in zip(
        panels[:, 0], ("loss, nats", "accuracy, %", "sensitivity"), strict=True
    ):
        panel.set_ylabel(label)
    panels[0, 0].legend()
    figure.suptitle(subject, fontsize=10)
    report.save(figure, record.directory / "dynamics.png")


def _sweep(
    record: RunRecord, finals: Mapping[str, Lines], labels: Mapping[str, str], subject: str
) -> None:
    """Final sensitivity against the variance of the noise (Fig. 17)."""
    figure, panel = report.figure(4.6, 3.6)
    for i, (name, final) in enumerate(finals.items()):
        sweeps = [sorted(line["sweep"], key=lambda point: point["sigma2"]) for line in final]
        values, errors = (
            np.array([[point[field] for point in sweep] for sweep in sweeps])
            for field in ("sensitivity", "sensitivity_stderr")
        )
        means, spread = _pooled_curve(values, errors)
        variances = [point["sigma2"] for point in sweeps[0]]
        panel.errorbar(
            variances, means, 1.96 * spread, fmt="o-", color=f"C{i}", markersize=3,
            label=labels[name],
        )  # fmt: skip
    panel.set(xscale="log", xlabel="variance of the noise on a patch", ylabel="sensitivity (95 %)")
    panel.set_ylim(bottom=0)
    panel.legend()
    panel.set_title(subject)
    report.save(figure, record.directory / "variance.png")
