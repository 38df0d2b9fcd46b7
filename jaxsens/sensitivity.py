"""The estimator: how often one replaced token changes a model's decision (paper A, Def. 4.1)."""

import functools
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from jaxsens._check import (
    check_members,
    checked_inputs,
    checked_key,
    positive_float,
    positive_int,
)
from jaxsens._estimate import SensitivityEstimate as SensitivityEstimate
from jaxsens._inference import inference
from jaxsens._model import compile_once
from jaxsens._plan import CLEAN, NAN, Plan, Rows, generator, sample_tokens
from jaxsens.noise import Gaussian, Noise
from jaxsens.tokens import Patches, Tokens

CIFAR_TOKENS, CIFAR_NOISE = Patches(4), Gaussian(variance=1.0)
# Forward rows a call of the compiled program when the caller names no batch size: past the point
# where larger batches help a CPU, and small enough for attention scores to fit in memory.
DEFAULT_BATCH_SIZE = 512
IN_FLIGHT = 4  # programs queued ahead of the results read back
FIRST_ROUND = 100  # examples measured before target_stderr is looked at


def decision(outputs: Array) -> Int[Array, " N"]:
    """The sign (-1, 0 or 1) of scalar outputs (N,) or (N, 1), the argmax of class logits (N, C).

    A scalar of exactly 0 is a third decision, and the first of several equal largest logits wins.
    Rows with NaN give -2. Raises ValueError for outputs of another shape,
    TypeError for complex ones.
    """
    if jnp.issubdtype(outputs.dtype, jnp.complexfloating):
        raise TypeError(f"the model's output is {outputs.dtype}; expected real numbers")
    if outputs.ndim == 2 and outputs.shape[1] == 1:
        outputs = outputs[:, 0]
    if outputs.ndim == 1:
        scores = outputs[:, None]
        decided = jnp.sign(outputs if outputs.dtype != bool else outputs.astype(jnp.int32))
    elif outputs.ndim == 2 and outputs.shape[1] > 0:
        scores, decided = outputs, jnp.argmax(outputs, axis=1)
    else:
        raise ValueError(
            f"the model's output has shape {outputs.shape}; expected (N,) for a scalar or (N, C) "
            "for class logits: wrap the model so that it returns one of these"
        )
    return jnp.where(jnp.isnan(scores).any(axis=1), NAN, decided.astype(jnp.int32))


def perturb(tokens: Tokens, noise: Noise, examples: Array, rows: Rows, key: Array) -> Array:
    """The inputs of the given rows, (rows, ...). A row's noise depends on its numbers alone."""

    def one(local: ArrayLike, example: ArrayLike, token: ArrayLike, draw: ArrayLike) -> Array:
        position_key = functools.reduce(jax.random.fold_in, (token, draw), key)
        clean = examples[local]
        noised = tokens.replace(
            clean,
            jnp.maximum(token, 0),
            functools.partial(noise, key=jax.random.fold_in(position_key, example + 1)),
            jax.random.fold_in(position_key, 0),
        )
        return jnp.where(token == CLEAN, clean, noised)

    return jax.vmap(one)(rows.local, rows.example, rows.token, rows.draw)


@compile_once
def _decide(
    model: Any, settings: tuple[Tokens, Noise], key: Array, examples: Array, rows: Rows
) -> Int[Array, " rows"]:
    tokens, noise = settings
    outputs = model(perturb(tokens, noise, examples, rows, key))
    if not isinstance(outputs, jax.Array):
        raise TypeError(
            f"the model returned {type(outputs).__name__}; expected one array of shape (N,) or "
            "(N, C): wrap the model so that it returns its logits alone"
        )
    if outputs.shape[:1] != rows.token.shape:
        raise ValueError(
            f"the model's output has shape {outputs.shape} for a batch of {len(rows.token)}; "
            "expected (N,) or (N, C) with the batch first (a model of single examples needs "
            "jax.vmap)"
        )
    return decision(outputs)


