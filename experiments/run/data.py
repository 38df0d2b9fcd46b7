"""Parts of data sets, and whether they suffice."""

import numpy as np
from jax import Array

from experiments.run.cli import UserError
from jaxsens.data.split import Split


def subset(split: Split, count: int | None, option: str) -> Split:
    """A fixed random ``count`` of the examples; all of them for None."""
    total = len(split.labels)
    if count is None:
        return split
    if not 1 <= count <= total:
        raise UserError(f"{option} must lie between 1 and {total}, got {count}")
    chosen = np.random.default_rng(0).permutation(total)[:count]
    return split.take(chosen)


def part_to_measure(train: Split, count: int | None) -> np.ndarray | Array:
    """The inputs to measure sensitivity on: ``count`` of the training images, None for 30 %."""
    if count is None:
        count = round(0.3 * len(train.labels))
    if count < 2:
        raise UserError(
            f"sensitivity needs at least 2 images for its standard error, got {count}; raise "
            "--examples or --sensitivity-examples"
        )
    return subset(train, count, "--sensitivity-examples").inputs


def check_batch(batch_size: int, train: Split) -> None:
    """Raise UserError for a batch larger than the training data, which would be cut in silence."""
    total = len(train.labels)
    if batch_size > total:
        raise UserError(
            f"--batch-size must be at most {total}, the number of training images, got {batch_size}"
        )
