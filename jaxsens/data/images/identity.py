"""Which data set images are of, where several share a format: by published counts and sums."""

import warnings
from typing import NamedTuple

import numpy as np

from jaxsens.data.dataset import DataError, Raw


class Published(NamedTuple):
    """Examples of each class in the training and the test part, and the sum of all bytes there."""

    title: str
    train: tuple[int, ...]
    test: tuple[int, ...]
    sums: tuple[int, int] | None = None


# Counts are those of the papers and the files; sums those of the files, whatever their order.
BALANCED = Published("Fashion-MNIST, KMNIST or EMNIST", (6000,) * 10, (1000,) * 10)
PUBLISHED = {
    "mnist": Published(
        "MNIST",
        (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
        (1567298545, 264923200),
    ),
    "fashion-mnist": BALANCED._replace(title="Fashion-MNIST", sums=(3431114169, 573469082)),
    "cifar10": Published("CIFAR-10", (5000,) * 10, (1000,) * 10),
    "svhn": Published(
        "SVHN",
        (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
        (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
    ),
}
OTHERS = (BALANCED, Published("EMNIST's digits", (24000,) * 10, (4000,) * 10))


def check(name: str, train: Raw, test: Raw, where: str) -> None:
    """Raise DataError where the parts are those of another data set than ``name``.

    Classes that are as many as published in another set, and not as in this one, give it away;
    copies with other classes, smaller or relabelled, are nobody's and pass. Where both parts are as
    many as published but their bytes are not the published ones, a warning says so: the images are
    changed, inverted for instance, or of a set with the same counts.
    """
    own = PUBLISHED[name]
    counts = tuple(_counts(raw.labels) for raw in (train, test))
    if counts != (own.train, own.test):
        for other in (*PUBLISHED.values(), *OTHERS):
            # The training part alone: some copies divide the rest in another way.
            if counts[0] == other.train and other.train != own.train:
                sums = _sums(train, test)
                known = next((p.title for p in PUBLISHED.values() if p.sums == sums), None)
                title = BALANCED.title if other.train == BALANCED.train else other.title
                raise DataError(
                    f"{where} holds another data set, {known or title}: its training part has "
                    f"{_range(other)} images of each class; expected {own.title}, which has "
                    f"{_range(own)}"
                )
    elif own.sums is not None and (sums := _sums(train, test)) != own.sums:
        mean, expected = (s / (sum(own.train) * 784) for s in (sums[0], own.sums[0]))
        alike = f" ({BALANCED.title} share its counts)" if own.train == BALANCED.train else ""
        warnings.warn(
            f"{where} has as many images of each class as {own.title}{alike}, but other pixels: "
            f"their mean is {mean:.2f}, that of the published ones {expected:.2f}",
            stacklevel=3,
        )


def _counts(labels: np.ndarray) -> tuple[int, ...]:
    if labels.ndim != 1 or labels.dtype.kind not in "iuf" or len(labels) == 0:
        return ()
    values, counts = np.unique(labels, return_counts=True)
    return tuple(counts.tolist()) if values.tolist() == list(range(len(values))) else ()


def _sums(*parts: Raw) -> tuple[int, ...]:
    return tuple(int(np.sum(raw.images, dtype=np.int64)) for raw in parts)


def _range(published: Published) -> str:
    first, last = min(published.train), max(published.train)
    return str(first) if first == last else f"{first} to {last}"