def sensitivity(
    model: Any,
    inputs: Any,
    *,
    key: Array,
    tokens: Tokens = CIFAR_TOKENS,
    noise: Noise = CIFAR_NOISE,
    repeats: int = 5,
    tokens_per_example: int | None = None,
    target_stderr: float | None = None,
    batch_size: int | None = None,
) -> SensitivityEstimate:
    """Estimate how often replacing one token changes the decision of ``model``.

    ::

        S = E_x E_noise  1/T sum_{t=1..T}  1[ decision(model(x)) != decision(model(x, t replaced)) ]

    (paper A, Def. 4.1; Eq. 1 with ``Bits`` and ``Flip``, there divided by d). ``decision`` is the
    argmax of class logits and the sign of a scalar output. The defaults, ``Patches(4)`` and
    ``Gaussian(variance=1.0)``, are the paper's setting for CIFAR-10.

    Args:
      model: any callable ``inputs -> outputs`` with outputs (N, C) or (N,): a flax.nnx or equinox
        module, ``jax.tree_util.Partial(linen_module.apply, variables)``, a method, a plain
        function. It is evaluated in inference mode; the caller's object is not touched. Pytrees
        compile once for each structure and shape; a plain function or a functools.partial of one,
        which may hide changing weights, on every call.
      inputs: (N, ...) array, batch first; examples are taken to be independent draws.
      key: a PRNG key. The same key gives the same noise whatever ``batch_size`` is.
      tokens: what a token is: ``Patches``, ``Positions``, ``Bits``, ``Whole``, ``Scatter``.
      noise: what replaces it: ``Gaussian`` (a variance), ``Replacement``, ``Flip``.
      repeats: fresh draws for each token; a deterministic noise is drawn once whatever this says.
      tokens_per_example: measure this many distinct tokens of each example, drawn uniformly,
        instead of all T. Unbiased, and for one budget of passes it allows more examples.
      target_stderr: measure examples in random order and stop once the half-width of the 95 %
        interval is safely below 1.96 times this. Warns if all N examples do not suffice.
      batch_size: forward rows at a time, which bounds memory whatever N, T and ``repeats`` are;
        None for up to 512.

    Returns:
      A :class:`SensitivityEstimate` with ``value``, ``stderr``, ``per_token`` (T,), ``per_example``
      (N,), ``forward_passes``.

    Raises:
      TypeError: an argument of the wrong kind, such as Gaussian noise on integers.
      ValueError: inputs that are empty, not finite or have no such tokens; numbers out of range; a
        model that returns NaN or outputs of another shape.
    """
    inputs = checked_inputs(model, inputs)
    check_members("tokens", tokens, ("shared", "count", "valid", "replace"), "Patches(4)")
    check_members("noise", noise, ("deterministic", "check", "__call__"), "Gaussian(1.0)")
    chosen = _valid_tokens(tokens, inputs.shape)
    noise.check(inputs)
    repeats = positive_int("repeats", repeats)
    repeats = 1 if noise.deterministic else repeats
    batch_size = positive_int(
        "batch_size", DEFAULT_BATCH_SIZE if batch_size is None else batch_size
    )
    token_key, order_key, noise_key = jax.random.split(checked_key(key), 3)
    if tokens_per_example is not None:
        tokens_per_example = positive_int("tokens_per_example", tokens_per_example)
        chosen = sample_tokens(token_key, chosen, tokens_per_example)

    # Numbers of the noise are traced, so that another variance is not another program.
    noise = jax.tree.map(lambda leaf: np.float32(leaf) if isinstance(leaf, float) else leaf, noise)
    decide = functools.partial(_decide(inference(model), (tokens, noise)), noise_key)
    full = Plan(np.arange(len(inputs)), chosen, repeats)
    batch_size = min(batch_size, full.total)
    # One size of batch and block for the whole measurement: a round of its own size would compile.
    run = functools.partial(
        _run, decide=decide, inputs=inputs, batch_size=batch_size, block=full.block(batch_size)
    )
    if target_stderr is None:
        return SensitivityEstimate(run(full), full.total, tokens.shared)
    order = generator(order_key).permutation(len(inputs))
    return _until(
        positive_float("target_stderr", target_stderr), order, chosen, repeats, run, tokens.shared
    )


def _run(
    plan: Plan, decide: Callable[..., Array], inputs: np.ndarray, batch_size: int, block: int
) -> Float[np.ndarray, "n T"]:
    """Carry out a plan: the flip rates of its examples and tokens."""
    decisions = np.empty(plan.total, np.int32)
    pending: deque[tuple[int, Array]] = deque()

    def read_back() -> None:
        start, result = pending.popleft()
        found = np.asarray(result)[: plan.total - start]
        if (found == NAN).any():
            row = plan.rows(np.asarray([start + int((found == NAN).argmax())]))
            place = "clean" if row.token[0] == CLEAN else f"with token {row.token[0]} replaced"
            raise ValueError(
                f"the model returned NaN for input {row.example[0]} ({place}); sensitivity needs "
                "finite outputs: check the model's parameters"
            )
        decisions[start : start + len(found)] = found

    for number, (examples, rows) in enumerate(plan.batches(batch_size, block)):
        pending.append((number * batch_size, decide(inputs[examples], rows)))
        if len(pending) > IN_FLIGHT:
            read_back()
    while pending:
        read_back()
    return plan.rates(decisions)


def _until(
    target: float,
    order: Int[np.ndarray, " N"],
    chosen: np.ndarray,
    repeats: int,
    run: Callable[[Plan], np.ndarray],
    shared: bool,
) -> SensitivityEstimate:
    """Measure examples in the given order until the standard error reaches the target."""
    rates = np.full(chosen.shape, np.nan)
    done, passes, goal = 0, 0, min(FIRST_ROUND, len(order))
    while True:
        examples = np.sort(order[done:goal])
        plan = Plan(examples, chosen[examples], repeats)
        rates[examples] = run(plan)
        done, passes = goal, passes + plan.total
        estimate = SensitivityEstimate(rates, passes, shared)
        # To stop early is to stop on a low value with too small a standard error; the fewer the
        # flips, the more so. Asking for more while they are few keeps the coverage (measured).
        caution = np.sqrt(1 + 8 / max(estimate.events, 1.0))
        shortfall = estimate.half_width(0.95) / (1.96 * target)
        excess = shortfall * caution
        if excess <= 1 or (done == len(order) and shortfall <= 1):
            return estimate
        if done == len(order):
            warnings.warn(
                f"target_stderr={target:g} was not reached with all {done} examples (stderr "
                f"{estimate.stderr:.2g}); pass more examples, "
                "or raise tokens_per_example or repeats",
                stacklevel=3,
            )
            return estimate
        # Go to where the present variance says the target lies, in steps that are neither so small
        # that many looks bias the stop, nor so large that a chance excess is paid for.
        goal = min(len(order), int(np.ceil(done * np.clip(excess**2, 1.1, 2.0))))


def _valid_tokens(tokens: Tokens, shape: tuple[int, ...]) -> Bool[np.ndarray, "N T"]:
    count, valid = tokens.count(shape), tokens.valid(shape)
    expected = (shape[0], count)
    valid = np.ones(expected, bool) if valid is None else np.asarray(valid)
    if valid.dtype != bool or valid.shape != expected or not valid.any(axis=1).all():
        raise ValueError(
            f"{type(tokens).__name__}.valid must give a boolean array of shape {expected} with a "
            f"real token in every example, got {valid.dtype} of shape {valid.shape}"
        )
    return valid
