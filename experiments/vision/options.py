"""What a vision experiment is told: the paper's table for its data set, and the user's options."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from command.options import DRAWS, POSITIVE, VARIANCE, Count, Each
from experiments.run.cli import UserError
from experiments.run.options import Common
from experiments.vision.interventions import INTERVENTIONS, Settings
from jaxsens import Gaussian, Noise
from jaxsens.data.split import Split


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One row of the paper's table: a model, its widths and the rate of SGD."""

    label: str  # what the paper calls it
    model: str
    learning_rate: float
    widths: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set with the paper's networks for it.

    ``noises(config, train)`` names what a patch is replaced by, of which the first is the one that
    models are compared by; by default Gaussian noise of the first --sigma2, or of ``variance``.
    ``relabel`` makes the labels that are learned, in ``classes`` classes. Variances are on pixels
    in [-1, 1].
    """

    experiment: str
    data: str
    patch_size: int
    architectures: Mapping[str, Architecture]
    variance: float = 1.0
    places: tuple[str, ...] = ()  # of its numbers, in `experiments.paper`
    noises: Callable[[Any, Split], Mapping[str, Noise]] | None = None
    relabel: Callable[[np.ndarray], np.ndarray] | None = None
    classes: int | None = None
    whole_variance: float | None = None  # Table 4: noise on the whole image

    def named_noises(self, config: Any, train: Split) -> Mapping[str, Noise]:
        """The noises by the fields of the record that they are measured for."""
        if self.noises is not None:
            return self.noises(config, train)
        return {"sensitivity": Gaussian((config.sigma2 or (self.variance,))[0])}


@dataclasses.dataclass(frozen=True)
class Training(Common, Settings):
    """Options of every vision experiment; each adds which architectures, and its noise."""

    optimizer: tuple[Literal["sgd", "adam"], ...] = ("sgd",)
    """sgd, adam, or both to compare them. SGD has no momentum; Adam halves its rate (see
    --halve-every)."""
    halve_every: Annotated[int, Count()] = 8
    """Epochs after which Adam halves its rate. The paper's 8 are epochs of all images: of a few
    images, 8 epochs are few steps."""
    learning_rate: Annotated[float | None, POSITIVE] = None
    """Step size; None for the paper's (SGD: one for each network; Adam: 0.002)."""
    epochs: Annotated[int, Count()] = 100
    """Epochs of training, at most."""
    until: float = 2.0
    """End when the training accuracy of every seed is at least this; above 1: never."""
    every: Annotated[int, Count()] = 5
    """Measure after this many epochs."""
    batch_size: Annotated[int, Count()] = 100
    """Images a step."""
    examples: Annotated[int | None, Count()] = None
    """Train on this many images; None for all of them."""
    test_examples: Annotated[int | None, Count()] = None
    """Test on this many images; None for all of them."""
    augmentation: Literal["none", "crop", "crop-flip"] = "none"
    """Random crops from a border of 4 pixels, and mirror images, in training. The paper does not
    say that it used any."""
    intervention: tuple[str, ...] = ("none",)
    """What is done in training against sensitivity: none, augmentation (noisy copies of the images)
    or regularisation (noise on a patch must not change the logits); several are trained one after
    the other."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the networks' arithmetic; parameters, losses and logits stay float32."""
    depth: Annotated[tuple[int, ...], Each(), Count(most=1000)] = ()
    """Other depths for the transformers; several are trained one after the other."""
    heads: Annotated[tuple[int, ...], Each(), Count(most=1024)] = ()
    """Other numbers of attention heads; several are trained one after the other."""
    sensitivity_examples: Annotated[int | None, Count()] = None
    """Training images to measure sensitivity on; None for 30 % of them."""
    repeats: Annotated[int, DRAWS] = 5
    """Fresh draws for each patch, in the final measurement."""
    curve_tokens: Annotated[int, Count()] = 4
    """During training, measure this many random patches of each image, with one draw each."""

    def check(self) -> None:
        super().check()
        if not self.optimizer:
            raise UserError("--optimizer needs at least one of sgd and adam")
        if not self.intervention or not set(self.intervention) <= set(INTERVENTIONS):
            raise UserError(
                f"--intervention must be among {', '.join(INTERVENTIONS)}, got "
                f"{' '.join(self.intervention)}"
            )
        self.require_distinct("optimizer", "intervention")
        if not self.until > 0:
            raise UserError(f"--until must be greater than 0, got {self.until}")

    def require_distinct(self, *names: str) -> None:
        """Raise UserError for a value that is given twice."""
        for name in names:
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise UserError(f"--{name} names a value twice: {' '.join(map(str, values))}")

    def architectures(self, task: Task) -> list[str]:
        """The names of the architectures that were asked for."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """Options of the experiments of Section 5; each experiment names its own architectures."""

    arch: tuple[str, ...] = ("all",)
    """Which networks; all for every one of them."""
    sigma2: Annotated[tuple[float, ...], Each(), VARIANCE] = ()
    """Variances (not standard deviations) of the noise on a patch, on pixels in [-1, 1]. The
    curve over epochs uses the first, the final measurement all. None given: the paper's."""
    tokens: Literal["patches", "scatter"] = "patches"
    """scatter: measure beside patches what the published code measured: as many random pixels, the
    same ones for all images, under noise whose standard deviation is --sigma2."""
    SMALLEST: ClassVar[Mapping[str, Any]] = {
        "epochs": 2,
        "every": 1,
        "examples": 40,
        "test_examples": 40,  # as many, so that one program evaluates both
        "batch_size": 20,
        "sensitivity_examples": 4,
        "repeats": 1,
        "curve_tokens": 2,
    }

    def check(self) -> None:
        super().check()
        self.require_distinct("arch")

    def architectures(self, task: Task) -> list[str]:
        known = task.architectures
        if self.arch == ("all",):
            return list(known)
        if not (self.arch and set(self.arch) <= set(known)):
            raise UserError(
                f"--arch must be all, or some of {', '.join(known)}, got {' '.join(self.arch)}"
            )
        return list(self.arch)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network to train: an architecture with an optimizer and perhaps other widths."""

    name: str  # in the record: distinct for every network of a run
    label: str  # in tables and figures
    arch: str
    optimizer: str
    intervention: str
    level: float | None  # of the intervention
    widths: Mapping[str, Any]


def variants(config: Training, task: Task) -> list[Variant]:
    """Every network that the options ask for. Raises UserError where they do not fit together."""
    known, names = task.architectures, config.architectures(task)
    found = []
    for option in ("depth", "heads"):
        for name in names if getattr(config, option) else ():
            if known[name].model not in ("vit", "vit-simple"):
                raise UserError(
                    f"--{option} is for transformers; {name} is none: name one with --arch"
                )
    for name, optimizer, (intervention, level), depth, heads in itertools.product(
        names,
        config.optimizer,
        interventions(config),
        config.depth or (None,),
        config.heads or (None,),
    ):
        changes = {
            key: value for key, value in (("depth", depth), ("heads", heads)) if value is not None
        }
        said = [f"{key} {value}" for key, value in changes.items()]
        if optimizer != "sgd":
            said.append("Adam")
        if intervention != "none":
            several = len(INTERVENTIONS[intervention].levels(config)) > 1
            said.append(f"{intervention} {level:g}" if several else intervention)
        found.append(
            Variant(
                " ".join([name, *said]),
                ", ".join([known[name].label, *said]),
                name,
                optimizer,
                intervention,
                level,
                {**known[name].widths, **changes},
            )
        )
    return found


def interventions(config: Training) -> list[tuple[str, float | None]]:
    """The interventions asked for, each at each of its levels."""
    return [
        (name, level)
        for name in config.intervention
        for level in INTERVENTIONS[name].levels(config)
    ]
