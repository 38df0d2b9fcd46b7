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
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Shaped

from .activations import ACTIVATIONS, Activation
from .architecture import Architecture

# Entries of a T x T intermediate held at a time: 8 MiB an array, about 100 MiB in all.
TILE = 2**20


@dataclass(frozen=True)
class _State:
    """Kernels of r inputs against c inputs, and of each input with itself, token by token."""

    k: Float64[np.ndarray, "r c T T"]
    theta: Float64[np.ndarray, "r c T T"]
    left: Float64[np.ndarray, "r T T"]
    right: Float64[np.ndarray, "c T T"]


_Layer = Callable[[_State], _State]


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
    divide d.
    """
    x, y = _points(x, "x"), _points(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must have the same d, got {x.shape[1]} and {y.shape[1]}")
    p = architecture.check(x.shape[1])
    t = architecture.tokens
    tokens_x, tokens_y = x.reshape(-1, t, p), y.reshape(-1, t, p)
    ck, ntk = np.empty((len(x), len(y))), np.empty((len(x), len(y)))
    for rows, columns in tiles(len(x), len(y), t):
        state = _input(tokens_x[rows], tokens_y[columns])
        ck[rows, columns], ntk[rows, columns] = _outputs(architecture, state)
    return ck, ntk


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
    return _outputs(architecture, _State(cross, np.zeros_like(cross), left, right))


def _outputs(
    architecture: Architecture, state: _State
) -> tuple[Float64[np.ndarray, "r c"], Float64[np.ndarray, "r c"]]:
    for layer in _layers(architecture):
        state = layer(state)
    # `left` and `right` are not read out: only the cross kernel is asked for.
    k, theta = (_readout(architecture, a) for a in (state.k, state.theta))
    ck = k + architecture.bias**2
    return ck, theta + ck


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


def _input(x: Float64[np.ndarray, "r T p"], y: Float64[np.ndarray, "c T p"]) -> _State:
    (r, t, p), c = x.shape, len(y)
    # One matrix product; einsum would loop over the T² token pairs.
    k = (x.reshape(r * t, p) @ y.reshape(c * t, p).T / p).reshape(r, t, c, t)
    k = np.ascontiguousarray(k.transpose(0, 2, 1, 3))
    return _State(k, np.zeros_like(k), x @ x.transpose(0, 2, 1) / p, y @ y.transpose(0, 2, 1) / p)


def _layers(architecture: Architecture) -> Iterator[_Layer]:
    dense = _dense(architecture.bias)
    if architecture.embedding:
        yield dense
    if architecture.positions:
        yield _positions(architecture.positions, architecture.tokens)
    for _ in range(architecture.depth):
        if architecture.attention == "linear":
            yield _sublayer(architecture, [_attention])
        if architecture.mlp != "none":
            phi = _activation(ACTIVATIONS[architecture.mlp])
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
            names = ("k", "theta", "left", "right")
            out = _State(*(getattr(state, name) + getattr(out, name) for name in names))
        for layer in post:
            out = layer(out)
        return out

    return apply


def _dense(bias: float) -> _Layer:
    def apply(state: _State) -> _State:
        k = state.k + bias**2
        return _State(k, state.theta + k, state.left + bias**2, state.right + bias**2)

    return apply


def _positions(std: float, tokens: int) -> _Layer:
    covariance = std**2 * np.eye(tokens)

    def apply(state: _State) -> _State:
        return _State(
            state.k + covariance,
            state.theta + covariance,
            state.left + covariance,
            state.right + covariance,
        )

    return apply


def _attention(state: _State) -> _State:
    def squared(k: Float64[np.ndarray, "... T T"]) -> Float64[np.ndarray, "... 1 1"]:
        return np.einsum("...ij,...ij->...", k, k)[..., None, None]

    k, theta = state.k, state.theta
    s = squared(k)
    overlap = np.einsum("...ij,...ij->...", k, theta)[..., None, None]
    return _State(
        k * s,
        (4 * s + 2 * overlap) * k + s * theta,
        state.left * squared(state.left),
        state.right * squared(state.right),
    )


def _variances(k: Float64[np.ndarray, "n T T"]) -> Float64[np.ndarray, "n T"]:
    return np.diagonal(k, axis1=1, axis2=2)


def _elementwise(
    state: _State,
    f: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f(covariance, variance at x, variance at y) on the cross and on the two own kernels."""
    u, v = _variances(state.left), _variances(state.right)
    return (
        f(state.k, u[:, None, :, None], v[None, :, None, :]),
        f(state.left, u[:, :, None], u[:, None, :]),
        f(state.right, v[:, :, None], v[:, None, :]),
    )


def _activation(phi: Activation) -> _Layer:
    def apply(state: _State) -> _State:
        u, v = _variances(state.left), _variances(state.right)
        slope = phi.derivative(state.k, u[:, None, :, None], v[None, :, None, :])
        k, left, right = _elementwise(state, phi.value)
        return _State(k, state.theta * slope, left, right)

    return apply


def _layer_norm(state: _State) -> _State:
    def normalised(k: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return k / np.sqrt(u * v)

    k, left, right = _elementwise(state, normalised)
    theta, _, _ = _elementwise(replace(state, k=state.theta), normalised)
    return _State(k, theta, left, right)


def _readout(
    architecture: Architecture, k: Float64[np.ndarray, "r c T T"]
) -> Float64[np.ndarray, "r c"]:
    if architecture.readout == "flatten":
        return np.einsum("rcaa->rc", k) / architecture.tokens
    if architecture.readout == "mean":
        return k.mean(axis=(2, 3))
    return k[:, :, -1, -1]
