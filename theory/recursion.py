r"""The conjugate and neural tangent kernels of an `Architecture`, layer by layer, in float64.

This is our own recursion, in NumPy alone; `theory.kernels` obtains the same kernels from
neural-tangents. Per channel, K_ab = E[z_a(x) z_b(y)] and Theta_ab is the NTK, both T x T:

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

so that no depth and no standard deviation overflows; `scaled_ck_ntk` gives the power of two that is
left out. Correlations and S(x, x) within rounding of their limits are put there: attention triples
errors, and would make something of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import mpmath
import numpy as np
from jaxtyping import Float64, Shaped

from .activations import ACTIVATIONS, SNAP, snap
from .architecture import Architecture
from .reference import PLAIN, Reference, constant, digits, positions

# Entries of a T x T intermediate held at a time: 8 MiB an array, about 100 MiB in all.
TILE = 2**20
# Rounding of one layer: correlations this close to ±1 are put there, lest attention triples it.
_ROUNDING = 2e-14
_LOWEST = -1e300  # l of an input that has no weight left; -inf would make nan of differences

_Grams = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _State:
    """r and h of r inputs against c inputs, r of each input with itself, l of each; q*, n*."""

    k: Float64[np.ndarray, "r c T T"]
    theta: Float64[np.ndarray, "r c T T"]
    left: Float64[np.ndarray, "r T T"]
    right: Float64[np.ndarray, "c T T"]
    level: tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " c"]]
    reference: Reference


_Layer = Callable[[_State], _State]


@dataclass(frozen=True)
class ScaledKernels:
    """CK = ck 2^ck_exponent and NTK = ntk 2^ntk_exponent.

    The exponents depend on the network alone, and are 0 where the largest value, K(x, x) at
    x = (1, ..., 1), lies between 2^-500 and 2^500.
    """

    ck: Float64[np.ndarray, "n m"]
    ntk: Float64[np.ndarray, "n m"]
    ck_exponent: int
    ntk_exponent: int


def ck_ntk(
    architecture: Architecture, x: Shaped[np.ndarray, "n d"], y: Shaped[np.ndarray, "m d"]
) -> tuple[Float64[np.ndarray, "n m"], Float64[np.ndarray, "n m"]]:
    """The CK (E[f(x) f(y)], the prior covariance of the scalar output) and the NTK.

    **Arguments:** `x` (n, d) and `y` (m, d), entries ±1 of any real dtype.

    **Returns:** two (n, m) float64 arrays. Memory beyond them is bounded whatever n, m and T are;
    time is proportional to n m T² depth.

    Accuracy: a few units in the last place for the CK. For the NTK of ReLU networks also, except
    where a correlation comes within 1e-12 of ±1 without being ±1 (see `theory.activations`); on the
    cube that does not happen at depths where the kernel still tells inputs apart.

    Raises ValueError for entries other than ±1, for shapes that do not match, and when T does not
    divide d; OverflowError where the kernels are larger or smaller than a float can be
    (`scaled_ck_ntk` gives those as well).
    """
    return _unscaled(architecture, scaled_ck_ntk(architecture, x, y))


def scaled_ck_ntk(
    architecture: Architecture, x: Shaped[np.ndarray, "n d"], y: Shaped[np.ndarray, "m d"]
) -> ScaledKernels:
    """`ck_ntk` at any depth and with any standard deviations: values of moderate size, and powers
    of two beside them."""
    x, y = _points(x, "x"), _points(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must have the same d, got {x.shape[1]} and {y.shape[1]}")
    p = architecture.check(x.shape[1])
    t = architecture.tokens
    tokens_x, tokens_y = x.reshape(-1, t, p), y.reshape(-1, t, p)
    ck, ntk = np.empty((len(x), len(y))), np.empty((len(x), len(y)))
    exponents = (0, 0)
    for rows, columns in tiles(len(x), len(y), t):
        part = _outputs(architecture, _input(tokens_x[rows], tokens_y[columns]))
        ck[rows, columns], ntk[rows, columns] = part.ck, part.ntk
        exponents = part.ck_exponent, part.ntk_exponent
    return ScaledKernels(ck, ntk, *exponents)


def ck_ntk_of_grams(
    architecture: Architecture,
    cross: Float64[np.ndarray, "r c T T"],
    left: Float64[np.ndarray, "r T T"],
    right: Float64[np.ndarray, "c T T"],
) -> tuple[Float64[np.ndarray, "r c"], Float64[np.ndarray, "r c"]]:
    """`ck_ntk` of inputs known by their token Gram matrices <x_a, y_b> / p alone.

    The kernels see nothing else of the inputs: `cross` is that of r inputs with c others, `left`
    and `right` those of each with itself.
    """
    return _unscaled(architecture, _outputs(architecture, (cross, left, right)))


def _unscaled(
    architecture: Architecture, kernels: ScaledKernels
) -> tuple[Float64[np.ndarray, "n m"], Float64[np.ndarray, "n m"]]:
    exponents = kernels.ck_exponent, kernels.ntk_exponent
    if any(exponents):
        raise OverflowError(
            f"the kernels of {architecture} reach 2^{exponents[0]} and 2^{exponents[1]}, outside "
            "the range of float64: use scaled_ck_ntk, or LayerNorm"
        )
    return kernels.ck, kernels.ntk


def _outputs(architecture: Architecture, grams: _Grams) -> ScaledKernels:
    cross, left, right = grams
    levels = np.zeros(len(left)), np.zeros(len(right))
    with mpmath.workdps(digits(architecture)):
        start = constant(architecture.tokens, 1.0)
        state = _State(cross, np.zeros_like(cross), left, right, levels, start)
        for layer in _layers(architecture):
            state = layer(state)
        # `left` and `right` are not read out: only the cross kernel is asked for.
        k, theta = (_readout(architecture, a) for a in (state.k, state.theta))
        size = np.exp((state.level[0][:, None] + state.level[1]) / 2)
        before = state.reference
        after = before.plus(constant(architecture.tokens, architecture.bias)).trained()
        w = before.q / after.q
        ck = float(w) * size * k + float(1 - w)
        ntk = float(w * before.n / after.n) * size * theta + ck / float(after.n)
        (m_ck, e_ck), (m_ntk, e_ntk) = mpmath.frexp(after.q), mpmath.frexp(after.q * after.n)
    values, exponents = [], []
    for array, m, e in ((ck, m_ck, e_ck), (ntk, m_ntk, e_ntk)):
        plain = abs(int(e)) <= PLAIN
        values.append(np.ldexp(array * float(m), int(e) if plain else 0))
        exponents.append(0 if plain else int(e))
    return ScaledKernels(values[0], values[1], exponents[0], exponents[1])


def tiles(n: int, m: int, t: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of an (n, m) kernel matrix whose (t, t) token intermediate has at most TILE entries.

    As square as n and m allow, since each block also needs the T x T kernels of its own inputs.
    """
    pairs = max(1, TILE // t**2)
    c = max(1, min(m, max(int(pairs**0.5), pairs // max(n, 1))))
    r = max(1, pairs // c)
    for i in range(0, n, r):
        for j in range(0, m, c):
            yield slice(i, i + r), slice(j, j + c)


def _points(x: Shaped[np.ndarray, "n d"], name: str) -> Float64[np.ndarray, "n d"]:
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"{name} must have shape (points, d), got {x.shape}")
    if x.dtype == bool or not np.all(np.abs(x) == 1):
        raise ValueError(f"{name} must hold ±1 only (map bits b to 1 - 2 b)")
    return x.astype(np.float64)


def _input(x: Float64[np.ndarray, "r T p"], y: Float64[np.ndarray, "c T p"]) -> _Grams:
    (r, t, p), c = x.shape, len(y)
    # One matrix product; einsum would loop over the T² token pairs.
    k = (x.reshape(r * t, p) @ y.reshape(c * t, p).T / p).reshape(r, t, c, t)
    k = np.ascontiguousarray(k.transpose(0, 2, 1, 3))
    return k, x @ x.transpose(0, 2, 1) / p, y @ y.transpose(0, 2, 1) / p


def _layers(architecture: Architecture) -> Iterator[_Layer]:
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


def _sublayer(architecture: Architecture, inside: list[_Layer]) -> _Layer:
    pre = [_layer_norm] if architecture.layer_norm == "pre" else []
    post = [_layer_norm] if architecture.layer_norm == "post" else []

    def apply(state: _State) -> _State:
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


def _sum(a: _State, b: _State) -> _State:
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
    return _State(k, theta, own[0], own[1], (levels[0], levels[1]), reference)


def _added(state: _State, matrix: np.ndarray, reference: Reference) -> _State:
    """K + q* `matrix` for the q* of `reference`, at every pair; Theta likewise where it has one."""
    shape = np.shape(matrix)
    levels = np.zeros_like(state.level[0]), np.zeros_like(state.level[1])
    theta = np.zeros((1, 1, *shape)) if not reference.n else matrix
    return _sum(state, _State(matrix, theta, matrix, matrix, levels, reference))


def _dense(bias: float) -> _Layer:
    def apply(state: _State) -> _State:
        t = state.reference.tokens
        if bias:
            state = _added(state, np.ones((t, t)), constant(t, bias))
        before, after = state.reference, state.reference.trained()
        theta = float(before.n / after.n) * state.theta + state.k / float(after.n)
        return replace(state, theta=theta, reference=after)

    return apply


def _positions(std: float) -> _Layer:
    def apply(state: _State) -> _State:
        t = state.reference.tokens
        return _added(state, np.eye(t), positions(t, std))

    return apply


def _attention(state: _State) -> _State:
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
    return _State(
        state.k * s,
        (4 / total * s + mixed) * state.k + n * s * state.theta,
        state.left,  # S(x, x) is common to all tokens of x
        state.right,
        (levels[0], levels[1]),
        after,
    )


def _activation(name: str) -> _Layer:
    phi = ACTIVATIONS[name]

    def apply(state: _State) -> _State:
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
        return _State(_snap(k / scale), theta, left, right, (levels[0], levels[1]), after)

    return apply


def _layer_norm(state: _State) -> _State:
    levels = np.zeros_like(state.level[0]), np.zeros_like(state.level[1])
    return replace(state, level=levels, reference=state.reference.layer_norm())


def _readout(
    architecture: Architecture, k: Float64[np.ndarray, "r c T T"]
) -> Float64[np.ndarray, "r c"]:
    if architecture.readout == "flatten":
        return np.einsum("rcaa->rc", k) / architecture.tokens
    if architecture.readout == "mean":
        return k.mean(axis=(2, 3))
    return k[:, :, -1, -1]
