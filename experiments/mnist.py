"""MNIST, digit < 5 or not: a small vision transformer against an MLP (paper A, Section 5, A.1).

Both are trained by SGD at learning rate 0.01, batch 50, on 28 x 28 digits cut into 16 patches of
7 x 7. Sensitivity replaces a patch by one drawn from the training data (as in the paper), and
beside it adds Gaussian noise to the patch. The paper gives no numbers here; it finds the
transformer less sensitive than the MLP.
"""

import dataclasses
import functools
import time
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

import jaxsens
from experiments.run import report
from experiments.run.cli import Common, UserError, run
from experiments.run.data import check_batch, part_to_measure, subset
from experiments.run.record import RunRecord
from experiments.run.training import Schedule, sensitivity_measure, train_and_measure
from jaxsens import models
from jaxsens.data import load
from jaxsens.training import Split, Trainer

PATCH = 7
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vit": {"depth": 2, "heads": 1, "mlp_dim": 128},
    "mlp": {"hidden": (100,), "activation": "leaky_relu"},
}
LABELS = {"vit": "ViT-small", "mlp": "MLP"}
KINDS = {"sensitivity": "patch from the data", "sensitivity_gaussian": "Gaussian noise"}


@dataclasses.dataclass(frozen=True)
class Config(Common):
    """Train a small ViT and an MLP on MNIST (digit < 5 or not) and measure their sensitivity."""

    arch: str = "all"
    """Which model: vit, mlp or all."""
    seeds: int = 3
    """How many seeds to train together: seed, seed + 1, ..."""
    epochs: int = 100
    """Epochs of training."""
    every: int = 10
    """Measure after this many epochs."""
    examples: int | None = None
    """Train on this many images; None for all of them."""
    batch_size: int = 50
    """Images a step of SGD."""
    learning_rate: float = 0.01
    """Step size of SGD, without momentum."""
    sensitivity_examples: int | None = None
    """Training images to measure sensitivity on; None for 30 % of them."""
    repeats: int = 5
    """Fresh draws for each of the 16 patches, in the final measurement."""
    curve_tokens: int = 4
    """During training, measure this many random patches of each image, with one draw each."""
    variance: float = 1.0
    """Variance (not standard deviation) of the Gaussian noise, on pixels in [-1, 1]."""

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        super().check()
        if self.arch not in (*ARCHITECTURES, "all"):
            raise UserError(f"--arch must be vit, mlp or all, got {self.arch}")
        self.require_counts("epochs", "every", "batch_size", "repeats")
        self.require_positive("learning_rate", "variance")
        patches = (28 // PATCH) ** 2
        if not 1 <= self.curve_tokens <= patches:
            raise UserError(
                f"--curve-tokens must lie between 1 and {patches}, got {self.curve_tokens}"
            )


def main(config: Config) -> None:
    """Train, measure, and leave a run record with its figures."""
    config.check()
    if config.smoke:
        config = dataclasses.replace(
            config, epochs=2, every=1, seeds=2, examples=200, sensitivity_examples=20
        )
    data = load("mnist", config.data)
    train, test = (
        Split(part.inputs, (part.labels < 5).astype(np.int32)) for part in (data.train, data.test)
    )
    train = subset(train, config.examples, "--examples")
    check_batch(config.batch_size, train)
    measured = part_to_measure(train, config.sensitivity_examples)
    noises = {
        "sensitivity": jaxsens.Replacement.from_data(jaxsens.Patches(PATCH), train.inputs),
        "sensitivity_gaussian": jaxsens.Gaussian(config.variance),
    }
    # During training a few random patches an image give the smallest error for the passes they
    # cost; the final measurement is the paper's protocol.
    tokens = jaxsens.Patches(PATCH)
    measures = [
        sensitivity_measure(
            name,
            measured,
            tokens=tokens,
            noise=noise,
            repeats=1,
            tokens_per_example=config.curve_tokens,
        )
        for name, noise in noises.items()
    ]

    record = RunRecord.create("mnist", config, out=config.out, resume=config.resume)
    print(
        f"training on {len(train.labels)} images from {config.data}; record in {record.directory}",
        flush=True,
    )
    started = time.monotonic()
    seeds = range(config.seed, config.seed + config.seeds)
    finals: list[dict[str, Any]] = []
    for name in ARCHITECTURES if config.arch == "all" else [config.arch]:
        trainer = Trainer(
            [build(name, seed) for seed in seeds],
            optax.inject_hyperparams(optax.sgd)(learning_rate=config.learning_rate),
            batch_size=config.batch_size,
        )
        trained = train_and_measure(
            name,
            trainer,
            train,
            test,
            seeds=seeds,
            schedule=Schedule(config.epochs, config.every, len(train.labels) // config.batch_size),
            measures=measures,
            record=record,
        )
        for seed, model in zip(seeds, trained, strict=True):
            final = dict(record.last(name, seed))
            for kind, noise in noises.items():
                estimate = jaxsens.sensitivity(
                    model,
                    measured,
                    key=jax.random.key(seed),
                    tokens=tokens,
                    noise=noise,
                    repeats=config.repeats,
                )
                final[kind], final[f"{kind}_stderr"] = estimate.value, estimate.stderr
                final[f"{kind}_per_token"] = estimate.per_token
            finals.append(final)
    record.finish(
        {"final": finals, "picture": picture(measured[0], noises)},
        seconds=time.monotonic() - started,
    )
    draw(record)
    print(summary(record))


def build(name: str, seed: int) -> nnx.Module:
    """One of the two models of this experiment, in training mode."""
    return models.create(
        name,
        rngs=nnx.Rngs(seed),
        image_size=28,
        patch_size=PATCH,
        channels=1,
        classes=2,
        **ARCHITECTURES[name],
    )


def picture(image: np.ndarray, noises: dict[str, jaxsens.Noise]) -> dict[str, Any]:
    """An image, and what each noise makes of one of its patches."""
    token, key = 6, jax.random.key(0)
    replaced = {
        name: jaxsens.Patches(PATCH).replace(
            jax.numpy.asarray(image), token, functools.partial(noise, key=key), key
        )[..., 0]
        for name, noise in noises.items()
    }
    return {"token": token, "image": image[..., 0], **replaced}


def summary(record: RunRecord) -> str:
    """The table: model, seeds, accuracies in percent, sensitivity ± standard error."""
    rows = []
    result = record.read("result.json")
    for name in dict.fromkeys(line["model"] for line in result["final"]):
        lines = [line for line in result["final"] if line["model"] == name]
        row = [LABELS[name], str(len(lines))]
        row += [
            f"{100 * np.mean([line[f'{p}_accuracy'] for line in lines]):.2f}"
            for p in ("train", "test")
        ]
        for kind in KINDS:
            value, error = report.pooled(
                *[[line[k] for line in lines] for k in (kind, f"{kind}_stderr")]
            )
            row.append(f"{value:.4f} ± {error:.4f}")
        rows.append(row)
    header = ["model", "seeds", "train acc. %", "test acc. %"]
    return report.table([*header, *[f"sensitivity, {kind}" for kind in KINDS.values()]], rows)


def draw(record: RunRecord) -> None:
    """Redraw both figures of a run from its record."""
    result, lines = record.read("result.json"), record.read_metrics()
    names = list(dict.fromkeys(line["model"] for line in result["final"]))
    figure, panels = report.figure(10, 3.2, ncols=3)
    fields = {"accuracy": "accuracy", **{k: f"sensitivity: {v}" for k, v in KINDS.items()}}
    for panel, (field, title) in zip(panels, fields.items(), strict=True):
        for i, name in enumerate(names):
            for part, dash in (
                (("train_", "-"), ("test_", ":")) if field == "accuracy" else (("", "-"),)
            ):
                label = LABELS[name] + (f", {part[:-1]}" if part else "")
                epochs, values = report.curve(lines, part + field, model=name)
                report.draw_band(panel, epochs, values, color=f"C{i}", linestyle=dash, label=label)
        panel.set(xlabel="epoch", title=title)
        panel.legend()
        if field != "accuracy":
            panel.set_ylim(bottom=0)
    report.save(figure, record.directory / "curves.png")

    shown = result["picture"]
    figure, panels = report.figure(2.2 * (3 + len(names)), 2.5, ncols=3 + len(names))
    row, column = divmod(shown["token"], 28 // PATCH)
    for panel, (field, title) in zip(panels, {"image": "an image", **KINDS}.items(), strict=False):
        panel.imshow(np.array(shown[field]), cmap="gray", vmin=-1, vmax=1)
        panel.set_title(title)
        box = (column * PATCH - 0.5, row * PATCH - 0.5)
        if field != "image":
            panel.add_patch(_rectangle(box))
        for edge in range(PATCH, 28, PATCH):
            panel.axhline(edge - 0.5, color="C0", linewidth=0.4)
            panel.axvline(edge - 0.5, color="C0", linewidth=0.4)
    maps = [
        np.mean([f["sensitivity_per_token"] for f in result["final"] if f["model"] == name], axis=0)
        for name in names
    ]
    for panel, name, flips in zip(panels[3:], names, maps, strict=True):
        grid = flips.reshape(28 // PATCH, -1)
        image = panel.imshow(grid, cmap="magma", vmin=0, vmax=np.max(maps))
        panel.set_title(f"flip rate, {LABELS[name]}")
    figure.colorbar(image, ax=panels[3:].tolist(), fraction=0.05)
    for panel in panels:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(True)
    report.save(figure, record.directory / "measured.png")


def _rectangle(corner: tuple[float, float]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, PATCH, PATCH, fill=False, edgecolor="C3", linewidth=1.5)


if __name__ == "__main__":
    run(main, Config, prog="experiments.mnist")
