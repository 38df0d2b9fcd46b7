"""Losses and metrics: a value for each example, from a model's outputs and the labels.

What is trained on is a `Loss`, a function of the model, which may run it twice, on changed inputs,
or with randomness of its own; :func:`plain` makes one of a function of the outputs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

# loss(model, inputs, labels, rngs) -> the loss of each example (B,). ``rngs`` has a stream called
# dropout, which models use, and as many others as are asked for by name: rngs.noise(), say.
Loss = Callable[[Any, Any, Array, nnx.Rngs], Float[Array, " B"]]
# metric(outputs, labels) -> a value for each example (B,)
Metric = Callable[[Any, Array], Float[Array, " B"]]


@dataclasses.dataclass(frozen=True)
class Plain:
    """A loss of the outputs alone: ``function(model(inputs), labels)``."""

    function: Metric

    def __call__(
        self, model: Any, inputs: Any, labels: Array, rngs: nnx.Rngs | None = None
    ) -> Array:  # (B,), which the trainer checks whatever the function is
        return self.function(model(inputs, rngs=rngs), labels)


def plain(function: Metric) -> Plain:
    """The :data:`Loss` that is a function of the outputs and labels alone."""
    return Plain(function)


def cross_entropy(logits: Float[Array, "B C"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
    """Softmax cross-entropy in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def precise_cross_entropy(
    logits: Float[Array, "B C"], labels: Int[Array, " B"]
) -> Float[Array, " B"]:
    """Softmax cross-entropy in nats, for losses far below the rounding of float32.

    ::

        loss = -log softmax(l)_y = softplus(log sum_{j != y} exp(l_j) - l_y)

    The usual form, logsumexp(l) - l_y, is 0 or a rounding error once the loss falls under 1e-7,
    and weight decay then pulls at a network that has no gradient to answer with. C >= 2.
    """
    right = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    others = jax.nn.logsumexp(jnp.where(right, -jnp.inf, logits), axis=-1)
    return jax.nn.softplus(others - jnp.where(right, logits, 0.0).sum(-1))


def logistic(outputs: Float[Array, " B"], labels: Float[Array, " B"]) -> Float[Array, " B"]:
    """log(1 + exp(-y f(x))) in nats, for a scalar model f and labels y of ±1."""
    return jax.nn.softplus(-labels * outputs)


def squared_error(outputs: Float[Array, " B"], labels: Float[Array, " B"]) -> Float[Array, " B"]:
    """(f(x) - y)^2, for a scalar model f."""
    return jnp.square(outputs - labels)


def within_half(outputs: Float[Array, " B"], labels: Float[Array, " B"]) -> Float[Array, " B"]:
    """1 where |f(x) - y| < 1/2: for labels 0 and 1, the accuracy of f with a threshold of 1/2."""
    return (jnp.abs(outputs - labels) < 0.5).astype(jnp.float32)


def accuracy(outputs: Float[Array, "B ..."], labels: Array) -> Float[Array, " B"]:
    """1 where the decision is right: the argmax of logits (B, C), the sign of scalars (B,)."""
    if outputs.ndim == 1:
        return (labels * outputs > 0).astype(jnp.float32)
    return (jnp.argmax(outputs, axis=-1) == labels).astype(jnp.float32)
