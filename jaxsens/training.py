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
from jaxsens._model import inference

# loss(model, inputs, labels, rngs) -> per-example losses (B,) and named per-example metrics (B,)
Loss = Callable[
    [Any, Array, Array, nnx.Rngs | None], tuple[Float[Array, " B"], Mapping[str, Array]]
]


class Split(NamedTuple):
    """Examples and what is to be predicted, batch first."""

    inputs: np.ndarray | Array
    labels: np.ndarray | Array


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
    ``batch_size=None`` takes all examples in one step. Randomness is a function of (key, epoch,
    step) alone, so a resumed run repeats the uninterrupted one. ``models`` are in training mode and
    take dropout keys as ``model(inputs, rngs=...)``.

    Raises ValueError when the models' structures differ.
    """

    def __init__(
        self,
        models: Sequence[nnx.Module],
        optimizer: optax.GradientTransformation,
        *,
        batch_size: int | None,
        loss: Loss = cross_entropy,
    ) -> None:
        splits = [_split(model) for model in models]
        self._graphdef, params, rest = splits[0]
        if any(graphdef != self._graphdef for graphdef, _, _ in splits):
            raise ValueError("models differ in structure; seeds trained together must not")
        params, rest = (
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *[split[i] for split in splits])
            for i in (1, 2)
        )
        opt_state = jax.vmap(optimizer.init)(params)
        self.initial = State(params, rest, opt_state, jnp.zeros(len(models), jnp.int32))
        self._optimizer, self._loss = optimizer, loss
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
        examples = len(data.labels)
        size = min(self._batch_size or examples, examples)

        def step(carry: State, batch: tuple[Int[Array, " B"], Array]) -> tuple[State, Any]:
            indices, key = batch
            inputs, labels = jax.tree.map(lambda leaf: leaf[indices], data)

            def objective(params: PyTree) -> tuple[Array, Any]:
                model = nnx.merge(self._graphdef, params, carry.rest)
                losses, metrics = self._loss(model, inputs, labels, nnx.Rngs(dropout=key))
                _, _, rest = _split(model)
                means = {name: metric.mean() for name, metric in metrics.items()}
                return losses.mean(), (rest, means)

            (loss, (rest, means)), gradients = jax.value_and_grad(objective, has_aux=True)(
                carry.params
            )
            updates, optimizer = self._optimizer.update(gradients, carry.optimizer, carry.params)
            params = optax.apply_updates(carry.params, updates)
            return carry._replace(params=params, rest=rest, optimizer=optimizer), {
                "loss": loss,
                **means,
            }

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
        examples = len(data.labels)
        size = min(batch_size, examples)
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
                losses, metrics = self._loss(model, inputs, labels, None)
                return {
                    name: (weight * value).sum()
                    for name, value in {"loss": losses, **metrics}.items()
                }

            sums = jax.lax.map(batch, starts)
            return {name: value.sum() / examples for name, value in sums.items()}

        return jax.vmap(one_seed)(state.params, state.rest)


def _split(model: nnx.Module) -> tuple[Any, PyTree, PyTree]:
    """Structure, parameters, and all other state of a module."""
    return cast(Any, nnx.split)(model, nnx.Param, ...)


def check_finite(
    logs: Mapping[str, Array], *, first_epoch: int, learning_rate: float | None = None
) -> None:
    """Raise FloatingPointError, with epoch, step and seed, if a loss (S, epochs, steps) is bad.

    ``first_epoch`` numbers the first epoch of ``logs``; epochs and steps count from 1.
    """
    bad = np.argwhere(~np.isfinite(np.asarray(logs["loss"])).transpose(1, 2, 0))
    if len(bad):
        epoch, step, seed = bad[0]
        rate = "" if learning_rate is None else f" (learning rate {learning_rate:g})"
        raise FloatingPointError(
            f"the training loss is not finite at epoch {first_epoch + epoch}, step {step + 1}, "
            f"seed number {seed}{rate}; lower the learning rate"
        )


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
    measured in between is the caller's. Continue a run by giving its ``state``. A yielded state is
    valid until the next one is asked for. Raises FloatingPointError on a loss that is not finite.
    """
    data = jax.device_put(train)
    state = jax.tree.map(jnp.copy, trainer.initial) if state is None else state
    yield state
    done = int(state.epoch[0])
    while done < epochs:
        count = min(every - done % every, epochs - done)
        state, logs = trainer.epochs(state, data, keys, epochs=count)
        check_finite(logs, first_epoch=done + 1, learning_rate=_learning_rate(state))
        done += count
        yield state


def _learning_rate(state: State) -> float | None:
    rate = optax.tree_utils.tree_get(state.optimizer, "learning_rate")
    return None if rate is None else float(np.ravel(rate)[0])
