"""Parts of data sets."""

import numpy as np

from experiments.common.cli import UserError
from jaxsens.training import Split


def subset(split: Split, count: int | None, option: str) -> Split:
    """A fixed random ``count`` of the examples; all of them for None."""
    total = len(split.labels)
    if count is None:
        return split
    if not 1 <= count <= total:
        raise UserError(f"{option} must lie between 1 and {total}, got {count}")
    chosen = np.random.default_rng(0).permutation(total)[:count]
    return Split(split.inputs[chosen], split.labels[chosen])
