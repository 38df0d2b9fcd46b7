"""Where the examples of a training step come from: a data set in random order, or fresh draws."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, PyTree

from jaxsens._check import positive_int
from jaxsens._pytree import pytree
from jaxsens.data.split import Split


class Batches(Protocol):
    """The protocol of a source of batches: any pytree with these members.

    - ``steps_per_epoch``: how many steps make an epoch, a static integer.
    - ``per_seed``: True where every array has a leading axis of S seeds, a data set for each;
      ``plan`` and ``batch`` then see one seed's.
    - ``plan(key, start, steps)``: what the steps ``start``, ..., ``start + steps - 1`` need, as a
      pytree of (steps, ...) arrays, and a key for the other randomness of each, (steps,). It must
      be a function of the key and the number of the step alone, so that a resumed run repeats the
      uninterrupted one. Traced; ``start`` is traced too, ``steps`` is static.
    - ``batch(item)``: the examples of one step from its item of the plan. Traced.

    Where batches have several shapes (:class:`~jaxsens.data.buckets.Buckets`): ``shapes``, how
    many, ``kind(item)``, the number of the one that a step has, which may not depend on the key
    of ``plan``, and ``batch(item, kind)`` for each.
    """

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def per_seed(self) -> bool: ...

    def plan(self, key: Array, start: Int[Array, ""], steps: int) -> tuple[PyTree, Array]: ...

    def batch(self, item: Any) -> Split: ...


def examples(split: Split, *, axis: int = 0) -> int:
    """How many examples there are. Raises ValueError where indexing would go wrong silently."""
    sizes = {leaf.shape[axis] for leaf in jax.tree.leaves(split)}
    inputs = sorted({leaf.shape[axis] for leaf in jax.tree.leaves(split.inputs)})
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(
            f"data have {' and '.join(map(str, inputs))} inputs and {split.labels.shape[axis]} "
            "labels; expected as many of one as of the other, and at least one"
        )
    return split.labels.shape[axis]


@pytree(data=("data",), meta=("size", "total", "per_seed"))
class Shuffled:
    """A data set, visited in a fresh random order in each epoch; a last part of a batch is dropped.

    ``batch_size=None``, or one larger than N, takes all examples in one step. With ``per_seed``
    the arrays are (S, N, ...). Raises ValueError for data that are empty or of unequal length.
    """

    data: Split
    size: int
    total: int
    per_seed: bool

    def __init__(
        self, data: Split, batch_size: int | None = None, *, per_seed: bool = False
    ) -> None:
        self.data, self.per_seed = data, per_seed
        self.total = examples(data, axis=int(per_seed))
        size = self.total if batch_size is None else positive_int("batch_size", batch_size)
        self.size = min(size, self.total)

    @property
    def steps_per_epoch(self) -> int:
        return self.total // self.size

    def plan(self, key: Array, start: Int[Array, ""], steps: int) -> tuple[PyTree, Array]:
        """Indices (steps, batch) and keys: permutations of the epochs that the steps fall into."""
        per_epoch = self.steps_per_epoch
        touched = (per_epoch + steps - 2) // per_epoch + 1  # wherever in its epoch the first is

        def epoch(number: Array) -> tuple[Array, Array]:
            order_key, step_key = jax.random.split(jax.random.fold_in(key, number))
            order = jax.random.permutation(order_key, self.total)[: per_epoch * self.size]
            return order.reshape(per_epoch, self.size), jax.random.split(step_key, per_epoch)

        first = start // per_epoch
        # One after another: several permutations at once take seconds to compile.
        orders, keys = jax.lax.map(epoch, first + jnp.arange(touched))
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(
                leaf.reshape(touched * per_epoch, *leaf.shape[2:]), start % per_epoch, steps
            ),
            (orders, keys),
        )

    def batch(self, item: Int[Array, " batch"]) -> Split:
        return self.data.take(item)


@pytree(data=("given",), meta=("draw", "steps_per_epoch", "per_seed"))
class Fresh:
    """Examples drawn afresh on the device for every step, from no data set.

    ``draw(key)`` returns a :class:`Split` of one batch; it must be hashable (a function, a frozen
    dataclass) and pure. Arrays that it needs, a table of labels say, are ``given`` and handed to it
    as ``draw(key, given)``, with ``per_seed`` those of one seed. An epoch is a number of steps.
    """

    given: Any
    draw: Callable[..., Split]
    steps_per_epoch: int
    per_seed: bool

    def __init__(
        self,
        draw: Callable[..., Split],
        given: Any = None,
        *,
        steps_per_epoch: int = 1,
        per_seed: bool = False,
    ) -> None:
        self.draw, self.given, self.per_seed = draw, given, per_seed
        self.steps_per_epoch = positive_int("steps_per_epoch", steps_per_epoch)

    def plan(self, key: Array, start: Int[Array, ""], steps: int) -> tuple[PyTree, Array]:
        def step(number: Array) -> tuple[Array, Array]:
            draw_key, step_key = jax.random.split(jax.random.fold_in(key, number))
            return draw_key, step_key

        return jax.vmap(step)(start + jnp.arange(steps))

    def batch(self, item: Array) -> Split:
        return self.draw(item) if self.given is None else self.draw(item, self.given)
