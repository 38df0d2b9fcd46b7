"""Progress measures of Nanda et al. 2023 (arXiv 2301.05217) for modular addition."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int


def precise_cross_entropy(
    model: Any, inputs: Array, labels: Int[Array, " B"], rngs: nnx.Rngs | None = None
) -> tuple[Float[Array, " B"], dict[str, Array]]:
    """Softmax cross-entropy in nats and accuracy, for losses far below the rounding of float32.

    ::

        loss = -log softmax(l)_y = softplus(log sum_{j != y} exp(l_j) - l_y)

    The usual form, logsumexp(l) - l_y, is 0 or a rounding error once the loss falls under 1e-7,
    and weight decay then pulls at a network that has no gradient to answer with.
    """
    logits = model(inputs, rngs=rngs)
    return cross_entropy_of_logits(logits, labels), {
        "accuracy": (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    }


def cross_entropy_of_logits(
    logits: Float[Array, "B k"], labels: Int[Array, " B"]
) -> Float[Array, " B"]:
    """The loss of :func:`precise_cross_entropy` for given logits (B, k >= 2)."""
    right = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    others = jax.nn.logsumexp(jnp.where(right, -jnp.inf, logits), axis=-1)
    return jax.nn.softplus(others - jnp.where(right, logits, 0.0).sum(-1))


def logistic(
    model: Any, inputs: Array, labels: Float[Array, " B"], rngs: nnx.Rngs | None = None
) -> tuple[Float[Array, " B"], dict[str, Array]]:
    """log(1 + exp(-y f(x))) in nats and accuracy, for a scalar model f and labels y of ±1."""
    margins = labels * model(inputs, rngs=rngs)
    return jax.nn.softplus(-margins), {"accuracy": (margins > 0).astype(jnp.float32)}


def fourier_weight(
    signs: Float[np.ndarray, " N"], character: Float[np.ndarray, " N"]
) -> tuple[float, float]:
    """f_hat(U)^2 of a ±1 function from its values and those of chi_U at N >= 2 uniform points.

    ::

        m = mean(f chi_U),   weight = m^2 - s^2 / N,   stderr = sqrt(4 m^2 s^2 / N + 2 s^4 / N^2)

    with s^2 the sample variance of f chi_U; the subtraction removes the bias of m^2, so that a
    function with no such weight gives 0 on average (and below 0 at times).
    """
    products = np.asarray(signs, np.float64) * np.asarray(character, np.float64)
    if products.ndim != 1 or len(products) < 2:
        raise ValueError(
            f"signs and character must be (N,) with N >= 2, got {np.shape(signs)} "
            f"and {np.shape(character)}"
        )
    mean, error = products.mean(), products.var(ddof=1) / len(products)
    return float(mean**2 - error), float(np.sqrt(4 * mean**2 * error + 2 * error**2))
