"""Random numbers for a batch of images: each image has a stream of its own.

What happens to an image then depends on the key, the corruption and the image's number, and not on
the images it is processed with.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


class Streams:
    """One generator for each of ``count`` images, the first of which has the number ``first``."""

    def __init__(self, seed: int, name: str, first: int, count: int) -> None:
        mixed = (seed * 0x9E3779B97F4A7C15 + zlib.crc32(name.encode())) % 2**64
        self._generators = [
            np.random.Generator(np.random.Philox(key=np.array([mixed, first + i], np.uint64)))
            for i in range(count)
        ]

    def __len__(self) -> int:
        return len(self._generators)

    def __iter__(self) -> Iterator[np.random.Generator]:
        return iter(self._generators)

    def draw(self, how: Callable[[np.random.Generator], Any]) -> np.ndarray:
        """``how(generator)`` of every image, stacked."""
        return np.stack([how(generator) for generator in self._generators])

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal numbers (count, *shape)."""
        return self.draw(lambda rng: rng.standard_normal(shape))

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Uniform numbers (count, *shape)."""
        return self.draw(lambda rng: rng.uniform(low, high, shape))
