"""Accuracy under the common corruptions, one of them in memory at a time (paper A, Section 7)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, UInt8

from jaxsens._check import positive_int
from jaxsens._decision import decision
from jaxsens._inference import inference
from jaxsens._model import compile_once
from jaxsens.corruptions import NAMES, applicable, corrupt
from jaxsens.data.dataset import normalise

SEVERITIES = (1, 2, 3, 4, 5)
NOISE = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
"""The corruptions that are noise of every pixel by itself, as what sensitivity is measured with."""


class Corrupted(NamedTuple):
    """A data set under one corruption at one severity."""

    name: str
    severity: int
    images: UInt8[np.ndarray, "N H W C"]
    labels: Int[np.ndarray, " N"]


def corrupted(
    images: UInt8[np.ndarray, "N H W C"],
    labels: Int[np.ndarray, " N"],
    *,
    key: Array,
    names: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    frost_images: str | None = None,
) -> Iterator[Corrupted]:
    """The images under every corruption and severity, made one after the other.

    ``names``: None for all that images of so many channels can have. Each image has the same noise
    at every severity. Raises TypeError or ValueError as :func:`jaxsens.corruptions.corrupt`, before
    the first is made.
    """
    images = np.asarray(images)
    chosen = tuple(applicable(images.shape[-1]) if names is None else names)
    for name in chosen:  # a name or a severity that is wrong costs no work
        for severity in severities:
            corrupt(images[:0], name, severity, key=key)

    def make() -> Iterator[Corrupted]:
        for name in chosen:
            for severity in severities:
                changed = corrupt(images, name, severity, key=key, frost_images=frost_images)
                yield Corrupted(name, severity, changed, labels)

    return make()


def accuracies(
    models: Sequence[Any],
    sets: Iterable[Corrupted],
    *,
    prepare: Callable[[np.ndarray], np.ndarray] = normalise,
    batch_size: int = 500,
    done: Callable[[Corrupted], None] = lambda one: None,
) -> dict[str, dict[int, Float[np.ndarray, " M"]]]:
    """Accuracy of each of M models by corruption and severity, ``found[name][severity]`` (M,).

    ``models`` are any callables of images to logits (N, C), in inference mode; those of one
    structure share a compiled program. Each of ``sets`` is held while all models look at it, and
    then let go. ``prepare`` makes of bytes what the models take: pixels in [-1, 1]. ``done`` is
    told of each set. An image with a logit that is NaN is not classified right, as in
    :func:`jaxsens.decision`.
    """
    batch_size = positive_int("batch_size", batch_size)
    programs = [_correct(inference(model), None) for model in models]
    found: dict[str, dict[int, np.ndarray]] = {}
    for one in sets:
        means = [correct(p, one.images, one.labels, prepare, batch_size) for p in programs]
        found.setdefault(one.name, {})[one.severity] = np.array([m.mean() for m in means])
        done(one)
        del one  # or it would be held while the next is made
    return found


def correct(
    program: Callable[..., Array],
    images: np.ndarray,
    labels: np.ndarray,
    prepare: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
) -> Bool[np.ndarray, " N"]:
    """Whether each image is classified right; the last batch repeats images, so as to be whole."""
    count = len(labels)
    size = min(batch_size, count)
    right = np.empty(count, bool)
    for start in range(0, count, size):
        part = slice(max(0, min(start, count - size)), min(start + size, count))
        right[part] = program(jnp.asarray(prepare(images[part])), jnp.asarray(labels[part]))
    return right


@compile_once
def _correct(model: Any, settings: None, images: Array, labels: Array) -> Array:
    # Rebuilt here, because flax lets a module change only in the trace that it is from.
    model = inference(jax.tree.map(lambda leaf: leaf, model))
    return decision(model(images)) == labels  # of NaN it is no class


Table = Mapping[str, Mapping[int, Any]]


def mean_accuracy(found: Table, names: Iterable[str] = NAMES) -> Float[np.ndarray, " M"]:
    """Mean over corruptions (those of ``names`` that are there) of the mean over severities."""
    chosen = [name for name in names if name in found]
    if not chosen:
        raise ValueError(f"none of {', '.join(names)} was measured; there are {', '.join(found)}")
    return np.mean([np.mean(list(found[name].values()), axis=0) for name in chosen], axis=0)


def mean_corruption_error(found: Table, reference: Table | None = None) -> Float[np.ndarray, " M"]:
    """Mean corruption error (Hendrycks & Dietterich 2019, Section 4.1).

    ::

        mCE = mean_c  [ sum_s E_{s,c} / sum_s E^ref_{s,c} ]

    with E = 1 - accuracy. Without a ``reference`` network's accuracies (one number each) the
    denominator is the number of severities, as it is customary for CIFAR-10-C. Raises ValueError
    where the reference makes no error, or lacks a corruption.
    """
    ratios = []
    for name, by_severity in found.items():
        errors = np.sum([1 - np.asarray(a) for a in by_severity.values()], axis=0)
        scale = float(len(by_severity))
        if reference is not None:
            if name not in reference or not set(by_severity) <= set(reference[name]):
                raise ValueError(f"the reference lacks {name} at severities {list(by_severity)}")
            scale = float(sum(1 - np.asarray(reference[name][s]) for s in by_severity))
        if scale <= 0:
            raise ValueError(f"the reference makes no error under {name}; its error divides others")
        ratios.append(errors / scale)
    return np.mean(ratios, axis=0)
