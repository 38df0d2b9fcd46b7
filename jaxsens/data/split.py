"""Examples and what is to be predicted: the one thing that data, training and measures share."""

from typing import Any, NamedTuple, Self

import jax
import numpy as np
from jax import Array


class Split(NamedTuple):
    """Examples and what is to be predicted, batch first.

    ``inputs`` is an array (N, ...) or any pytree of arrays with the same leading N, token ids with
    their mask for instance; ``labels`` has the same N.
    """

    inputs: Any
    labels: np.ndarray | Array

    def take(self, indices: Any) -> Self:
        """The examples of these numbers, or of a slice of them."""
        return jax.tree.map(lambda leaf: leaf[indices], self)
