"""The worst direction: ascent on a loss in a ball around the weights, and its largest curvature."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxsens._check import checked_inputs, checked_key, positive_float, positive_int
from jaxsens._inference import inference
from jaxsens._weights import Weights, Where, nudge
from jaxsens.sharpness import ROWS, Labelled, Loss


def worst_case(
    loss: Loss,
    model: Any,
    inputs: Any,
    labels: Any,
    *,
    key: Array,
    radius: float = 0.05,
    steps: int = 10,
    where: Where | None = None,
    batch_size: int = ROWS,
) -> float:
    """The largest increase of the mean loss found within a ball around the weights.

    ::

        max_{|xi| <= radius} L(theta + xi) - L(theta),    L the mean loss over all examples

    by ``steps`` steps of length ``radius`` along the gradient, each projected back on the ball,
    from a random point of its surface. What is found is a lower bound of the maximum. ``loss`` and
    ``where`` as for ``jaxsens.sharpness.average_direction``.
    """
    radius, steps = positive_float("radius", radius), positive_int("steps", steps)
    arrays, data, mean = _mean(loss, model, inputs, labels, where, batch_size)
    climb = optax.chain(optax.normalize_by_update_norm(), optax.scale(radius))

    @jax.jit
    def value_and_gradient(xi: list[Array], arrays: list[Array], data: Labelled) -> Any:
        return mean(xi, arrays, data, jax.value_and_grad)

    @jax.jit
    def step(xi: list[Array], gradient: list[Array]) -> list[Array]:
        update, _ = climb.update(gradient, climb.init(xi))
        return optax.projections.projection_l2_ball(optax.apply_updates(xi, update), radius)

    start, _ = value_and_gradient([jnp.zeros_like(a) for a in arrays], arrays, data)
    xi = nudge(arrays, checked_key(key), size=radius, kind="sphere")
    best = -np.inf
    for _ in range(steps):
        value, gradient = value_and_gradient(xi, arrays, data)
        best = max(best, float(value))
        xi = step(xi, gradient)
    best = max(best, float(value_and_gradient(xi, arrays, data)[0]))
    if not np.isfinite(best):
        raise ValueError(f"the loss is not finite within a radius of {radius:g}; make it smaller")
    return best - float(start)


def hessian_eigenvalue(
    loss: Loss,
    model: Any,
    inputs: Any,
    labels: Any,
    *,
    key: Array,
    tolerance: float = 1e-3,
    where: Where | None = None,
    batch_size: int = ROWS,
) -> float:
    """The largest eigenvalue of the Hessian of the mean loss in the weights.

    By ARPACK's Lanczos iteration (scipy.sparse.linalg.eigsh) on Hessian-vector products, to a
    relative ``tolerance``. Raises ValueError where it does not converge.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    arrays, data, mean = _mean(loss, model, inputs, labels, where, batch_size)
    flat, unravel = ravel_pytree(arrays)
    zero = [jnp.zeros_like(a) for a in arrays]

    def along(function: Callable[[list[Array]], Array], vector: list[Array]) -> list[Array]:
        return jax.jvp(jax.grad(function), (zero,), (vector,))[1]

    @jax.jit
    def product(vector: Array, arrays: list[Array], data: Labelled) -> Array:
        way = unravel(vector)
        return ravel_pytree(mean(zero, arrays, data, lambda f: lambda _: along(f, way)))[0]

    def apply(vector: np.ndarray) -> np.ndarray:
        return np.asarray(product(jnp.asarray(vector, flat.dtype), arrays, data), float)

    size = flat.size
    if size == 1:
        return float(apply(np.ones(1))[0])
    operator = LinearOperator((size, size), matvec=apply, dtype=float)
    start = np.asarray(jax.random.normal(checked_key(key), (size,)), float)
    try:
        found = eigsh(operator, k=1, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)
    except ArpackNoConvergence:
        raise ValueError(
            f"the Lanczos iteration did not reach a tolerance of {tolerance:g}; raise it"
        ) from None
    return float(found[0])


def _mean(
    loss: Loss, model: Any, inputs: Any, labels: Any, where: Where | None, batch_size: int
) -> tuple[list[Array], Labelled, Callable[..., Any]]:
    """The weights, the data, and ``mean(xi, weights, data, transform)``.

    That is transform(L)(xi) for L(xi) the mean loss at theta + xi. The transform is linear in L (a
    gradient, a Hessian-vector product) and is taken batch by batch, so that memory does not grow
    with the number of examples.
    """
    weights = Weights(inference(model), where)
    data = jax.device_put(checked_inputs(Labelled(inputs, np.asarray(labels))))
    count = len(data.labels)
    rows = min(positive_int("batch_size", batch_size), count)
    whole = count // rows

    def mean(
        xi: list[Array], arrays: list[Array], data: Labelled, transform: Callable[..., Any]
    ) -> Any:
        def part(batch: Labelled) -> Any:
            def value(xi: list[Array]) -> Array:
                moved = weights.model([a + n for a, n in zip(arrays, xi, strict=True)])
                return loss(moved, batch.inputs, batch.labels).sum() / count

            return transform(value)(xi)

        def add(so_far: Any, batch: Labelled) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, so_far, part(batch)), None

        first = jax.tree.map(lambda leaf: leaf[: whole * rows], data)
        last = jax.tree.map(lambda leaf: leaf[whole * rows :], data)
        first = jax.tree.map(lambda leaf: leaf.reshape(whole, rows, *leaf.shape[1:]), first)
        shapes = jax.eval_shape(part, jax.tree.map(lambda leaf: leaf[0], first))
        found = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        found, _ = jax.lax.scan(add, found, first)
        return add(found, last)[0] if whole * rows < count else found

    return weights.arrays, data, mean
