"""Losses for `Trainer` beside plain cross-entropy: per-example values and accuracies."""

from typing import Any

import jax
import jax.numpy as jnp
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
    and weight decay then pulls at a network that has no gradient to answer with. Logits are (B, k)
    with k >= 2.
    """
    logits = model(inputs, rngs=rngs)
    right = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    others = jax.nn.logsumexp(jnp.where(right, -jnp.inf, logits), axis=-1)
    losses = jax.nn.softplus(others - jnp.where(right, logits, 0.0).sum(-1))
    return losses, {"accuracy": (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)}


def logistic(
    model: Any, inputs: Array, labels: Float[Array, " B"], rngs: nnx.Rngs | None = None
) -> tuple[Float[Array, " B"], dict[str, Array]]:
    """log(1 + exp(-y f(x))) in nats and accuracy, for a scalar model f and labels y of ±1."""
    margins = labels * model(inputs, rngs=rngs)
    return jax.nn.softplus(-margins), {"accuracy": (margins > 0).astype(jnp.float32)}
