"""What a training compiles: the plan of many steps, the steps as one scan, an evaluation."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int, PyTree

from jaxsens import placement
from jaxsens._inference import inference
from jaxsens.data.batches import Batches, examples
from jaxsens.data.split import Split
from jaxsens.losses import Loss, Metric

# augment(inputs, key) -> inputs of the same shape, a fresh draw at every step
Augment = Callable[[Any, Array], Any]


class State(NamedTuple):
    """Everything that training changes; every leaf has a leading axis of S seeds."""

    params: PyTree
    rest: PyTree  # BatchNorm statistics and the like
    optimizer: PyTree
    step: Int[Array, " S"]


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a compiled program is made for: everything about a training but its arrays."""

    graphdef: Any
    optimizer: optax.GradientTransformation
    loss: Loss
    metrics: tuple[tuple[str, Metric], ...]
    augment: Augment | None
    mesh: Mesh | None = None  # groups of devices for seeds, and rows within a group


# Free functions: a program that held its trainer would keep the trainer's arrays alive. The plan is
# a program of its own, because permutations take longer to compile than most models, which it is
# the same for.
@functools.partial(jax.jit, static_argnames=("mesh", "steps"))
def plan(
    batches: Batches, keys: Array, step: Int[Array, " S"], *, mesh: Mesh | None, steps: int
) -> PyTree:
    def one_seed(batches: Batches, key: Array) -> PyTree:
        return batches.plan(key, step[0], steps)  # the seeds go in step

    over = 0 if batches.per_seed else None
    return placement.constrain(
        placement.each_seed(one_seed, mesh, (over, 0))(batches, keys), mesh, placement.SEEDS
    )


@functools.partial(jax.jit, static_argnames="spec", donate_argnames="state")
def train(
    spec: Spec, state: State, batches: Batches, plan: PyTree
) -> tuple[State, Float[Array, "S steps"]]:
    # The same for all seeds: by seed, a switch would take every branch and drop all but one.
    kinds = cast(Any, batches).kind(plan[0])[0] if hasattr(batches, "shapes") else None

    def one_seed(carry: State, batches: Batches, plan: PyTree) -> tuple[State, Array]:
        return jax.lax.scan(functools.partial(_step, spec, batches), carry, (plan, kinds))

    over = 0 if batches.per_seed else None
    state, losses = placement.each_seed(one_seed, spec.mesh, (0, over, 0))(state, batches, plan)
    state = placement.constrain(state, spec.mesh, placement.SEEDS)
    return state, placement.constrain(losses, spec.mesh, None)


def _step(
    spec: Spec, batches: Batches, state: State, item: tuple[tuple[PyTree, Array], Array | None]
) -> tuple[State, Float[Array, ""]]:
    """One step of one seed."""
    (which, key), kind = item
    if kind is None:
        return _update(spec, batches.batch(which), state, key)
    shaped: Any = batches

    # A whole step for each shape: a branch inside the gradient would carry what all others kept.
    def of(kind: int) -> Callable[[State, Array], tuple[State, Array]]:
        return lambda state, key: _update(spec, shaped.batch(which, kind), state, key)

    return jax.lax.switch(kind, [of(kind) for kind in range(shaped.shapes)], state, key)


def _update(spec: Spec, batch: Split, state: State, key: Array) -> tuple[State, Float[Array, ""]]:
    """One step of one seed on its batch."""
    inputs, labels = placement.constrain(batch, spec.mesh, placement.ROWS)
    if spec.augment is not None:
        key, augment_key = jax.random.split(key)
        inputs = spec.augment(inputs, augment_key)

    def objective(params: PyTree) -> tuple[Array, PyTree]:
        # A copy, because statistics that enter by closure cannot be updated.
        model = nnx.merge(spec.graphdef, params, state.rest, copy=True)
        losses = spec.loss(model, inputs, cast(Array, labels), streams(key))
        _check_shape("loss", losses, len(labels))
        return losses.mean(), split_model(model)[2]

    (loss, rest), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, optimizer = spec.optimizer.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    return State(params, rest, optimizer, state.step + 1), loss


def streams(key: Array) -> nnx.Rngs:
    """The random streams of one step: ``dropout``, and a second one for every other name."""
    # Dropout counts up from 0; no layer will ever reach the number that makes the other stream.
    return nnx.Rngs(jax.random.fold_in(key, 2**32 - 1), dropout=key)


@functools.partial(jax.jit, static_argnames=("spec", "batch_size", "per_seed"))
def evaluate(
    spec: Spec, params: PyTree, rest: PyTree, data: Split, *, batch_size: int, per_seed: bool
) -> dict[str, Float[Array, " S"]]:
    total = examples(data, axis=int(per_seed))
    starts = jnp.arange(0, total, batch_size)

    def one_seed(params: PyTree, rest: PyTree, data: Split) -> dict[str, Array]:
        model = inference(nnx.merge(spec.graphdef, params, rest))

        def batch(start: Array) -> dict[str, Array]:
            # The last batch starts early enough to be whole; what it repeats has weight 0.
            first = jnp.minimum(start, total - batch_size)
            inputs, labels = jax.tree.map(
                lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, batch_size), data
            )
            inputs, labels = placement.constrain((inputs, labels), spec.mesh, placement.ROWS)
            weight = (first + jnp.arange(batch_size) >= start).astype(jnp.float32)
            outputs = model(inputs)
            values = {name: metric(outputs, labels) for name, metric in spec.metrics}
            for name, value in values.items():
                _check_shape(name, value, batch_size)
            return {name: (weight * value).sum() for name, value in values.items()}

        sums = jax.lax.map(batch, starts)
        return {name: value.sum() / total for name, value in sums.items()}

    over = 0 if per_seed else None
    values = placement.each_seed(one_seed, spec.mesh, (0, 0, over))(params, rest, data)
    return placement.constrain(values, spec.mesh, None)


def _check_shape(name: str, values: Any, examples: int) -> None:
    # A batch mean would broadcast, and weigh the last batch of an evaluation wrongly.
    if jnp.shape(values) != (examples,):
        raise ValueError(
            f"{name} has shape {jnp.shape(values)}; expected one value per example, ({examples},)"
        )


def split_model(model: nnx.Module) -> tuple[Any, PyTree, PyTree]:
    """Structure, parameters, and all other state of a module."""
    return cast(Any, nnx.split)(model, nnx.Param, ...)
