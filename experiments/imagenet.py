"""ImageNet: a pretrained ViT-L/16 and ConvNeXtV2-Tiny are measured (paper A, Section 5).

A token is a patch of 16 x 16 pixels, every one of them is replaced 5 times, and the noise has
variance 15 **on pixels in [-1, 1]** for both networks, whatever units each was trained in. The
paper prints 0.0191 and 0.0342 on 20,000 images, for networks of 85 % accuracy that it does not name
further; `jaxsens.weights.hub` says which published weights come near.

Images stream through in batches, each recorded as counts of changed decisions: the counts add up
exactly, and --resume goes on behind the last batch. ViT-L/16 takes 20 million forward passes for
the paper's protocol, ConvNeXtV2-Tiny at 384 pixels 58 million; --tokens-per-example buys the same
expectation for fewer. Neither has been run here on its published weights, for want of a network.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import numpy as np

import jaxsens
from command.options import DRAWS, VARIANCE, Count
from experiments.paper import printed
from experiments.run.cli import UserError, run
from experiments.run.experiment import conduct
from experiments.run.options import DataSource, Run, check_seed
from experiments.run.progress import Progress
from experiments.run.record import RunRecord
from experiments.vision.imagenet_report import LABELS, RANDOM
from experiments.vision.pretrained import Network, find, load_network
from jaxsens.data.images.imagenet import Images, batches, open_images

PAPER = ("vit-l16", "convnextv2-tiny")
PAPER_VARIANCE = 15.0
PLACES = ("Section 5",)  # in `experiments.paper`
PAPER_SETTING = (PAPER_VARIANCE, 16)  # and the side of a patch
SMALL = ("vit-ti16", "convnextv2-atto")
IMAGES = 50  # a batch of the record; another number would be another noise


@dataclasses.dataclass(frozen=True)
class Config(Run, DataSource):
    """Measure the sensitivity of pretrained ImageNet networks."""

    arch: str = "all"
    """Which network: vit-l16, convnextv2-tiny, vit-ti16, convnextv2-atto, or all for the paper's
    two, the first and the second."""
    weights: str = "hub"
    """Where the weights come from: hub (published ones, downloaded on first use), the path of a
    .safetensors or .npz file (of a network whose images were scaled like those of the published
    one), or random, which says nothing about any trained network."""
    image_size: Annotated[int | None, Count()] = None
    """Side of the square images, one that weights are published for: 224, or 384 for vit-l16 and
    convnextv2-tiny. None for the weights that come nearest to the paper's accuracy (384 for
    convnextv2-tiny, else 224)."""
    seed: int = 0
    """Which images, and which noise."""
    split: str = "train"
    """Which images: train, as in the paper, or another split of the data, such as validation (tfds)
    or val (as image folders often call it)."""
    examples: Annotated[int, Count()] = 20_000
    """Measure on this many images, a random choice by --seed."""
    variance: Annotated[tuple[float, ...], VARIANCE] = (PAPER_VARIANCE,)
    """Variances (not standard deviations) of the Gaussian noise on a patch, on pixels in
    [-1, 1]; several for a curve. In the units that ConvNeXtV2 was trained in, 15 is about 75."""
    repeats: Annotated[int, DRAWS] = 5
    """Fresh draws for each patch."""
    patch_size: Annotated[int, Count()] = 16
    """Side of a token, in pixels."""
    tokens_per_example: Annotated[int | None, Count()] = None
    """Measure this many random patches of each image; None for all of them."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the networks' arithmetic; noise, parameters and logits stay float32."""
    batch_size: Annotated[int, Count()] = 256
    """Forward passes at a time, which bounds the memory."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        "data": "embedded",
        "weights": "random",
        "examples": 4,
        "tokens_per_example": 2,
        "repeats": 2,
        "batch_size": 16,
        "variance": (PAPER_VARIANCE, 10 * PAPER_VARIANCE),
    }

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        super().check()
        if self.arch not in (*PAPER, *SMALL, "all"):
            known = ", ".join((*PAPER, *SMALL))
            raise UserError(f"--arch must be {known} or all, got {self.arch}")
        check_seed(self.seed)
        if not self.variance or len(set(self.variance)) < len(self.variance):
            raise UserError(f"--variance must be numbers that differ, got {self.variance}")
        if self.weights not in ("hub", "random") and self.arch == "all":
            raise UserError("--weights PATH is of one network: name it with --arch")
        if self.smoke and (self.data, self.weights) not in (
            ("tfds", "hub"),
            ("embedded", "random"),
        ):
            raise UserError(
                "--smoke measures random weights on the embedded photographs: leave out --data and "
                "--weights"
            )


def main(config: Config) -> None:
    """Measure, and leave a run record with its figure."""
    conduct("imagenet", config, load=load, work=work, arrays=photographs)


def load(config: Config) -> tuple[tuple[list[Network], Images], str]:
    """The networks with their weights, the images, and what is said of them."""
    archs = {"all": SMALL if config.smoke else PAPER}.get(config.arch, (config.arch,))
    entries = [find(arch, config) for arch in archs]
    images = open_images(config.data, config.split)
    if not 2 <= config.examples <= len(images):
        raise UserError(
            f"--examples must lie between 2 and {len(images)}, the number of images, got "
            f"{config.examples}"
        )
    networks = [load_network(entry, config) for entry in entries]
    line = f"measuring {config.examples} images from {config.data}"
    if config.weights == "random":
        warning = "RANDOM WEIGHTS: the numbers below say nothing about any trained network"
        line = f"{warning}\n{line}"
    return (networks, images), line


def work(config: Config, data: tuple[list[Network], Images], record: RunRecord) -> dict[str, Any]:
    """Measure one network after the other."""
    networks, images = data
    for network in networks:
        measure(network, images, config, record)
    return {
        "final": [line for network in networks for line in totals(network, config, record)],
        "data": {"source": config.data, "split": config.split, "labelled": images.labelled},
    }


def photographs(data: tuple[list[Network], Images]) -> Any:
    """How many images there are, and the pixels of 16 of them at equal distances.

    Each line of the record says which weights it is of.
    """
    _, images = data
    some = np.unique(np.linspace(0, len(images) - 1, 16).astype(int))
    return len(images), images.labelled, [np.asarray(images.read(int(i))[0]) for i in some]


def measure(network: Network, images: Images, config: Config, record: RunRecord) -> None:
    """Measure the batches that the record does not have yet, a line each.

    A line holds, for each variance, how many decisions changed in each image (``flips``) and at
    each patch (``token_flips``), of how many draws (``token_draws``); and the number of ``correct``
    decisions on the images as they are, where there are labels.
    """
    done = [line for line in record.lines if line.get("model") == network.arch]
    identity = {"weights": network.weights, "sha256": network.sha256, "available": len(images)}
    for number, line in enumerate(done):
        if any(line.get(k) != v for k, v in {"batch": number, **identity}.items()):
            raise UserError(
                f"{record.directory} was measured with other weights or images than these; "
                "start afresh with another --out"
            )
    order = np.random.default_rng(config.seed).permutation(len(images))[: config.examples]
    key = jax.random.key(config.seed)
    stream = batches(
        images, order[len(done) * IMAGES :], batch_size=IMAGES,
        size=network.entry.image_size, crop=network.entry.crop,
    )  # fmt: skip
    spent = done[-1]["seconds"] if done else 0.0
    seen, started = sum(line["examples"] for line in done), time.monotonic() - spent
    progress = Progress(network.arch, config.examples, "images")
    progress.update(seen)
    try:
        for number, (pixels, labels) in enumerate(stream, start=len(done)):
            counts = count(network, pixels, config, jax.random.fold_in(key, number))
            seen += len(pixels)
            line = {
                "model": network.arch, "seed": config.seed, "batch": number,
                "examples": len(pixels), "seconds": round(time.monotonic() - started, 2),
                **identity, **counts, "correct": None,
            }  # fmt: skip
            if labels is not None:
                line["correct"] = int((decisions(network.model, pixels, config) == labels).sum())
            record.add([line])
            progress.update(seen)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; {seen} images of {network.arch} are recorded: go on with --resume "
            f"--out {record.directory}"
        ) from None
    finally:
        progress.close()
        stream.close()


def count(network: Network, pixels: np.ndarray, config: Config, key: jax.Array) -> dict[str, Any]:
    """Changed decisions of one batch, by image and by patch, for every variance."""
    found: dict[str, Any] = {"flips": [], "token_flips": [], "forward_passes": 0}
    for variance in config.variance:  # the same draws, scaled: the curve is smooth
        try:
            estimate = jaxsens.sensitivity(
                network.model,
                pixels,
                key=key,
                tokens=jaxsens.Patches(config.patch_size),
                noise=jaxsens.Gaussian(variance),
                repeats=config.repeats,
                tokens_per_example=config.tokens_per_example,
                batch_size=config.batch_size,
            )
        except ValueError as error:  # the options were checked: the network returned NaN
            raise UserError(f"{network.arch} with the weights {network.weights}: {error}") from None
        flips = np.rint(np.nan_to_num(estimate.rates) * config.repeats).astype(int)
        found["flips"].append(flips.sum(1))
        found["token_flips"].append(flips.sum(0))
        found["forward_passes"] += estimate.forward_passes
    found["token_draws"] = config.repeats * (~np.isnan(estimate.rates)).sum(0)
    return found


@jax.jit
def _decide(model: Any, pixels: jax.Array) -> jax.Array:
    return jaxsens.decision(model(pixels))


def decisions(model: Any, pixels: np.ndarray, config: Config) -> np.ndarray:
    """The class of each image, at most ``batch_size`` of them at a time."""
    size = min(config.batch_size, IMAGES)
    found = []
    for start in range(0, len(pixels), size):  # filled up, so that one shape is compiled
        part = pixels[np.minimum(np.arange(start, start + size), len(pixels) - 1)]
        found.append(np.asarray(_decide(model, part)))
    return np.concatenate(found)[: len(pixels)]


def totals(network: Network, config: Config, record: RunRecord) -> list[dict[str, Any]]:
    """The measurement of one network, a dictionary for each variance, from its counts."""
    lines = [line for line in record.lines if line["model"] == network.arch]
    draws = np.sum([line["token_draws"] for line in lines], axis=0)
    patches = config.tokens_per_example or len(draws)
    correct = [line["correct"] for line in lines]
    found = []
    for i, variance in enumerate(config.variance):
        flips = np.concatenate([line["flips"][i] for line in lines])
        per_example = flips / (patches * config.repeats)
        # Every image is a cluster of draws: one number each, and the error is that of their mean.
        estimate = jaxsens.SensitivityEstimate(per_example[:, None], 0)
        by_token = np.sum([line["token_flips"][i] for line in lines], axis=0)
        known = network.weights != RANDOM and (variance, config.patch_size) == PAPER_SETTING
        found.append(
            {
                "model": network.arch,
                "weights": network.weights,
                "sha256": network.sha256,
                "image_size": network.entry.image_size,
                "variance": variance,
                "examples": len(flips),
                "accuracy": None if None in correct else sum(correct) / len(flips),
                "sensitivity": estimate.value,
                "sensitivity_stderr": estimate.stderr,
                "sensitivity_interval": estimate.interval(),
                "sensitivity_per_token": by_token / np.where(draws, draws, np.nan),
                "forward_passes": sum(line["forward_passes"] for line in lines),
                "paper": printed(PLACES, LABELS[network.arch], "sensitivity") if known else None,
            }
        )
    return found


if __name__ == "__main__":
    run(main, Config, prog="experiments.imagenet")
