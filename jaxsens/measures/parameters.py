"""The size of a network's parameters."""

from typing import Any

import jax.numpy as jnp

from jaxsens._weights import Weights, Where


def parameter_norm(model: Any, where: Where | None = None) -> float:
    """The Euclidean norm of the parameters, of those for which ``where(path, array)`` is true.

    ``model`` is any callable pytree; ``path`` joins names by dots. Paper B leaves out position
    embeddings (`not_positions`). Raises ValueError where there are none.
    """
    arrays = Weights(model, where).arrays
    return float(jnp.sqrt(sum(jnp.sum(jnp.square(a.astype(jnp.float32))) for a in arrays)))


def not_positions(path: str, array: Any) -> bool:
    """``where`` of everything but the position embeddings, for measures of paper B."""
    return "position" not in path
