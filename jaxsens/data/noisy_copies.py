"""A data set with noisy copies of its examples: the augmentation of paper A, Section 7."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from jaxsens._pytree import pytree
from jaxsens.data.batches import Shuffled, examples
from jaxsens.data.split import Split
from jaxsens.noise import Noise


@pytree(data=("data", "noise", "order"), meta=("added", "per_seed"))
class NoisyCopies:
    """Every example beside a copy of it under ``noise`` on the whole input, the label kept.

    With ``added`` an epoch visits the N examples and N copies in one random order, in
    2N / batch_size steps; without, the copies take the place of the examples, in N / batch_size.
    The noise is drawn afresh whenever a copy is visited. ``noise`` is called with the array of one
    example and a key of its own, ``Gaussian(0.1)`` for instance (a **variance**). A source of
    batches for :class:`jaxsens.training.Trainer`; inputs are one array (N, ...).

    Raises ValueError for data that are empty or of unequal length, TypeError for inputs of several
    arrays or of a kind that the noise cannot act on.
    """

    data: Split
    noise: Noise
    order: Shuffled
    added: bool
    per_seed: bool

    def __init__(
        self, data: Split, noise: Noise, batch_size: int | None = None, *, added: bool = True
    ) -> None:
        count = examples(data)
        if len(jax.tree.leaves(data.inputs)) != 1:
            raise TypeError("noisy copies are of inputs that are one array, not of several")
        noise.check(np.asarray(jax.tree.leaves(data.inputs)[0]))
        numbers = np.arange(2 * count if added else count, dtype=np.int32)
        self.data, self.noise, self.added, self.per_seed = data, noise, added, False
        self.order = Shuffled(Split(numbers, numbers), batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps_per_epoch

    def plan(self, key: Array, start: Int[Array, ""], steps: int) -> tuple[Any, Array]:
        """The numbers of the examples of each step, and a key for their noise."""
        numbers, keys = self.order.plan(key, start, steps)
        noise_keys, step_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        return (numbers, noise_keys), step_keys

    def batch(self, item: Any) -> Split:
        """The examples of a step: numbers from N on are copies, or all of them."""
        numbers, key = item
        count = len(self.data.labels)
        batch = self.data.take(numbers % count)
        keys = jax.random.split(key, len(numbers))
        noisy = jax.vmap(lambda one, own: self.noise(one, key=own))(batch.inputs, keys)
        if not self.added:
            return batch._replace(inputs=noisy)
        copied = (numbers >= count).reshape(-1, *[1] * (noisy.ndim - 1))
        return batch._replace(inputs=jnp.where(copied, noisy, batch.inputs))
