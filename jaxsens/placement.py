"""Where arrays of a training live: the one place that puts them on a device."""

from typing import TypeVar

import jax

Tree = TypeVar("Tree")


def shared(tree: Tree) -> Tree:
    """What all seeds read: the data."""
    return jax.device_put(tree)


def by_seed(tree: Tree) -> Tree:
    """What has a leading axis of S seeds: the state of a training, its keys, data of their own."""
    return jax.device_put(tree)
