"""Training: whole epochs as one compiled scan, several seeds side by side under vmap."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, PyTree

from jaxsens._check import positive_int
from jaxsens._inference import inference
from jaxsens.data.split import Split as Split

# augment(inputs, key) -> inputs of the same shape, a fresh draw at every step
Augment = Callable[[Array, Array], Array]
# loss(model, inputs, labels, rngs) -> per-example losses (B,) and named per-example metrics (B,)
Loss = Callable[
    [Any, Array, Array, nnx.Rngs | None], tuple[Float[Array, " B"], Mapping[str, Array]]
]


class State(NamedTuple):
    """Everything that training changes; every leaf has a leading axis of S seeds."""

    params: PyTree
    rest: PyTree  # BatchNorm statistics and the like
    optimizer: PyTree
    epoch: Int[Array, " S"]


def cross_entropy(
    model: Any, inputs: Array, labels: Int[Array, " B"], rngs: nnx.Rngs | None = None
) -> tuple[Float[Array, " B"], dict[str, Array]]:
    """Softmax cross-entropy in nats and accuracy (0 or 1) of each example, from logits (B, C)."""
    logits = model(inputs, rngs=rngs)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses, {"accuracy": (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)}


class Trainer:
    """Trains S models of one structure on the same data, each with its own key.

    An epoch visits the examples in a fresh random order and drops the remainder of the last batch;
    ``batch_size=None``, or one larger than N, takes all examples in one step. Randomness is a
    function of (key, epoch, step) alone, so a resumed run repeats the uninterrupted one. ``models``
    are in training mode and take dropout keys as ``model(inputs, rngs=...)``. ``augment`` changes
    the inputs of every training step, on the device; evaluation never sees it.

    Raises ValueError when there is no model, or their structures or shapes differ; and, on
    training or evaluation, when data are empty, inputs and labels differ in number, or the loss is
    not one value per example.
    """

    def __init__(
        self,
        models: Sequence[nnx.Module],
        optimizer: optax.GradientTransformation,
        *,
        batch_size: int | None,
        loss: Loss = cross_entropy,
        augment: Augment | None = None,
    ) -> None:
        if not models:
            raise ValueError("models is empty; expected one model for each seed")
        splits = [_split(model) for model in models]
        self._graphdef, params, rest = splits[0]
        if any(
            graphdef != self._graphdef or _shapes(others) != _shapes((params, rest))
            for graphdef, *others in splits
        ):
            raise ValueError("models differ in structure; seeds trained together must not")
        params, rest = (
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *[split[i] for split in splits])
            for i in (1, 2)
        )
        opt_state = jax.vmap(optimizer.init)(params)
        self.initial = State(params, rest, opt_state, jnp.zeros(len(models), jnp.int32))
        self._optimizer, self._loss, self._augment = optimizer, loss, augment
        self._batch_size = None if batch_size is None else positive_int("batch_size", batch_size)

    def models(self, state: State) -> list[nnx.Module]:
        """The S models of a state, in inference mode."""

        def one(seed: int) -> nnx.Module:
            params, rest = jax.tree.map(lambda leaf: leaf[seed], (state.params, state.rest))
            return inference(nnx.merge(self._graphdef, params, rest))

        return [one(seed) for seed in range(len(state.epoch))]

    @functools.partial(jax.jit, static_argnames=("self", "epochs"), donate_argnames="state")
    def epochs(
        self, state: State, data: Split, keys: Array, *, epochs: int = 1
    ) -> tuple[State, dict[str, Float[Array, "S epochs steps"]]]:
        """Train for some epochs in one compiled program; ``state`` is given up (donated).

        ``data`` (N, ...) is shared by the seeds, ``keys`` (S,) are theirs. Returns the new state
        and the loss and metrics of every step, as means over its batch in training mode.
        """
        examples = _examples(data)
        size = min(self._batch_size or examples, examples)

        def step(carry: State, batch: tuple[Int[Array, " B"], Array]) -> tuple[State, Any]:
            indices, key = batch
            inputs, labels = jax.tree.map(lambda leaf: leaf[indices], data)
            if self._augment is not None:
                key, augment_key = jax.random.split(key)
                inputs = self._augment(inputs, augment_key)

            def objective(params: PyTree) -> tuple[Array, Any]:
                # A copy, because statistics that enter by closure cannot be updated.
                model = nnx.merge(self._graphdef, params, carry.rest, copy=True)
                values = self._values(model, inputs, labels, nnx.Rngs(dropout=key))
                means = {name: value.mean() for name, value in values.items()}
                return means["loss"], (_split(model)[2], means)

            gradients, (rest, means) = jax.grad(objective, has_aux=True)(carry.params)
            updates, optimizer = self._optimizer.update(gradients, carry.optimizer, carry.params)
            params = optax.apply_updates(carry.params, updates)
            return carry._replace(params=params, rest=rest, optimizer=optimizer), means

        def epoch(carry: State, _: None, key: Array) -> tuple[State, Any]:
            order_key, step_key = jax.random.split(jax.random.fold_in(key, carry.epoch))
            steps = examples // size
            order = jax.random.permutation(order_key, examples)[: steps * size]
            carry, logs = jax.lax.scan(
                step, carry, (order.reshape(steps, size), jax.random.split(step_key, steps))
            )
            return carry._replace(epoch=carry.epoch + 1), logs

        def one_seed(carry: State, key: Array) -> tuple[State, Any]:
            return jax.lax.scan(functools.partial(epoch, key=key), carry, length=epochs)

        return jax.vmap(one_seed)(state, keys)

    @functools.partial(jax.jit, static_argnames=("self", "batch_size"))
    def evaluate(
        self, state: State, data: Split, *, batch_size: int = 500
    ) -> dict[str, Float[Array, " S"]]:
        """Mean loss and metrics of each seed over all of ``data``, in inference mode."""
        examples = _examples(data)
        size = min(positive_int("batch_size", batch_size), examples)
        starts = jnp.arange(0, examples, size)

        def one_seed(params: PyTree, rest: PyTree) -> dict[str, Array]:
            model = inference(nnx.merge(self._graphdef, params, rest))

            def batch(start: Array) -> dict[str, Array]:
                # The last batch starts early enough to be whole; what it repeats has weight 0.
                first = jnp.minimum(start, examples - size)
                inputs, labels = jax.tree.map(
                    lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size), data
                )
                weight = (first + jnp.arange(size) >= start).astype(jnp.float32)
                values = self._values(model, inputs, labels, None)
                return {name: (weight * value).sum() for name, value in values.items()}

            sums = jax.lax.map(batch, starts)
            return {name: value.sum() / examples for name, value in sums.items()}

        return jax.vmap(one_seed)(state.params, state.rest)

    def _values(
        self, model: Any, inputs: Array, labels: Array, rngs: nnx.Rngs | None
    ) -> dict[str, Float[Array, " B"]]:
        """Loss and metrics of each example."""
        losses, metrics = self._loss(model, inputs, labels, rngs)
        values = {"loss": losses, **metrics}
        for name, value in values.items():
            # A batch mean would broadcast, and weigh the last batch of an evaluation wrongly.
            if jnp.shape(value) != (len(labels),):
                raise ValueError(
                    f"{name} has shape {jnp.shape(value)}; expected one value per example, "
                    f"({len(labels)},)"
                )
        return values


def _split(model: nnx.Module) -> tuple[Any, PyTree, PyTree]:
    """Structure, parameters, and all other state of a module."""
    return cast(Any, nnx.split)(model, nnx.Param, ...)


def _shapes(tree: PyTree) -> list[Any]:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def _examples(data: Split) -> int:
    """The number of examples. Raises ValueError where indexing would go wrong silently."""
    sizes = {len(leaf) for leaf in jax.tree.leaves(data)}
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(
            f"data have {len(data.inputs)} inputs and {len(data.labels)} labels; expected as many "
            "of one as of the other, and at least one"
        )
    return len(data.labels)


def check_finite(
    logs: Mapping[str, Array], *, first_epoch: int, learning_rate: float | None = None
) -> None:
    """Raise FloatingPointError, with epoch, step and seed, if a loss (S, epochs, steps) is bad.

    ``first_epoch`` numbers the first epoch of ``logs``; epochs and steps count from 1.
    """
    bad = np.argwhere(~np.isfinite(np.asarray(logs["loss"])).transpose(1, 2, 0))
    if len(bad):
        epoch, step, seed = bad[0]
        raise FloatingPointError(
            f"the training loss is not finite at epoch {first_epoch + epoch}, step {step + 1}, "
            f"seed number {seed}{_with_rate(learning_rate)}; lower the learning rate"
        )


def _check_parameters(state: State, learning_rate: float | None) -> None:
    """The last update may overflow after a finite loss; measures would then see NaN."""
    for leaf in map(np.asarray, jax.tree.leaves(state.params)):
        finite = np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
        if not finite.all():
            raise FloatingPointError(
                f"parameters are not finite after epoch {int(state.epoch[0])}, seed number "
                f"{np.argmin(finite)}{_with_rate(learning_rate)}; lower the learning rate"
            )


def _with_rate(learning_rate: float | None) -> str:
    return "" if learning_rate is None else f" (learning rate {learning_rate:g})"


def fit(
    trainer: Trainer,
    train: Split,
    *,
    keys: Array,
    epochs: int,
    every: int = 1,
    state: State | None = None,
) -> Iterator[State]:
    """Train up to epoch ``epochs``; yield the state at the start and after every ``every`` epochs.

    The whole data set is put on the device once. ``every`` epochs are one compiled program; what is
    measured in between is the caller's. Continue a run by giving its ``state``, which is used up. A
    yielded state is valid until the next one is asked for. Raises ValueError unless there is a key
    for each model, FloatingPointError on a loss or parameters that are not finite.
    """
    every = positive_int("every", every)
    if keys.shape[:1] != trainer.initial.epoch.shape:
        seeds = len(trainer.initial.epoch)
        raise ValueError(f"keys have shape {keys.shape}; expected one for each of {seeds} models")
    data = jax.device_put(train)
    state = jax.tree.map(jnp.copy, trainer.initial) if state is None else state
    yield state
    done = int(state.epoch[0])
    while done < epochs:
        count = min(every - done % every, epochs - done)
        state, logs = trainer.epochs(state, data, keys, epochs=count)
        rate = _learning_rate(state)
        check_finite(logs, first_epoch=done + 1, learning_rate=rate)
        done += count
        _check_parameters(state, rate)
        yield state


def _learning_rate(state: State) -> float | None:
    """The rate that ``optax.inject_hyperparams`` shows, None when there is none or several."""
    rates = optax.tree_utils.tree_get_all_with_path(
        # A schedule keeps a state of its own under the same name.
        state.optimizer,
        "learning_rate",
        filtering=lambda _, value: isinstance(value, Array),
    )
    return float(np.ravel(rates[0][1])[0]) if len(rates) == 1 else None
