"""What a vision experiment is told: the paper's table for its data set, and the user's options."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Literal

from experiments.run.cli import Common, UserError


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One row of the paper's table: a model, its widths, the rate of SGD and what was measured."""

    label: str
    model: str
    learning_rate: float
    widths: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    paper: float | None = None  # final train sensitivity


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set with the paper's networks for it. ``variance`` is on pixels in [-1, 1]."""

    experiment: str
    data: str
    patch_size: int
    variance: float
    architectures: Mapping[str, Architecture]
    whole_variance: float | None = None  # Table 4: noise on the whole image
    paper_whole: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Config(Common):
    """Options of the vision experiments; each experiment adds its own architectures."""

    arch: tuple[str, ...] = ("all",)
    """Which networks; all for every one of them."""
    optimizer: tuple[Literal["sgd", "adam"], ...] = ("sgd",)
    """sgd, adam, or both to compare them. SGD has no momentum; Adam halves its rate every 8
    epochs."""
    learning_rate: float | None = None
    """Step size; None for the paper's (SGD: one for each network; Adam: 0.002)."""
    epochs: int = 100
    """Epochs of training, at most."""
    until: float = 2.0
    """End when the training accuracy of every seed is at least this; above 1: never."""
    every: int = 5
    """Measure after this many epochs."""
    batch_size: int = 100
    """Images a step."""
    examples: int | None = None
    """Train on this many images; None for all of them."""
    test_examples: int | None = None
    """Test on this many images; None for all of them."""
    augmentation: Literal["none", "crop", "crop-flip"] = "none"
    """Random crops from a border of 4 pixels, and mirror images, in training. The paper does not
    say that it used any."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the networks' arithmetic; parameters, losses and logits stay float32."""
    depth: tuple[int, ...] = ()
    """Other depths for the transformers; several are trained one after the other."""
    heads: tuple[int, ...] = ()
    """Other numbers of attention heads; several are trained one after the other."""
    sigma2: tuple[float, ...] = ()
    """Variances (not standard deviations) of the noise on a patch, on pixels in [-1, 1]. The
    curve over epochs uses the first, the final measurement all. None given: the paper's."""
    sensitivity_examples: int | None = None
    """Training images to measure sensitivity on; None for 30 % of them."""
    repeats: int = 5
    """Fresh draws for each patch, in the final measurement."""
    curve_tokens: int = 4
    """During training, measure this many random patches of each image, with one draw each."""

    def check(self) -> None:
        """Raise UserError for options that cannot be right."""
        super().check()
        self.require_counts("epochs", "every", "batch_size", "repeats", "curve_tokens")
        if not self.optimizer:
            raise UserError("--optimizer needs at least one of sgd and adam")
        for name in ("arch", "depth", "heads", "sigma2", "optimizer"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise UserError(f"--{name} names a value twice: {' '.join(map(str, values))}")
        for name in ("depth", "heads"):
            if any(value < 1 for value in getattr(self, name)):
                raise UserError(f"--{name} must be at least 1, got {min(getattr(self, name))}")
        self.require_positive("learning_rate", "sigma2")
        if not self.until > 0:
            raise UserError(f"--until must be greater than 0, got {self.until}")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network to train: an architecture with an optimizer and perhaps other widths."""

    name: str  # in the record: distinct for every network of a run
    label: str  # in tables and figures
    arch: str
    optimizer: str
    widths: Mapping[str, Any]


def variants(config: Config, task: Task) -> list[Variant]:
    """Every network that the options ask for. Raises UserError where they do not fit together."""
    known = task.architectures
    if config.arch != ("all",) and not (config.arch and set(config.arch) <= set(known)):
        raise UserError(
            f"--arch must be all, or some of {', '.join(known)}, got {' '.join(config.arch)}"
        )
    names = list(known) if config.arch == ("all",) else list(config.arch)
    found = []
    for option in ("depth", "heads"):
        for name in names if getattr(config, option) else ():
            if known[name].model not in ("vit", "vit-simple"):
                raise UserError(
                    f"--{option} is for transformers; {name} is none: name one with --arch"
                )
    for name, optimizer, depth, heads in itertools.product(
        names, config.optimizer, config.depth or (None,), config.heads or (None,)
    ):
        changes = {
            key: value for key, value in (("depth", depth), ("heads", heads)) if value is not None
        }
        said = [f"{key} {value}" for key, value in changes.items()]
        if optimizer != "sgd":
            said.append("Adam")
        found.append(
            Variant(
                " ".join([name, *said]),
                ", ".join([known[name].label, *said]),
                name,
                optimizer,
                {**known[name].widths, **changes},
            )
        )
    return found
