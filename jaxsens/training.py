"""Training: many steps as one compiled scan, several seeds side by side under vmap."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, PyTree

from jaxsens import _programs, placement
from jaxsens._check import positive_int
from jaxsens._finite import check_losses, check_parameters, learning_rate
from jaxsens._inference import inference
from jaxsens._programs import Augment, Spec, split_model
from jaxsens._programs import State as State
from jaxsens._programs import streams as streams
from jaxsens.data.batches import Batches, Shuffled, examples
from jaxsens.data.split import Split as Split
from jaxsens.losses import Loss, Metric, Plain, accuracy, cross_entropy, plain

Data = Split | Batches
# What is evaluated: one split, one for each seed, or parts of one (sequences by their length)
Evaluated = Split | Shuffled | Sequence[Split]

MOST = 128  # steps in a call of the compiled program, between which an interrupt is heard


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

    ``mesh``, a ``jax.sharding.Mesh``, is the devices to train on, whatever its axes, on this and
    other hosts (then every process makes the same calls with the same arguments). Of D devices and
    S seeds, each of gcd(S, D) groups of devices has its seeds, and divides the examples of every
    batch. What is computed is that of one device, up to the order in which sums are taken.

    Raises TypeError for a ``mesh`` that is none, ValueError when there is no model, or their
    structures or shapes differ, or metrics are missing; and, on training or evaluation, when data
    are empty, inputs and labels differ in number, or a loss or metric is not one value per example.
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
        mesh: Mesh | None = None,
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
        self.mesh = placement.training_mesh(mesh, len(models))
        params, rest = (
            jax.tree.map(
                lambda *leaves: jnp.stack(leaves),
                *[placement.replicate(split[i], self.mesh) for split in splits],
            )
            for i in (1, 2)
        )
        opt_state = jax.vmap(optimizer.init)(params)
        initial = State(params, rest, opt_state, jnp.zeros(len(models), jnp.int32))
        self.initial = initial if mesh is None else placement.by_seed(initial, self.mesh)
        self.spec = Spec(graphdef, optimizer, loss, tuple(metrics.items()), augment, self.mesh)
        self.batch_size = None if batch_size is None else positive_int("batch_size", batch_size)

    def models(self, state: State) -> list[nnx.Module]:
        """The S models of a state, in inference mode."""
        everywhere = placement.replicate((state.params, state.rest), self.mesh)

        def one(seed: int) -> nnx.Module:
            params, rest = jax.tree.map(lambda leaf: leaf[seed], everywhere)
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
        batches = self.batches(data)
        if self.mesh is not None:
            state, batches, keys = self.place(state, batches, keys)
        plan = _programs.plan(batches, keys, state.step, mesh=self.mesh, steps=steps)
        return _programs.train(self.spec, state, batches, plan)

    def place(self, state: State, batches: Batches, keys: Array) -> tuple[State, Batches, Array]:
        """All of them on the devices that train; what is there already is not moved."""
        put = placement.by_seed if batches.per_seed else placement.shared
        state, keys = placement.by_seed((state, keys), self.mesh)
        return state, put(batches, self.mesh), keys

    def epochs(
        self, state: State, data: Data, keys: Array, *, epochs: int = 1
    ) -> tuple[State, Float[Array, "S epochs steps"]]:
        """:meth:`train` for whole epochs, from the start of one."""
        per_epoch = self.batches(data).steps_per_epoch
        state, losses = self.train(state, data, keys, steps=epochs * per_epoch)
        return state, losses.reshape(len(keys), epochs, per_epoch)

    def evaluate(
        self, state: State, data: Evaluated, *, batch_size: int = 500
    ) -> dict[str, Float[Array, " S"]]:
        """The mean of each metric over all of ``data`` for each seed, in inference mode.

        ``Shuffled(split, per_seed=True)``, arrays (S, N, ...), are data of its own for each seed;
        several splits are parts of one, of which the mean is over all examples.
        """
        size = positive_int("batch_size", batch_size)
        if not isinstance(data, Split | Shuffled):
            parts = [(examples(part), self.evaluate(state, part, batch_size=size)) for part in data]
            total = sum(count for count, _ in parts)
            return {
                name: jnp.stack([count / total * found[name] for count, found in parts]).sum(0)
                for name in parts[0][1]
            }
        per_seed = isinstance(data, Shuffled) and data.per_seed
        split = data.data if isinstance(data, Shuffled) else data
        size = min(size, examples(split, axis=int(per_seed)))
        if self.mesh is not None:
            put = placement.by_seed if per_seed else placement.shared
            state, split = placement.by_seed(state, self.mesh), put(split, self.mesh)
        return _programs.evaluate(
            self.spec, state.params, state.rest, split, batch_size=size, per_seed=per_seed
        )


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
    is put on the device once. ``every`` steps or epochs are calls of one compiled program, the same
    one wherever they fall, of some hundred steps: an interrupt is heard between two of them. What
    is measured in between is the caller's, who may stop at any time.
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
    state = jax.tree.map(jnp.copy, trainer.initial) if state is None else state
    state, batches, keys = trainer.place(state, batches, keys)
    yield state
    done = int(placement.read(state.step)[0])
    while done < end:
        count = min(every * unit - done % (every * unit), end - done)
        steps_a_call = _evenly(count)
        for _ in range(count // steps_a_call):
            state, losses = trainer.train(state, batches, keys, steps=steps_a_call)
            rate = learning_rate(state.optimizer)
            check_losses(losses, first_step=done, steps_per_epoch=per_epoch, learning_rate=rate)
            done += steps_a_call
        check_parameters(state.params, step=done, steps_per_epoch=per_epoch, learning_rate=rate)
        yield state


def _evenly(steps: int) -> int:
    """The largest part of at most `MOST` that divides so many steps; all of them if it is small."""
    part = max(part for part in range(1, MOST + 1) if steps % part == 0)
    return part if 8 * part >= MOST else steps
