"""Training that has gone wrong, told in one line: which step, which seed, at what rate."""

from typing import Any

import jax
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, PyTree

from jaxsens import placement


def check_losses(
    losses: Float[Any, "S steps"],
    *,
    first_step: int,
    steps_per_epoch: int,
    learning_rate: float | None = None,
) -> None:
    """Raise FloatingPointError, with epoch, step and seed, if a loss (S, steps) is not finite.

    ``first_step`` is how many steps came before; epochs and the steps in them count from 1.
    """
    bad = np.argwhere(~np.isfinite(np.asarray(losses)).T)
    if len(bad):
        step, seed = bad[0]
        epoch, step = divmod(first_step + int(step), steps_per_epoch)
        raise FloatingPointError(
            f"the training loss is not finite at epoch {epoch + 1}, step {step + 1}, "
            f"seed number {seed}{_with_rate(learning_rate)}; lower the learning rate"
        )


def check_parameters(
    params: PyTree, *, step: int, steps_per_epoch: int, learning_rate: float | None = None
) -> None:
    """The last update may overflow after a finite loss; measures would then see NaN."""
    for leaf in map(placement.read, jax.tree.leaves(params)):
        finite = np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
        if not finite.all():
            epoch, rest = divmod(step - 1, steps_per_epoch)
            raise FloatingPointError(
                f"parameters are not finite after epoch {epoch + 1}, step {rest + 1}, seed number "
                f"{np.argmin(finite)}{_with_rate(learning_rate)}; lower the learning rate"
            )


def learning_rate(optimizer_state: PyTree) -> float | None:
    """The rate that ``optax.inject_hyperparams`` shows, None when there is none or several."""
    rates = optax.tree_utils.tree_get_all_with_path(
        # A schedule keeps a state of its own under the same name.
        optimizer_state,
        "learning_rate",
        filtering=lambda _, value: isinstance(value, Array),
    )
    return float(np.ravel(placement.read(rates[0][1]))[0]) if len(rates) == 1 else None


def _with_rate(learning_rate: float | None) -> str:
    return "" if learning_rate is None else f" (learning rate {learning_rate:g})"
