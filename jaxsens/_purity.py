"""Is the model a deterministic function of each row alone? One more batch tells."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, jaxprs_in_params
from jaxtyping import Bool, Int

from jaxsens._decision import LABEL, OTHER, Verdicts

SINGLE = float(np.finfo(np.float32).eps)
# What an accelerator rounds float32 factors to, unless told otherwise.
FACTORS = {"gpu": 2.0**-10, "tpu": 2.0**-7}
# Differences of margins that are no rounding: relative to the spread of the margins, and to the
# outputs themselves. The least, 1e-3, moves the decision of about one row in a thousand.
LEAST, OF_SPREAD, OF_SIZE = 1e-3, 16, 8
# In half precision a discontinuity inside the model (top-k, say) may turn rounding into more.
RARE, RARE_OWN = 0.03, 0.05

Run = Callable[[Int[np.ndarray, " B"]], Verdicts]


def rounding(jaxpr: Jaxpr, backend: str) -> float:
    """The coarsest relative precision of any floating-point number that is computed."""
    coarsest = 0.0
    for eqn in jaxpr.eqns:
        for out in eqn.outvars:
            dtype = getattr(out.aval, "dtype", None)
            if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
                coarsest = max(coarsest, float(jnp.finfo(dtype).eps))
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            asked = eqn.params.get("precision")
            highest = asked is not None and "DEFAULT" not in str(asked)
            coarsest = max(coarsest, 0.0 if highest else FACTORS.get(backend, 0.0))
        for inner in jaxprs_in_params(eqn.params):
            coarsest = max(coarsest, rounding(inner, backend))
    return coarsest


def other_company(
    places: Int[np.ndarray, " pool"], size: int, block: int, seed: int = 0
) -> Int[np.ndarray, " size"]:
    """Rows for one batch: drawn from all of the pool, in random order, a quarter of them one row.

    ``places`` says which example each row of the pool is of; the batch takes rows of at most
    ``block`` examples. The repeated row moves every statistic over the batch.
    """
    rng = np.random.default_rng(seed)
    examples = rng.permutation(np.unique(places))[:block]
    rows = rng.permutation(np.flatnonzero(np.isin(places, examples)))
    distinct = rows[: max(1, size - max(1, size // 4))]
    return rng.permutation(np.append(distinct, np.full(size - len(distinct), rows[-1])))


def changed(a: Verdicts, b: Verdicts, eps: float) -> Bool[np.ndarray, " rows"]:
    """Rows whose outputs differ by more than rounding."""
    other = np.asarray(a.decision) != b.decision
    margins = [np.asarray(verdicts.margin, np.float64) for verdicts in (a, b)]
    reading = int(a.reading)
    with np.errstate(invalid="ignore"):
        # Two different decisions lie apart by both margins; a user's own have none.
        apart = np.where(other & (reading != OTHER), sum(margins), np.abs(margins[0] - margins[1]))
    apart = np.where(np.isinf(margins[0]) & np.isinf(margins[1]) & ~other, 0.0, apart)
    finite = margins[0][np.isfinite(margins[0])]
    spread = float(np.sqrt(np.mean(finite**2))) if len(finite) else 0.0
    size = np.maximum(a.size, b.size).astype(np.float64)
    size = np.where(np.isfinite(size), size, 0.0)
    bound = max(LEAST, OF_SPREAD * eps) * spread + OF_SIZE * eps * size
    far = other if reading == LABEL else apart > bound
    if reading == OTHER and other.mean() > RARE_OWN:
        far = far | other
    coarse = eps > 1e-4
    return far if far.sum() > RARE * len(far) or not coarse else np.zeros_like(far)


def check_rows(
    run: Run,
    recorded: Verdicts,
    places: Int[np.ndarray, " pool"],
    size: int,
    block: int,
    eps: float,
) -> None:
    """Raises ValueError unless rows come out again as recorded, in other company and order.

    ``recorded`` are the verdicts of the pool's rows, each computed in the batch of its turn;
    ``run`` computes one batch of ``size`` of them, in any order. More batches are computed only to
    say what is wrong.
    """

    def of(verdicts: Verdicts, index: Any) -> Verdicts:
        decision, margin, size = (np.asarray(column)[index] for column in verdicts[:3])
        return Verdicts(decision, margin, size, verdicts.reading)

    index = other_company(places, size, block)
    second = run(index)
    far = changed(of(recorded, index), second, eps)
    if not far.any():
        return
    share = f"{far.sum()} of {size} rows came out otherwise"
    if changed(second, run(index), eps).any():
        raise ValueError(
            f"the model gives other outputs for the same batch a second time ({share}): it draws "
            "random numbers; S needs a deterministic function of each row"
        )
    shuffled = np.random.default_rng(1).permutation(size)  # in the same company
    if changed(of(second, shuffled), run(index[shuffled]), eps).any():
        raise ValueError(
            f"the model's outputs depend on a row's place in the batch ({share}): dropout with a "
            "fixed key, axes mixed up, or per-example arguments, which belong into the inputs (a "
            "pytree)"
        )
    raise ValueError(
        f"the model's outputs for a row depend on the other rows of the batch ({share}): BatchNorm "
        "in training mode, or another statistic over the batch; use running averages"
    )


def precision(program: Any, args: tuple[Any, ...]) -> float:
    """:func:`rounding` of a compiled program; tracing it now spares tracing it at its call."""
    if isinstance(program, functools.partial):
        program, args = program.func, (*program.args, *args)
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return SINGLE
    return max(rounding(program.trace(*args).jaxpr.jaxpr, jax.default_backend()), SINGLE)
