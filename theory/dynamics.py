r"""What a spectrum predicts: kernel gradient flow on the cube, and the sensitivity it leads to.

Loss L(t) = (1/2N) sum_n (f_t(x_n) - y_n)² over N training points, time t = learning rate x steps.
In the kernel regime df_t/dt = -(1/N) Theta(., X) (f_t(X) - y), so with Theta(X, X) = V diag(lambda)
V^T and residual r = f_0(X) - y

    f_t(X) = y + V exp(-lambda t / N) V^T r
    f_t(x) = f_0(x) - Theta(x, X) V [(1 - exp(-lambda t / N)) / lambda] V^T r.

Trained on the whole cube with a kernel of <x, y>, the residual along chi_U is multiplied by
exp(-mu_|U| t): a parity of degree k is learned at rate mu_k, and the eigenvalue by degree *is* the
learning curve by degree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float64, Int, Shaped

from jaxsens import boolean

from .architecture import Architecture
from .finite_width import Network
from .recursion import ck_ntk

EXACT_POINTS = 2**15  # of which `prior_sensitivity` visits the neighbourhood, one after another


def gradient_flow(
    kernel: Float64[np.ndarray, "N N"],
    targets: Float64[np.ndarray, " N"],
    times: Sequence[float] | Float64[np.ndarray, " times"],
    *,
    start: Float64[np.ndarray, " N"] | None = None,
    test_kernel: Float64[np.ndarray, "M N"] | None = None,
    test_start: Float64[np.ndarray, " M"] | None = None,
) -> Float64[np.ndarray, "times points"]:
    """f_t on the training points, or with `test_kernel` = Theta(test, train) on M other points.

    `start` and `test_start` are f_0 there, zero unless given. `times` >= 0, infinity allowed (the
    minimum-norm interpolant). Raises ValueError for shapes that do not fit, a kernel that is not
    symmetric, and negative times.
    """
    kernel, targets = np.asarray(kernel, np.float64), np.asarray(targets, np.float64)
    times = np.asarray(times, np.float64)
    n = len(targets)
    if kernel.shape != (n, n) or targets.shape != (n,):
        raise ValueError(
            f"expected a kernel (N, N) and targets (N,), got {kernel.shape} and {targets.shape}"
        )
    scale = np.abs(kernel).max()
    if not np.allclose(kernel, kernel.T, rtol=0, atol=1e-8 * scale):
        raise ValueError("a training kernel is symmetric; this one is not")
    if times.ndim != 1 or not np.all(times >= 0):
        raise ValueError(f"times must be a list of numbers >= 0, got {times}")
    start = np.zeros(n) if start is None else np.asarray(start, np.float64)
    if start.shape != (n,):
        raise ValueError(f"start must have the shape of the targets {(n,)}, got {start.shape}")
    values, vectors = np.linalg.eigh(kernel)
    # Below the rounding of the kernel's own entries an eigenvalue is 0: that mode does not move.
    values = np.where(values > 1e-12 * max(values[-1], 0), values, 0.0)
    moving = values > 0
    with np.errstate(invalid="ignore"):
        exponent = np.where(moving, times[:, None] * values / n, 0.0)
    residual = vectors.T @ (start - targets)
    if test_kernel is None:
        return targets + (np.exp(-exponent) * residual) @ vectors.T
    test_kernel = np.asarray(test_kernel, np.float64)
    if test_kernel.ndim != 2 or test_kernel.shape[1] != n:
        raise ValueError(f"test_kernel must have shape (M, {n}), got {test_kernel.shape}")
    moved = -np.expm1(-exponent) / np.where(moving, values, 1.0) * residual
    first = np.zeros(len(test_kernel)) if test_start is None else np.asarray(test_start)
    return first - moved @ (test_kernel @ vectors).T


def losses_by_degree(
    eigenvalues: Float64[np.ndarray, " degrees"], times: Float64[np.ndarray, " times"]
) -> Float64[np.ndarray, "times degrees"]:
    """Loss of a degree-k parity learned on the whole cube from f_0 = 0: exp(-2 mu_k t) / 2."""
    rates = np.asarray(eigenvalues, np.float64)
    return np.exp(-2 * np.multiply.outer(np.asarray(times, np.float64), rates)) / 2


def loss(
    f: Float64[np.ndarray, "*batch N"], targets: Float64[np.ndarray, " N"]
) -> Float64[np.ndarray, "*batch"]:
    """(1/2N) sum (f - y)², along the last axis."""
    return np.mean((f - np.asarray(targets, np.float64)) ** 2, axis=-1) / 2


def time_to(
    times: Float64[np.ndarray, " times"],
    losses: Float64[np.ndarray, " times"],
    *,
    fraction: float = 0.5,
) -> float:
    """First time at which the loss is `fraction` of its start; linear between samples.

    Infinity when it never gets there.
    """
    below = np.flatnonzero(losses <= fraction * losses[0])
    if not len(below):
        return float("inf")
    i = int(below[0])
    if i == 0:
        return float(times[0])
    share = (losses[i - 1] - fraction * losses[0]) / (losses[i - 1] - losses[i])
    return float(times[i - 1] + share * (times[i] - times[i - 1]))


def train(
    network: Network,
    x: Float[Array, "N d"],
    targets: Float[Array, " N"],
    *,
    learning_rate: float,
    steps: int,
    every: int = 1,
) -> tuple[Network, Float[np.ndarray, "records N"]]:
    """Full-batch gradient descent on the loss above, every parameter trained.

    Returns the trained network and f on `x` before step 0, `every`, 2 `every`, ...; record i is
    time i x every x learning_rate. The network passed in is left as it is. FloatingPointError when
    the outputs stop being finite: the learning rate is above 2 N / lambda_max.
    """
    if steps < 1 or every < 1 or steps % every:
        raise ValueError(f"steps must be a positive multiple of every, got {steps} and {every}")
    trained, outputs = _train(
        network, jnp.asarray(x), jnp.asarray(targets), learning_rate, steps // every, every
    )
    outputs = np.asarray(outputs)
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.all():
        step = int(np.argmin(finite)) * every
        raise FloatingPointError(
            f"outputs are not finite at step {step}: lower the learning rate ({learning_rate})"
        )
    return trained, outputs


@partial(jax.jit, static_argnums=(4, 5))
def _train(
    network: Network,
    x: Float[Array, "N d"],
    y: Float[Array, " N"],
    learning_rate: float,
    records: int,
    every: int,
) -> tuple[Network, Float[Array, "records N"]]:
    graph, start = nnx.split(network)

    def objective(parameters: nnx.State) -> Float[Array, ""]:
        return jnp.mean((nnx.merge(graph, parameters)(x) - y) ** 2) / 2

    def step(parameters: nnx.State, _: None) -> tuple[nnx.State, None]:
        slope = jax.grad(objective)(parameters)
        return jax.tree.map(lambda p, g: p - learning_rate * g, parameters, slope), None

    def record(parameters: nnx.State, _: None) -> tuple[nnx.State, Float[Array, " N"]]:
        moved, _ = jax.lax.scan(step, parameters, None, every)
        return moved, nnx.merge(graph, moved)(x)

    end, outputs = jax.lax.scan(record, start, None, records)
    return nnx.merge(graph, end), jnp.concatenate([network(x)[None], outputs])


def prior_sensitivity(architecture: Architecture, d: int) -> float:
    """Exact E[S(sign f)] / d over the infinite-width prior f ~ GP(0, CK): a number in [0, 1].

    Pr[sign f(x) != sign f(x')] = arccos(rho) / pi for Gaussian f(x), f(x') of correlation rho, so
    only pairs of neighbours enter. Flips alike in every token leave the CK unchanged: points whose
    first token is all +1 stand for the cube. ValueError when those are more than 2^15 or T does not
    divide d.
    """
    p = architecture.check(d)
    if 2 ** (d - p) > EXACT_POINTS:
        raise ValueError(
            f"d = {d} with {architecture.tokens} tokens has 2^{d - p} inequivalent points, more "
            f"than {EXACT_POINTS}: take fewer bits or fewer tokens"
        )
    flips = 1.0 - 2.0 * np.vstack([np.zeros(d), np.eye(d)])
    tails = np.asarray(boolean.cube(d - p), np.float64) if d > p else np.ones((1, 0))
    total = 0.0
    for tail in tails:
        x = np.concatenate([np.ones(p), tail]) * flips
        k, _ = ck_ntk(architecture, x, x)
        rho = k[0, 1:] / np.sqrt(k[0, 0] * np.diag(k)[1:])
        total += float(np.mean(np.arccos(np.clip(rho, -1, 1)))) / np.pi
    return total / len(tails)


def sample_prior(
    kernel: Float64[np.ndarray, "N N"], samples: int, *, seed: int
) -> Float64[np.ndarray, "samples N"]:
    """Functions f ~ N(0, kernel) on the points of the kernel, through its eigendecomposition."""
    values, vectors = np.linalg.eigh(kernel)
    normal = np.random.default_rng(seed).standard_normal((samples, len(values)))
    return (normal * np.sqrt(np.maximum(values, 0))) @ vectors.T


class Trajectory(NamedTuple):
    """The learned predictor over time; arrays of shape (times,)."""

    times: Float64[np.ndarray, " times"]
    train_loss: Float64[np.ndarray, " times"]
    test_accuracy: Float64[np.ndarray, " times"]  # on the points not trained on
    sensitivity: Float64[np.ndarray, " times"]  # S(sign f_t) / d on the whole cube
    mean_degree: Float64[np.ndarray, " times"]  # sum_k k W_k[f_t] / sum_k W_k[f_t]


def sensitivity_over_time(
    kernel: Float64[np.ndarray, "N N"],
    target: Shaped[np.ndarray, " N"],
    train_points: Int[np.ndarray, " n"],
    times: Float64[np.ndarray, " times"],
    *,
    start: Float64[np.ndarray, " N"] | None = None,
) -> Trajectory:
    """Gradient flow on part of the cube, watched on all of it.

    `kernel` is Theta on the whole cube in the order of `jaxsens.boolean.cube`, `target` a ±1 table
    in that order, `train_points` the indices trained on, `start` f_0 on the cube (say, a sample of
    the prior), zero unless given; a prediction of exactly 0 counts as -1.
    """
    target = np.asarray(target, np.float64)
    n = len(target)
    train_points = np.unique(np.asarray(train_points))
    if not len(train_points) or train_points[0] < 0 or train_points[-1] >= n:
        raise ValueError(f"train_points must be indices in 0..{n - 1}, got {train_points}")
    first = np.zeros(n) if start is None else np.asarray(start, np.float64)
    f = gradient_flow(
        kernel[np.ix_(train_points, train_points)],
        target[train_points],
        times,
        start=first[train_points],
        test_kernel=kernel[:, train_points],
        test_start=first,
    )
    signs = np.where(f > 0, 1, -1).astype(np.int8)
    held_out = np.setdiff1d(np.arange(n), train_points)
    correct = signs == target
    weights = boolean.weights_by_degree(f)
    mass = weights.sum(-1)
    degrees = np.arange(weights.shape[-1])
    return Trajectory(
        times=np.asarray(times, np.float64),
        train_loss=loss(f[:, train_points], target[train_points]),
        test_accuracy=correct[:, held_out].mean(1) if len(held_out) else np.full(len(f), np.nan),
        sensitivity=boolean.normalised_sensitivity(signs),
        mean_degree=np.divide(weights @ degrees, mass, out=np.zeros_like(mass), where=mass > 0),
    )
