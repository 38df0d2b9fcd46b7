"""Passes and seconds to a standard error: all tokens, sampled tokens, the adaptive allocation.

A ViT and an MLP are trained on the 4,000 embedded digits, and S is measured until the error is
small enough. How passes compare at *equal* error follows from variance x passes of each. Coverage
is simulated: the flip rates of a large exact measurement, taken as the truth, are sampled by the
same adaptive allocation that runs models.
"""

import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxsens
from experiments.run.report import table
from jaxsens import Gaussian, Patches, SensitivityEstimate, data, models
from jaxsens._adaptive import Oracle, allocate
from jaxsens._decision import judge
from jaxsens._plan import rates
from jaxsens.training import Trainer

PATCH, PROTOCOL = 7, "exact"
IMAGE = {"image_size": 28, "channels": 1, "classes": 10, "patch_size": PATCH}
# name: the network, its widths, epochs of Adam at a thousandth
TRAINED: dict[str, tuple[str, dict[str, Any], int]] = {
    "vit (depth 2, 1 head)": ("vit", {"depth": 2, "heads": 1, "mlp_dim": 128}, 8),
    "mlp (100)": ("mlp", {"hidden": (100,)}, 20),
}
# name: what is passed to sensitivity beside the target
ALLOCATIONS: dict[str, dict[str, Any]] = {
    PROTOCOL: {"allocation": "uniform"},
    "tokens": {"tokens_per_example": 2, "repeats": 1},
    "adaptive": {},
}


def to_a_target(target: float, repetitions: int, smoke: bool) -> list[dict[str, Any]]:
    """For each network what every allocation took, and the simulated coverage."""
    train = data.load("mnist", "embedded").train
    if smoke:
        train = train._replace(inputs=train.inputs[:200], labels=train.labels[:200])
    return [
        _network(name, train, target, repetitions, 1 if smoke else TRAINED[name][2])
        for name in TRAINED
    ]


def _network(name: str, train: Any, target: float, repetitions: int, epochs: int) -> dict[str, Any]:
    architecture, widths, _ = TRAINED[name]
    model = models.create(architecture, rngs=nnx.Rngs(0), **IMAGE, **widths)
    trainer = Trainer([model], optax.adam(1e-3), batch_size=50)
    state = jax.tree.map(jnp.copy, trainer.initial)
    keys = jax.random.split(jax.random.key(0), 1)
    state, _ = trainer.epochs(state, jax.device_put(train), keys, epochs=epochs)
    model = trainer.models(state)[0]
    measure = functools.partial(
        jaxsens.sensitivity, model, train.inputs, key=jax.random.key(1), tokens=Patches(PATCH),
        noise=Gaussian(variance=1.0), decision="argmax",
    )  # fmt: skip
    found: dict[str, Any] = {}
    for allocation, options in ALLOCATIONS.items():
        measure(target_stderr=target, **options)  # compiles
        begun = time.perf_counter()
        estimate = measure(target_stderr=target, **options)
        found[allocation] = {
            "sensitivity": estimate.value,
            "stderr": estimate.stderr,
            "passes": estimate.forward_passes,
            "seconds": time.perf_counter() - begun,
        }
    cost = {k: one["passes"] * one["stderr"] ** 2 for k, one in found.items()}
    some = slice(0, min(1500, len(train.labels)))
    verdicts = jax.jit(lambda model, x: judge(model(x)))(model, train.inputs[some])
    exact = jaxsens.sensitivity(
        model, train.inputs[some], key=jax.random.key(2), tokens=Patches(PATCH),
        noise=Gaussian(variance=1.0), decision="argmax",
    )  # fmt: skip
    return {
        "network": name,
        "train_accuracy": float((verdicts.decision == train.labels[some]).mean()),
        "target": target,
        "allocations": found,
        "times_fewer_at_equal_error": {k: ratio(cost[PROTOCOL], cost[k]) for k in found},
        "coverage": simulate(exact.rates, np.asarray(verdicts.margin), target, repetitions),
    }


def ratio(one: float, other: float) -> float:
    """Their ratio; NaN where hardly trained networks never flip."""
    return float(one / other) if other > 0 else math.nan


def simulate(
    truth: np.ndarray, margins: np.ndarray, target: float, repetitions: int
) -> dict[str, float]:
    """Adaptive estimates of known flip rates (n, T): coverage, bias, and passes against exact ones.

    Each repetition draws 5,000 examples of the n, with replacement.
    """
    found = []
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        members = rng.integers(len(truth), size=5000)
        p, margin = truth[members], margins[members]

        def estimate(result: Any) -> SensitivityEstimate:
            shares = rates(result.flips[0], result.draws)
            weights = {"weights": result.weights, "strata": result.strata}
            return SensitivityEstimate(shares, result.passes, **weights)

        oracle = Oracle(
            lambda examples, margin=margin: margin[examples],
            lambda examples, draws, first, p=p, rng=rng: rng.binomial(draws, p[examples])[None],
            np.ones(p.shape, bool),
            5,
        )
        error = lambda result: estimate(result).half_width() / 1.96  # noqa: E731
        found.append(estimate(allocate(oracle, rng, target=target, error=error)))
    value = truth.mean()
    values, stderrs, passes = (
        np.array([getattr(one, name) for one in found])
        for name in ("value", "stderr", "forward_passes")
    )
    inside = [low <= value <= high for low, high in (one.interval() for one in found)]
    tokens = truth.shape[1]
    exact = truth.mean(1).var() + (truth * (1 - truth)).mean() / (5 * tokens)
    return {
        "sensitivity": float(value),
        "repetitions": repetitions,
        "covered": float(np.mean(inside)),
        "bias_in_errors_of_the_mean": ratio(
            values.mean() - value, values.std() / math.sqrt(repetitions)
        ),
        "times_fewer_at_equal_error": ratio(
            exact * (1 + 5 * tokens), passes.mean() * (stderrs**2).mean()
        ),
    }


def report(results: list[dict[str, Any]]) -> str:
    """Tables of passes and seconds, and of the simulation."""
    rows = [
        (
            result["network"], allocation, f"{one['sensitivity']:.4f} ± {one['stderr']:.4f}",
            f"{one['passes']:,}", f"{one['seconds']:.2f}",
            f"{result['times_fewer_at_equal_error'][allocation]:.1f}",
        )
        for result in results
        for allocation, one in result["allocations"].items()
    ]  # fmt: skip
    target = results[0]["target"]
    head = ("network", f"to an error of {target:g}", "S", "passes", "s", "fewer at equal error")
    simulated = [
        (
            result["network"], f"{one['sensitivity']:.4f}", f"{one['repetitions']}",
            f"{100 * one['covered']:.1f} %", f"{one['bias_in_errors_of_the_mean']:+.1f}",
            f"{one['times_fewer_at_equal_error']:.1f}",
        )
        for result in results
        for one in [result["coverage"]]
    ]  # fmt: skip
    other = ("adaptive, simulated", "S", "runs", "covered", "bias in its errors", "fewer")
    return f"{table(head, rows)}\n\n{table(other, simulated)}"
