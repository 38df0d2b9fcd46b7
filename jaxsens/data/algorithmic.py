"""Tasks with a known rule: addition modulo p, and the parity of a few of d bits."""

import jax
import numpy as np
from jax import Array

from jaxsens.data.dataset import DataError
from jaxsens.data.split import Split


def modular_addition(modulus: int, *, train_fraction: float, key: Array) -> tuple[Split, Split]:
    """All pairs (a, b) in 0..modulus-1 with label (a + b) mod modulus, split at random in two.

    Inputs (N, 2) int32, labels (N,) int32; floor(train_fraction * modulus^2) pairs are for training
    (paper A, Section 7: modulus 113, fraction 0.3: 3830 of 12769). Raises DataError for a modulus
    below 2 or a fraction that leaves a part empty.
    """
    if modulus < 2:
        raise DataError(f"the modulus must be at least 2, got {modulus}")
    total = modulus**2
    count = int(train_fraction * total) if 0 < train_fraction < 1 else 0
    if count < 1:
        raise DataError(
            f"the train fraction must lie between 0 and 1 and leave at least one of the {total} "
            f"pairs for training, got {train_fraction}"
        )
    pairs = np.stack(np.divmod(np.arange(total, dtype=np.int32), modulus), axis=1)
    labels = pairs.sum(1) % modulus
    order = np.asarray(jax.random.permutation(key, total))
    train, test = np.split(order, [count])
    return Split(pairs[train], labels[train]), Split(pairs[test], labels[test])


def sparse_parity(
    d: int, p: int, *, train: int, test: int, key: Array
) -> tuple[Split, Split, tuple[int, ...]]:
    """Uniform points of {±1}^d with the product of p coordinates, and which coordinates these are.

    Inputs (N, d) float32, labels (N,) float32 in {-1, 1}. The p coordinates, ascending, are drawn
    uniformly (paper A, A.6: d = 40, p = 4). Training and test points are drawn independently, so
    for small d they overlap. Raises DataError unless 1 <= p < d and both counts are positive.
    """
    if not 1 <= p < d:
        raise DataError(f"a sparse parity needs 1 <= p < d, got p = {p} and d = {d}")
    if train < 1 or test < 1:
        raise DataError(f"both parts need at least one example, got {train} and {test}")
    place_key, *point_keys = jax.random.split(key, 3)
    places = np.sort(np.asarray(jax.random.permutation(place_key, d))[:p])
    splits = []
    for count, point_key in zip((train, test), point_keys, strict=True):
        points = np.asarray(jax.random.rademacher(point_key, (count, d), dtype="float32"))
        splits.append(Split(points, points[:, places].prod(1)))
    return splits[0], splits[1], tuple(int(i) for i in places)
