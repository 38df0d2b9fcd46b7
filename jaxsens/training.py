"""Training: many steps as one compiled scan, several seeds side by side under vmap."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, PyTree

from jaxsens import placement
from jaxsens._check import positive_int
from jaxsens._finite import check_losses, check_parameters, learning_rate
from jaxsens._inference import inference
from jaxsens.data.batches import Batches, Shuffled, examples
from jaxsens.data.split import Split as Split
from jaxsens.losses import Loss, Metric, Plain, accuracy, cross_entropy, plain

# augment(inputs, key) -> inputs of the same shape, a fresh draw at every step
Augment = Callable[[Any, Array], Any]
Data = Split | Batches


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


class Trainer:
    """Trains S models of one structure on the same data, each with its own key.

    Data are a :class:`Split`, of which an epoch visits the examples in a fresh random order and
    drops the remainder of the last batch (``batch_size=None``, or one larger than N, takes all
    examples in one step), or any :class:`~jaxsens.data.batches.Batches`. Randomness is a function
    of key and step alone, so a resumed run repeats the uninterrupted one. ``models`` are in
    training mode and take dropout keys as ``model(inputs, rngs=...)``.

    ``loss(model, inputs, labels, rngs)`` is what is trained on; ``metrics``, functions of outputs
    and labels by name, are what evaluation shows. They default to the loss and the accuracy where
    the loss is :func:`~jaxsens.losses.plain`. ``augment`` changes the inputs of every training
    step, on the device; evaluation never sees it. Loss, metrics and ``augment`` are hashable: a
    function, or a frozen dataclass for one that has settings.

    Raises ValueError when there is no model, or their structures or shapes differ, or metrics are
    missing; and, on training or evaluation, when data are empty, inputs and labels differ in
    number, or a loss or metric is not one value per example.
    """

    def __init__(
        self,
        models: Sequence[nnx.Module],
        optimizer: optax.GradientTransformation,
        *,
        batch_size: int | None = None,
        loss: Loss = plain(cross_entropy),  # noqa: B008
        metrics: Mapping[str, Metric] | None = None,
        augment: Augment | None = None,
    ) -> None:
        if not models:
            raise ValueError("models is empty; expected one model for each seed")
        if metrics is None:
            if not isinstance(loss, Plain):
                raise ValueError(
                    "metrics is missing: a loss of one's own does not say what evaluation shows; "
                    'expected such as {"loss": cross_entropy, "accuracy": accuracy}'
                )
            metrics = {"loss": loss.function, "accuracy": accuracy}
        splits = [split_model(model) for model in models]
        graphdef, params, rest = splits[0]
        if any(
            other != graphdef or _shapes(others) != _shapes((params, rest))
            for other, *others in splits
        ):
            raise ValueError("models differ in structure; seeds trained together must not")
        params, rest = (
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *[split[i] for split in splits])
            for i in (1, 2)
        )
        opt_state = jax.vmap(optimizer.init)(params)
        self.initial = State(params, rest, opt_state, jnp.zeros(len(models), jnp.int32))
        self.spec = Spec(graphdef, optimizer, loss, tuple(metrics.items()), augment)
        self.batch_size = None if batch_size is None else positive_int("batch_size", batch_size)

    def models(self, state: State) -> list[nnx.Module]:
        """The S models of a state, in inference mode."""

        def one(seed: int) -> nnx.Module:
            params, rest = jax.tree.map(lambda leaf: leaf[seed], (state.params, state.rest))
            return inference(nnx.merge(self.spec.graphdef, params, rest))

        return [one(seed) for seed in range(len(state.step))]

    def batches(self, data: Data) -> Batches:
        """The source of batches that ``data`` is, or that its examples make."""
        return Shuffled(data, self.batch_size) if isinstance(data, Split) else data

    def train(
        self, state: State, data: Data, keys: Array, *, steps: int
    ) -> tuple[State, Float[Array, "S steps"]]:
        """Train for some steps in one compiled program; ``state`` is given up (donated).

        ``data`` are shared by the seeds, ``keys`` (S,) are theirs. Where the steps lie in an epoch
        makes no new program. Returns the new state and the loss of every step, as the mean over
        its batch in training mode.
        """
        return _train(self.spec, state, self.batches(data), keys, steps=steps)

    def epochs(
        self, state: State, data: Data, keys: Array, *, epochs: int = 1
    ) -> tuple[State, Float[Array, "S epochs steps"]]:
        """:meth:`train` for whole epochs, from the start of one."""
        per_epoch = self.batches(data).steps_per_epoch
        state, losses = self.train(state, data, keys, steps=epochs * per_epoch)
        return state, losses.reshape(len(keys), epochs, per_epoch)

    def evaluate(
        self, state: State, data: Split | Shuffled, *, batch_size: int = 500
    ) -> dict[str, Float[Array, " S"]]:
        """The mean of each metric over all of ``data`` for each seed, in inference mode.

        ``Shuffled(split, per_seed=True)``, arrays (S, N, ...), are data of its own for each seed.
        """
        per_seed = isinstance(data, Shuffled) and data.per_seed
        split = data.data if isinstance(data, Shuffled) else data
        size = min(positive_int("batch_size", batch_size), examples(split, axis=int(per_seed)))
        return _evaluate(
            self.spec, state.params, state.rest, split, batch_size=size, per_seed=per_seed
        )


# Free functions: a program that held its trainer would keep the trainer's arrays alive.
@functools.partial(jax.jit, static_argnames=("spec", "steps"), donate_argnames="state")
def _train(
    spec: Spec, state: State, batches: Batches, keys: Array, *, steps: int
) -> tuple[State, Float[Array, "S steps"]]:
    start = state.step[0]  # the seeds go in step

    def one_seed(carry: State, batches: Batches, key: Array) -> tuple[State, Array]:
        plan = batches.plan(key, start, steps)
        return jax.lax.scan(functools.partial(_step, spec, batches), carry, plan)

    over = 0 if batches.per_seed else None
    return jax.vmap(one_seed, in_axes=(0, over, 0))(state, batches, keys)


def _step(
    spec: Spec, batches: Batches, state: State, item: tuple[PyTree, Array]
) -> tuple[State, Float[Array, ""]]:
    """One step of one seed."""
    which, key = item
    inputs, labels = batches.batch(which)
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
def _evaluate(
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
            weight = (first + jnp.arange(batch_size) >= start).astype(jnp.float32)
            outputs = model(inputs)
            values = {name: metric(outputs, labels) for name, metric in spec.metrics}
            for name, value in values.items():
                _check_shape(name, value, batch_size)
            return {name: (weight * value).sum() for name, value in values.items()}

        sums = jax.lax.map(batch, starts)
        return {name: value.sum() / total for name, value in sums.items()}

    return jax.vmap(one_seed, in_axes=(0, 0, 0 if per_seed else None))(params, rest, data)


def _check_shape(name: str, values: Any, examples: int) -> None:
    # A batch mean would broadcast, and weigh the last batch of an evaluation wrongly.
    if jnp.shape(values) != (examples,):
        raise ValueError(
            f"{name} has shape {jnp.shape(values)}; expected one value per example, ({examples},)"
        )


def split_model(model: nnx.Module) -> tuple[Any, PyTree, PyTree]:
    """Structure, parameters, and all other state of a module."""
    return cast(Any, nnx.split)(model, nnx.Param, ...)


def _shapes(tree: PyTree) -> list[Any]:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def fit(
    trainer: Trainer,
    data: Data,
    *,
    keys: Array,
    epochs: int | None = None,
    steps: int | None = None,
    every: int = 1,
    state: State | None = None,
) -> Iterator[State]:
    """Train up to an epoch or a step; yield the state at the start and after every ``every``.

    One of ``epochs`` and ``steps`` is given, and ``every`` counts in the same. The whole data set
    is put on the device once. ``every`` steps or epochs are one compiled program, the same one
    wherever they fall; what is measured in between is the caller's, who may stop at any time.
    Continue a run by giving its ``state``, which is used up. A yielded state is valid until the
    next one is asked for.

    Raises ValueError unless there is a key for each model, FloatingPointError on a loss or
    parameters that are not finite.
    """
    every = positive_int("every", every)
    if keys.shape[:1] != trainer.initial.step.shape:
        seeds = len(trainer.initial.step)
        raise ValueError(f"keys have shape {keys.shape}; expected one for each of {seeds} models")
    batches = trainer.batches(data)
    per_epoch = batches.steps_per_epoch
    if steps is not None and epochs is None:
        unit, end = 1, steps
    elif epochs is not None and steps is None:
        unit, end = per_epoch, epochs * per_epoch
    else:
        raise ValueError(f"give either epochs or steps, got epochs={epochs} and steps={steps}")
    batches = (placement.by_seed if batches.per_seed else placement.shared)(batches)
    state = jax.tree.map(jnp.copy, trainer.initial) if state is None else state
    state, keys = placement.by_seed((state, keys))
    yield state
    done = int(state.step[0])
    while done < end:
        count = min(every * unit - done % (every * unit), end - done)
        state, losses = trainer.train(state, batches, keys, steps=count)
        rate = learning_rate(state.optimizer)
        check_losses(losses, first_step=done, steps_per_epoch=per_epoch, learning_rate=rate)
        done += count
        check_parameters(state.params, step=done, steps_per_epoch=per_epoch, learning_rate=rate)
        yield state
