"""One measurement of one or several models: the same examples, tokens and noise for all."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxsens._adaptive import Measured, Oracle, allocate
from jaxsens._check import checked_inputs, checked_key, positive_float, positive_int
from jaxsens._estimate import SensitivityEstimate
from jaxsens._plan import Plan, generator, rates, sample_tokens
from jaxsens._run import Runner, check_protocols
from jaxsens.placement import Inputs

FIRST_ROUND = 100  # examples measured before target_stderr is looked at
# The adaptive allocation's rounds are short, and the last batch of each is filled up.
ADAPTIVE_BATCH = {"cpu": 128}
ADAPTIVE_BATCH_ELSEWHERE = 2048


def measure(
    models: Sequence[Any],
    inputs: Any,
    *,
    key: Any,
    tokens: Any,
    noise: Any,
    perturb: str | int | None,
    embed: Sequence[Any],
    decision: Any,
    repeats: int,
    tokens_per_example: int | None,
    target_stderr: float | None,
    allocation: str | None,
    passes: int | None,
    batch_size: int | None,
    mesh: Any,
) -> list[SensitivityEstimate]:
    """Estimates of all the models; arguments as for :func:`jaxsens.sensitivity`.

    ``mesh`` is of :func:`jaxsens.placement.rows_mesh`.
    """
    check_protocols(tokens, noise)
    token_key, order_key, noise_key = jax.random.split(checked_key(key), 3)
    repeats = positive_int("repeats", repeats)
    repeats = 1 if noise.deterministic else repeats
    target = None if target_stderr is None else positive_float("target_stderr", target_stderr)
    passes = None if passes is None else positive_int("passes", passes)
    adaptive = _is_adaptive(allocation, tokens.shared, tokens_per_example, target, passes)
    placed = Inputs.place(inputs, checked_inputs(inputs), mesh)
    runners = [
        Runner(
            model, placed, key=noise_key, tokens=tokens, noise=noise, perturb=perturb,
            embed=one_embed, decision=decision, batch_size=batch_size,
        )
        for model, one_embed in zip(models, embed, strict=True)
    ]  # fmt: skip
    valid = runners[0].valid
    if any(runner.valid.shape != valid.shape for runner in runners):
        raise ValueError(
            f"the models are given different numbers of tokens: "
            f"{[runner.valid.shape[1] for runner in runners]}; compare them on the same tokens"
        )
    settings = tokens, noise, repeats, tokens_per_example
    fingerprint = digest(noise_key, placed.host, valid, settings)
    rng = generator(order_key)

    def estimates(found: Sequence[np.ndarray], passes: int) -> list[SensitivityEstimate]:
        return [
            SensitivityEstimate(
                one, passes, tokens.shared, real=valid.sum(1), fingerprint=fingerprint
            )
            for one in found
        ]

    if adaptive:
        for runner in runners:
            few = ADAPTIVE_BATCH.get(jax.default_backend(), ADAPTIVE_BATCH_ELSEWHERE)
            runner.shapes(few if batch_size is None else runner.valid.size)
        results = _adaptively(runners, rng, repeats, target, passes, fingerprint)
        return _concluded(runners, results)
    chosen = valid
    if tokens_per_example is not None:
        tokens_per_example = positive_int("tokens_per_example", tokens_per_example)
        chosen = sample_tokens(token_key, chosen, tokens_per_example)
    draws = chosen * repeats
    full = Plan(np.arange(len(placed)), draws)
    for runner in runners:
        runner.shapes(full.total, full)

    def run(plan: Plan) -> list[np.ndarray]:
        return [rates(plan.flips(runner.run(plan)[0]), plan.draws) for runner in runners]

    if target is None:
        results = estimates(run(full), full.total)
    else:
        results = _until(target, rng.permutation(len(placed)), draws, run, estimates)
    return _concluded(runners, results)


def _concluded(
    runners: Sequence[Runner], results: list[SensitivityEstimate]
) -> list[SensitivityEstimate]:
    for runner in runners:  # of measure, which sensitivity and compare call
        runner.conclude(stacklevel=6)
    return results


def _is_adaptive(
    allocation: str | None,
    shared: bool,
    tokens_per_example: int | None,
    target: float | None,
    passes: int | None,
) -> bool:
    if allocation not in (None, "uniform", "adaptive"):
        raise ValueError(f"allocation must be 'uniform' or 'adaptive', got {allocation!r}")
    wanted = allocation == "adaptive" or (allocation is None and passes is not None)
    if wanted and (shared or tokens_per_example is not None):
        why = "tokens that all examples share" if shared else "tokens_per_example"
        raise ValueError(
            f"the adaptive allocation chooses tokens for each example and cannot serve {why}; "
            "pass allocation='uniform'"
        )
    if wanted and (target is None) == (passes is None):
        raise ValueError(
            "the adaptive allocation needs either target_stderr or passes, got "
            f"{'neither' if target is None else 'both'}"
        )
    if passes is not None and not wanted:
        raise ValueError("passes is a budget of the adaptive allocation; not for 'uniform'")
    free = allocation is None and not shared and tokens_per_example is None
    return wanted or (free and target is not None)


def _adaptively(
    runners: Sequence[Runner],
    rng: np.random.Generator,
    repeats: int,
    target: float | None,
    passes: int | None,
    fingerprint: str,
) -> list[SensitivityEstimate]:
    valid = runners[0].valid
    clean = np.zeros((len(runners), len(valid)), np.int32)
    scales: list[float] = []

    def margins(examples: Int[np.ndarray, " n"]) -> np.ndarray:
        """The smallest over the models, each in units of its median: near to any decision."""
        plan = Plan(examples, np.zeros((len(examples), valid.shape[1]), np.int64))
        found = []
        for number, runner in enumerate(runners):
            clean[number, examples], margin = runner.run(plan)
            found.append(margin.astype(np.float64))
        if not scales:
            scales.extend(float(np.median(margin)) or 1.0 for margin in found)
        return np.min([m / scale for m, scale in zip(found, scales, strict=True)], axis=0)

    def flips(examples: np.ndarray, draws: np.ndarray, first: np.ndarray) -> np.ndarray:
        plan = Plan(examples, draws, first, clean=False)
        return np.stack(
            [
                plan.flips(runner.run(plan)[0], clean[number, examples])
                for number, runner in enumerate(runners)
            ]
        )

    def estimates(found: Measured) -> list[SensitivityEstimate]:
        return [
            SensitivityEstimate(
                rates(one, found.draws), found.passes // len(runners), weights=found.weights,
                strata=found.strata, real=valid.sum(1),
                fingerprint=digest(fingerprint, found.draws),
            )
            for one in found.flips
        ]  # fmt: skip

    result = allocate(
        Oracle(margins, flips, valid, repeats, len(runners)),
        rng,
        target=target,
        passes=passes,
        error=lambda found: max(e.half_width(0.95) for e in estimates(found)) / 1.96,
    )
    if not result.reached:
        _warn_short(target, estimates(result))
    return estimates(result)


def _until(
    target: float,
    order: Int[np.ndarray, " N"],
    draws: Int[np.ndarray, "N T"],
    run: Callable[[Plan], list[np.ndarray]],
    estimates: Callable[[Sequence[np.ndarray], int], list[SensitivityEstimate]],
) -> list[SensitivityEstimate]:
    """Measure examples in the given order until all standard errors reach the target."""
    found: list[np.ndarray] = []
    done, passes, goal = 0, 0, min(FIRST_ROUND, len(order))
    while True:
        examples = np.sort(order[done:goal])
        plan = Plan(examples, draws[examples])
        measured = run(plan)
        found = found or [np.full(draws.shape, np.nan) for _ in measured]
        for rates_of_all, part in zip(found, measured, strict=True):
            rates_of_all[examples] = part
        done, passes = goal, passes + plan.total
        results = estimates(found, passes)
        # To stop early is to stop on a low value with too small a standard error; the fewer the
        # flips, the more so. Asking for more while they are few keeps the coverage (measured).
        shortfalls = [est.half_width(0.95) / (1.96 * target) for est in results]
        excess = max(
            short * np.sqrt(1 + 8 / max(est.events, 1.0))
            for short, est in zip(shortfalls, results, strict=True)
        )
        if excess <= 1 or (done == len(order) and max(shortfalls) <= 1):
            return results
        if done == len(order):
            _warn_short(target, results)
            return results
        # Go to where the present variance says the target lies, in steps that are neither so small
        # that many looks bias the stop, nor so large that a chance excess is paid for.
        goal = min(len(order), int(np.ceil(done * np.clip(excess**2, 1.1, 2.0))))


def _warn_short(target: float | None, results: Sequence[SensitivityEstimate]) -> None:
    warnings.warn(
        f"target_stderr={target:g} was not reached with all {len(results[0].rates)} examples "
        f"(stderr {max(est.stderr for est in results):.2g}); pass more examples, "
        "or raise tokens_per_example or repeats",
        stacklevel=6,
    )


def digest(*parts: Any) -> str:
    """A fingerprint of arrays and settings; of large arrays a million elements spread evenly."""
    found = hashlib.blake2b(digest_size=16)
    leaves, structure = jax.tree.flatten(parts)
    found.update(str(structure).encode())
    for leaf in leaves:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if isinstance(leaf, np.ndarray | jax.Array):
            array = np.asarray(leaf)
            found.update(f"{array.dtype}{array.shape}".encode())
            found.update(array.reshape(-1)[:: array.size // 2**20 + 1].tobytes())
        else:
            found.update(repr(leaf).encode())
    return found.hexdigest()
