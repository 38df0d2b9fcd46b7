"""Sequences of like length together, so that a batch is no longer than its longest needs."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int, PyTree

from jaxsens._check import positive_int
from jaxsens._pytree import pytree
from jaxsens.data.batches import examples
from jaxsens.data.split import Split

ORDER = 20240306  # of the key by which the batches of an epoch are visited, for all seeds alike


def bucket_lengths(
    lengths: Int[np.ndarray, " N"], count: int = 4, multiple: int = 8
) -> tuple[int, ...]:
    """At most ``count`` lengths, ascending, that waste least when each sequence is padded to one.

    All are multiples of ``multiple`` but for the last, the longest sequence's. Of all choices the
    one with the fewest padded tokens in total, by dynamic programming over the multiples.
    """
    count, multiple = positive_int("count", count), positive_int("multiple", multiple)
    longest = int(lengths.max())
    steps = sorted({min(multiple * k, longest) for k in range(1, -(-longest // multiple) + 1)})
    within = [int((lengths <= step).sum()) for step in steps]
    # cost[j]: tokens of all sequences up to steps[j], in as many buckets as the round has allowed.
    cost = [step * held for step, held in zip(steps, within, strict=True)]
    chosen: list[tuple[int, ...]] = [(step,) for step in steps]
    for _ in range(count - 1):
        found = []
        for j, step in enumerate(steps):
            options = [(cost[j], chosen[j])] + [
                (cost[i] + step * (within[j] - within[i]), (*chosen[i], step))
                for i in range(j)
                if within[i]
            ]
            found.append(min(options))
        cost, chosen = [c for c, _ in found], [c for _, c in found]
    return chosen[-1]


def bucketed(
    data: Split, lengths: Int[np.ndarray, " N"], widths: Sequence[int]
) -> tuple[Split, ...]:
    """The examples by the first width that holds them, each part cut to it; empty ones left out.

    Every array of the inputs is (N, T, ...). Within a part the order is that of ``data``.
    """
    which = _bucket(lengths, widths)
    parts = []
    for number, width in enumerate(widths):
        own = data.take(np.flatnonzero(which == number))
        if len(own.labels):
            parts.append(_cut(own, width))
    return tuple(parts)


@pytree(data=("data", "first", "kinds"), meta=("widths", "counts", "size"))
class Buckets:
    """Batches of sequences of like length: the source of batches that wastes little on padding.

    In each epoch the examples of a bucket come in a fresh random order, bucket after bucket, and
    are cut into batches; where a bucket does not fill its last batch, the next longer ones do. The
    batches are visited in a random order, which is the same for every seed, so that seeds trained
    side by side have batches of one shape; which examples these hold is each seed's own. A last
    part of a batch, of the longest, is dropped. Training compiles one step for each width, once.

    ``widths`` are ascending, the last as long as the arrays (N, T, ...) of the inputs; ``lengths``
    (N,) are the sequences'. Raises ValueError where a sequence is longer than that, or there are
    fewer examples than a batch.
    """

    data: Split  # by bucket
    first: Int[np.ndarray, " B"]  # (B,) the place of each batch's first example
    kinds: Int[np.ndarray, " B"]  # (B,) the number of each batch's width
    widths: tuple[int, ...]
    counts: tuple[int, ...]  # examples in each bucket
    size: int
    per_seed = False

    def __init__(
        self,
        data: Split,
        lengths: Int[np.ndarray, " N"],
        widths: Sequence[int],
        batch_size: int,
    ) -> None:
        total, self.size = examples(data), positive_int("batch_size", batch_size)
        if self.size > total:
            raise ValueError(f"batch_size is {self.size}; there are {total} examples")
        if list(widths) != sorted(set(widths)) or lengths.max() > widths[-1]:
            raise ValueError(
                f"widths are {tuple(widths)}; expected ascending ones, the last at least "
                f"{lengths.max()}, the longest sequence's length"
            )
        which = _bucket(lengths, widths)
        order = np.argsort(which, kind="stable")
        self.data, self.widths = data.take(order), tuple(int(width) for width in widths)
        self.counts = tuple(int((which == number).sum()) for number in range(len(widths)))
        first = self.size * np.arange(total // self.size)
        self.first = np.asarray(first, np.int32)
        self.kinds = np.asarray(which[order][first + self.size - 1], np.int32)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.first)

    def plan(self, key: Array, start: Int[Array, ""], steps: int) -> tuple[PyTree, Array]:
        """The kind and the examples of each step."""
        per_epoch = self.steps_per_epoch
        touched = (per_epoch + steps - 2) // per_epoch + 1
        edges = np.cumsum((0, *self.counts))

        def visits(number: Array) -> Array:
            # Not by the seed's key: see the class.
            shared = jax.random.fold_in(jax.random.key(ORDER), number)
            return jax.random.permutation(shared, per_epoch)

        def epoch(number: Array, visits: Array) -> tuple[Array, Array]:
            order_key, step_key = jax.random.split(jax.random.fold_in(key, number))
            keys = jax.random.split(order_key, len(self.counts))
            order = jnp.concatenate(
                [
                    edges[i] + jax.random.permutation(keys[i], count)
                    for i, count in enumerate(self.counts)
                ]
            )
            rows = order[jnp.asarray(self.first)[visits][:, None] + jnp.arange(self.size)[None]]
            return rows, jax.random.split(step_key, per_epoch)

        numbers = start // per_epoch + jnp.arange(touched)
        visited = jax.vmap(visits)(numbers)
        rows, keys = jax.vmap(epoch)(numbers, visited)
        kinds = jnp.asarray(self.kinds)[visited]
        (kinds, rows), keys = jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(
                leaf.reshape(touched * per_epoch, *leaf.shape[2:]), start % per_epoch, steps
            ),
            ((kinds, rows), keys),
        )
        return (kinds, rows), keys

    def kind(self, item: Any) -> Array:
        """Which of ``batch``'s shapes a step has."""
        return item[0]

    def batch(self, item: Any, kind: int = -1) -> Split:
        """The examples of one step, cut to the width of that number."""
        return _cut(self.data.take(item[1]), self.widths[kind])

    @property
    def shapes(self) -> int:
        """How many shapes batches have."""
        return len(self.widths)


def _bucket(lengths: Int[np.ndarray, " N"], widths: Sequence[int]) -> Int[np.ndarray, " N"]:
    return np.searchsorted(np.asarray(widths), np.asarray(lengths))


def _cut(data: Split, width: int) -> Split:
    return data._replace(inputs=jax.tree.map(lambda leaf: leaf[:, :width], data.inputs))
