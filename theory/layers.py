r"""The layers of a network, as maps of its two kernels.

Per channel, K_ab = E[z_a(x) z_b(y)] and Theta_ab is the NTK, both T x T:

    Dense       K' = K + bias²                          Theta' = Theta + K'
    positions   K' = K + positions² I                   Theta' = Theta + positions² I
    phi         K' = E[phi(u) phi(v)]                   Theta' = Theta E[phi'(u) phi'(v)]
    LayerNorm   K'_ab = K_ab / sqrt(K_aa(x) K_bb(y))    Theta' divided by the same
    residual    K' = K + K_F                            Theta' = Theta + Theta_F
    attention   K' = K S                                Theta' = 4 K S + Theta S + 2 K <K, Theta>
    readout     mean over a = b, mean over all (a, b), or the entry of the last token; then Dense

(u, v) is Gaussian with variances K_aa(x, x), K_bb(y, y) and covariance K_ab(x, y), and
<A, B> = sum_ij A_ij B_ij, S = <K, K>. Attention is Hron et al. 2020, Theorem 3: each of the four
weight matrices gives one K S, the query's input Theta S, the key's and the value's K <K, Theta>
each. Theta_F runs from the input of the network through F.

Kernels are homogeneous, and what is carried is free of their size. All tokens of an input x have
the same variance q(x), and with q* that of the input that repeats one token, the largest
(`theory.reference`), the arrays hold

    r = K / sqrt(q(x) q(y)),   h = Theta / (n* sqrt(q(x) q(y))),   l(x) = log(q(x) / q*) <= 0,

so that no depth and no standard deviation overflows; `theory.recursion` gives the size back, as a
power of two. Correlations and S(x, x) within rounding of their limits are put there: attention
triples errors, and would make something of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import mpmath
import numpy as np
from jaxtyping import Float64

from .activations import ACTIVATIONS, SNAP, snap
from .architecture import Architecture
from .reference import Reference, constant, positions

# Rounding of one layer: correlations this close to ±1 are put there, lest attention triples it.
_ROUNDING = 2e-14
_LOWEST = -1e300  # l of an input that has no weight left; -inf would make nan of differences


@dataclass(frozen=True)
class State:
    """r and h of r inputs against c inputs, r of each input with itself, l of each; q*, n*."""

    k: Float64[np.ndarray, "r c T T"]
    theta: Float64[np.ndarray, "r c T T"]
    left: Float64[np.ndarray, "r T T"]
    right: Float64[np.ndarray, "c T T"]
    level: tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " c"]]
    reference: Reference


Layer = Callable[[State], State]


def layers(architecture: Architecture) -> Iterator[Layer]:
    """Every layer from the embedding to the last before the readout, in order."""
    dense = _dense(architecture.bias)
    if architecture.embedding:
        yield dense
    if architecture.positions:
        yield _positions(architecture.positions)
    for _ in range(architecture.depth):
        if architecture.attention == "linear":
            yield _sublayer(architecture, [_attention])
        if architecture.mlp != "none":
            phi = _activation(architecture.mlp)
            closing = [] if architecture.plain_mlp else [dense]
            yield _sublayer(architecture, [dense, phi, *closing])
    if architecture.layer_norm == "pre":
        yield _layer_norm


def _sublayer(architecture: Architecture, inside: list[Layer]) -> Layer:
    pre = [_layer_norm] if architecture.layer_norm == "pre" else []
    post = [_layer_norm] if architecture.layer_norm == "post" else []

    def apply(state: State) -> State:
        out = state
        for layer in [*pre, *inside]:
            out = layer(out)
        if architecture.residual:
            # F ends in weights of its own, centred and independent: covariances add.
            out = _sum(state, out)
        for layer in post:
            out = layer(out)
        return out

    return apply


def _snap(r: np.ndarray) -> np.ndarray:
    return snap(r, _ROUNDING)


def _sum(a: State, b: State) -> State:
    """K + K_F and Theta + Theta_F."""
    reference = a.reference.plus(b.reference)
    share = a.reference.q / reference.q
    logs = [float(mpmath.log(s)) if s else -math.inf for s in (share, 1 - share)]
    halves, levels = [], []  # logarithms of the weights of a and b, at x and at y
    for one, other in zip(a.level, b.level, strict=True):
        parts = np.maximum(one + logs[0], _LOWEST), np.maximum(other + logs[1], _LOWEST)
        level = np.where((one == 0) & (other == 0), 0.0, np.logaddexp(*parts))
        halves.append([(part - level) / 2 for part in parts])
        levels.append(level)
    (ax, bx), (ay, by) = halves
    across = [u[:, None, None, None] + v[:, None, None] for u, v in ((ax, ay), (bx, by))]
    k = _snap(np.exp(across[0]) * a.k + np.exp(across[1]) * b.k)
    n = [
        float(mpmath.log(r.n / reference.n)) if r.n else -math.inf
        for r in (a.reference, b.reference)
    ]
    theta = np.exp(across[0] + n[0]) * a.theta + np.exp(across[1] + n[1]) * b.theta
    own = [
        _snap(np.exp(2 * u)[:, None, None] * one + np.exp(2 * v)[:, None, None] * other)
        for u, v, one, other in ((ax, bx, a.left, b.left), (ay, by, a.right, b.right))
    ]
    return State(k, theta, own[0], own[1], (levels[0], levels[1]), reference)


def _added(state: State, matrix: np.ndarray, reference: Reference) -> State:
    """K + q* `matrix` for the q* of `reference`, at every pair; Theta likewise where it has one."""
    shape = np.shape(matrix)
    levels = np.zeros_like(state.level[0]), np.zeros_like(state.level[1])
    theta = np.zeros((1, 1, *shape)) if not reference.n else matrix
    return _sum(state, State(matrix, theta, matrix, matrix, levels, reference))


def _dense(bias: float) -> Layer:
    def apply(state: State) -> State:
        t = state.reference.tokens
        if bias:
            state = _added(state, np.ones((t, t)), constant(t, bias))
        before, after = state.reference, state.reference.trained()
        theta = float(before.n / after.n) * state.theta + state.k / float(after.n)
        return replace(state, theta=theta, reference=after)

    return apply


def _positions(std: float) -> Layer:
    def apply(state: State) -> State:
        t = state.reference.tokens
        return _added(state, np.eye(t), positions(t, std))

    return apply


def _attention(state: State) -> State:
    def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.einsum("...ij,...ij->...", a, b)

    before, after = state.reference, state.reference.attention()
    own = [overlap(k, k) for k in (state.left, state.right)]
    largest = float(before.overlap)
    levels = []
    for level, s in zip(state.level, own, strict=True):
        ratio = np.where(s > (1 - _ROUNDING) * largest, 1.0, s / largest)
        levels.append(np.maximum(3 * level + np.log(ratio), _LOWEST))
    root = np.sqrt(own[0][:, None] * own[1])
    s = _snap(overlap(state.k, state.k) / root)[..., None, None]
    n, total = float(before.n / after.n), float(after.n)
    mixed = 2 * n * (overlap(state.k, state.theta) / root)[..., None, None]
    return State(
        state.k * s,
        (4 / total * s + mixed) * state.k + n * s * state.theta,
        state.left,  # S(x, x) is common to all tokens of x
        state.right,
        (levels[0], levels[1]),
        after,
    )


def _activation(name: str) -> Layer:
    phi = ACTIVATIONS[name]

    def apply(state: State) -> State:
        before, after = state.reference, state.reference.activation(name)
        size = float(mpmath.log(before.q))
        log_top = phi.log_u(np.float64(size))
        top = phi.gain(np.exp(log_top))
        logs, us, gains, levels = [], [], [], []
        for level in state.level:
            log_u = phi.log_u(size + level)
            u = np.exp(log_u)
            gain = phi.gain(u)
            change = np.log(gain / top) + (log_u - log_top if phi.saturates else 0.0)
            levels.append(np.where(level == 0, 0.0, np.maximum(level + change, _LOWEST)))
            logs.append(log_u)
            us.append(u)
            gains.append(np.sqrt(gain))
        (u, v), (f, g) = us, gains
        at = (slice(None), None, None, None), (slice(None), None, None)
        k, slope = phi.pair(state.k, u[at[0]], v[at[1]])
        scale = f[at[0]] * g[at[1]]
        left, right = (
            _snap(phi.pair(k, w[at[1]], w[at[1]])[0] / gain[at[1]] ** 2)
            for k, w, gain in ((state.left, u, f), (state.right, v, g))
        )
        n = float(before.n / after.n) if after.n else 0.0
        factor = n * (slope / scale)
        if phi.saturates and log_top < -300:
            # A steep erf is a sign, whose slope grows like u^(-1/2) where r = ±1: by logarithms.
            steep = (log_top + math.log(2) - np.logaddexp(logs[0][at[0]], logs[1][at[1]])) / 2
            factor = np.where(np.abs(state.k) > 1 - SNAP, np.exp(steep), factor)
        theta = state.theta * factor
        return State(_snap(k / scale), theta, left, right, (levels[0], levels[1]), after)

    return apply


def _layer_norm(state: State) -> State:
    levels = np.zeros_like(state.level[0]), np.zeros_like(state.level[1])
    return replace(state, level=levels, reference=state.reference.layer_norm())


def readout(
    architecture: Architecture, k: Float64[np.ndarray, "r c T T"]
) -> Float64[np.ndarray, "r c"]:
    """What the readout makes of a kernel of tokens, before its Dense."""
    if architecture.readout == "flatten":
        return np.einsum("rcaa->rc", k) / architecture.tokens
    if architecture.readout == "mean":
        return k.mean(axis=(2, 3))
    return k[:, :, -1, -1]
