r"""CK and NTK of transformers with softmax attention, by quasi-Monte Carlo over heads.

The network is that of an `Architecture` (whose attention="linear" stands for attention; see
`finite_width.Network(softmax=True)`), with softmax over the scores of every attention layer.

Which limit. Queries and keys have weights of their own, and scores are divided by
(head width)^(1/2). As the head width grows the scores of a head become a Gaussian field over all
inputs and token pairs (Hron et al. 2020), independent between heads:

    E[G_ai(x) G_bj(y)] = K_ab(x, y) K_ij(x, y),

the query's kernel times the key's. Softmax of it stays random from head to head, so the sum over
infinitely many heads is an expectation over G. (Divided by head width, independent queries and keys
would give G = 0 and uniform attention; with W_Q = W_K they would give G_ai = K_ai(x, x), the same
in every head, which is the d^-1 limit of that paper. Neither is a prior over attention patterns.)
With s_a = softmax(G_a.) and J_a = diag(s_a) - s_a s_a^T,

    K'_ab     = sum_ij E[s_ai s_bj] K_ij
    Theta'_ab = 2 K'_ab + sum_ij E[s_ai s_bj] Theta_ij
                + sum_kl E[(J_a K(x, y) J_b)_kl] (2 K_ab K_kl + Theta_ab K_kl + K_ab Theta_kl).

The terms are output and value weights, the value's input, query and key weights, the query's and
the key's input. With the identity in place of softmax (s = G, J = 1) this is the layer of
`theory.recursion`. One token: s = 1, J = 0 and K' = K exactly.

How. K is factored over all tokens of all inputs, K_ab(x, y) = <phi_xa, phi_yb> (pivoted Cholesky,
exact at its rank D), and G_ai(x) = phi_xa^T M phi_xi with one D x D matrix M of N(0, 1) a draw, the
same for all inputs: common random numbers. Each draw adds the Gram matrix of the vectors
sum_i s_ai phi_xi, so the CK is positive semidefinite for any draws; so is each term of the NTK.
M runs over a scrambled Sobol sequence; independent scramblings give error bars. A second layer is
fed the first one's estimate, and a nonlinear map of it has a bias of order 1 / draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float64, Shaped
from scipy.special import ndtri, softmax

from .activations import ACTIVATIONS
from .architecture import Architecture

MAX_TOKENS = 8
MAX_ROWS = 2**12  # inputs x tokens: T x T kernels of all pairs take 128 MiB
_TIE = 1e-6  # pivots and weights this close, relative, count as equal
_CHUNK = 2**22  # numbers in the largest intermediate of a batch of draws


@dataclass(frozen=True)
class _State:
    k: Float64[np.ndarray, "n n T T"]
    theta: Float64[np.ndarray, "n n T T"]


def softmax_ck_ntk(
    architecture: Architecture, x: Shaped[np.ndarray, "n d"], *, draws: int = 1024, seed: int = 0
) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, "n n"]]:
    """One randomisation of the CK and the NTK of all pairs of n inputs in {±1}^d.

    `draws`: points of the Sobol sequence, a power of two; `seed`: its scrambling. Raises ValueError
    for a network without attention, more than 8 tokens, entries other than ±1, and sizes beyond
    what fits.
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or not np.all(np.abs(x) == 1):
        raise ValueError(f"x must hold ±1 in shape (points, d), got shape {x.shape}")
    n, t = len(x), architecture.tokens
    p = architecture.check(x.shape[1])
    if architecture.attention != "linear":
        raise ValueError("softmax acts on attention scores: this network has no attention")
    if t > MAX_TOKENS:
        raise ValueError(f"softmax kernels are for up to {MAX_TOKENS} tokens, got {t}")
    if n * t > MAX_ROWS:
        raise ValueError(
            f"{n} inputs of {t} tokens take {(n * t) ** 2 * 80 / 2**30:.1f} GiB; the limit is "
            f"{MAX_ROWS} tokens in all: take fewer inputs or bits"
        )
    if draws < 2 or draws & (draws - 1):
        raise ValueError(f"draws must be a power of two, for Sobol points, got {draws}")
    tokens = x.reshape(n * t, p)
    k = (tokens @ tokens.T / p).reshape(n, t, n, t).transpose(0, 2, 1, 3)
    state = _State(np.ascontiguousarray(k), np.zeros(k.shape))
    dense = partial(_dense, architecture.bias)
    if architecture.embedding:
        state = dense(state)
    if architecture.positions:
        covariance = architecture.positions**2 * np.eye(t)
        state = _State(state.k + covariance, state.theta + covariance)
    for block in range(architecture.depth):
        last = block == architecture.depth - 1 and architecture.readout != "mean"
        attention = partial(_attention, draws, [seed, block], last)
        state = _sublayer(architecture, state, [attention])
        if architecture.mlp != "none":
            phi = partial(_activation, architecture.mlp)
            state = _sublayer(architecture, state, [dense, phi, dense])
    if architecture.layer_norm == "pre":
        state = _layer_norm(state)
    ck = _readout(architecture, state.k) + architecture.bias**2
    return ck, _readout(architecture, state.theta) + ck


def _dense(bias: float, state: _State) -> _State:
    k = state.k + bias**2
    return _State(k, state.theta + k)


def _variances(k: Float64[np.ndarray, "n n T T"]) -> tuple[np.ndarray, np.ndarray]:
    own = np.einsum("nnaa->na", k)
    return own[:, None, :, None], own[None, :, None, :]


def _activation(name: str, state: _State) -> _State:
    phi, (u, v) = ACTIVATIONS[name], _variances(state.k)
    return _State(phi.value(state.k, u, v), state.theta * phi.derivative(state.k, u, v))


def _layer_norm(state: _State) -> _State:
    u, v = _variances(state.k)
    root = np.sqrt(u * v)
    return _State(state.k / root, state.theta / root)


def _sublayer(architecture: Architecture, state: _State, inside: list) -> _State:
    out = _layer_norm(state) if architecture.layer_norm == "pre" else state
    for layer in inside:
        out = layer(out)
    if architecture.residual:
        out = _State(state.k + out.k, state.theta + out.theta)
    return _layer_norm(out) if architecture.layer_norm == "post" else out


def _readout(architecture: Architecture, k: np.ndarray) -> Float64[np.ndarray, "n n"]:
    if architecture.readout == "flatten":
        return np.einsum("nmaa->nm", k) / architecture.tokens
    return k.mean(axis=(2, 3)) if architecture.readout == "mean" else k[:, :, -1, -1]


def factor(gram: Float64[np.ndarray, "N N"]) -> Float64[np.ndarray, "N D"]:
    """phi with phi phi^T = gram, D its rank: Cholesky with diagonal pivots.

    Of pivots that are equal up to rounding the first is taken, so that machines agree.
    """
    rest = np.diag(gram).copy()
    limit = 1e-12 * rest.max()
    out = np.zeros((len(gram), 0))
    while len(out) > out.shape[1] and rest.max() > limit:
        i = int(np.flatnonzero(rest >= (1 - _TIE) * rest.max())[0])
        column = (gram[:, i] - out @ out[i]) / np.sqrt(rest[i])
        out = np.column_stack([out, column])
        rest = rest - column**2
    return out


def _heaviest_first(weights: Float64[np.ndarray, " D"]) -> np.ndarray:
    """Order of falling weight; those equal up to rounding stay in their order."""
    order = np.argsort(-weights, kind="stable")
    gaps = weights[order[:-1]] - weights[order[1:]] > _TIE * weights.max()
    group = np.concatenate([[0], np.cumsum(gaps)])
    return order[np.lexsort((order, group))]


def _normals(draws: int, dimension: int, seed: list[int]) -> Float64[np.ndarray, "draws D"]:
    from scipy.stats import qmc  # a second to import

    if dimension > qmc.Sobol.MAXDIM:
        raise ValueError(
            f"these tokens span {int(dimension**0.5)} dimensions and a head {dimension}, more than "
            f"the {qmc.Sobol.MAXDIM} of a Sobol sequence: take fewer inputs, or one block"
        )
    points = qmc.Sobol(dimension, rng=np.random.default_rng(seed)).random(draws)
    return ndtri(np.clip(points, 2.0**-33, 1 - 2.0**-33))


def _attention(draws: int, seed: list[int], diagonal: bool, state: _State) -> _State:
    """`diagonal`: only a = b is needed from here on; other entries are left 0."""
    n, _, t, _ = state.k.shape
    if t == 1:  # s = 1 and J = 0
        return _State(state.k, 2 * state.k + state.theta)
    gram = state.k.transpose(0, 2, 1, 3).reshape(n * t, n * t)
    phi = factor(gram)
    dimension = phi.shape[1]
    # The heaviest directions first: the first coordinates of a Sobol point are its best.
    phi = phi[:, _heaviest_first(np.sum(phi**2, axis=0))]
    normals = _normals(draws, dimension**2, seed)
    importance = np.add.outer(np.arange(dimension), np.arange(dimension)).ravel()
    normals = normals[:, np.argsort(np.argsort(importance, kind="stable"), kind="stable")]
    phi = phi.reshape(n, t, dimension)
    pairs = [(a, b) for a in range(t) for b in range(a, t) if a == b or not diagonal]
    value = {pair: np.zeros((n * t, n * t)) for pair in pairs}
    score = {pair: np.zeros((n * t, n * t)) for pair in pairs}
    for part in np.array_split(normals, max(1, draws * n * t * t * dimension // _CHUNK)):
        m = part.reshape(-1, dimension, dimension)
        queries = np.einsum("nad,bde->nbae", phi, m, optimize=True)
        s = softmax(queries @ phi.transpose(0, 2, 1)[:, None], axis=-1)  # n, draws, a, i
        means = s @ phi[:, None]
        weights, slopes = [], []
        for a in range(t):
            weights.append(s[:, :, a].transpose(0, 2, 1).reshape(n * t, -1))
            slope = s[:, :, a, :, None] * (phi[:, None] - means[:, :, a, None])
            slopes.append(slope.transpose(0, 2, 1, 3).reshape(n * t, -1))
        for a, b in pairs:
            value[a, b] += weights[a] @ weights[b].T
            score[a, b] += slopes[a] @ slopes[b].T
    k, theta = np.zeros_like(state.k), np.zeros_like(state.k)
    for a, b in pairs:
        ss, jj = (
            (total[a, b] / draws).reshape(n, t, n, t).transpose(0, 2, 1, 3)
            for total in (value, score)
        )

        def over(weight: np.ndarray, kernel: np.ndarray) -> np.ndarray:
            return np.einsum("nmij,nmij->nm", weight, kernel)

        own, own_theta = state.k[:, :, a, b], state.theta[:, :, a, b]
        k[:, :, a, b] = over(ss, state.k)
        jk, jt = over(jj, state.k), over(jj, state.theta)
        theta[:, :, a, b] = (
            2 * k[:, :, a, b] + over(ss, state.theta) + (2 * own + own_theta) * jk + own * jt
        )
        if a != b:  # K_ba(x, y) = K_ab(y, x)
            k[:, :, b, a], theta[:, :, b, a] = k[:, :, a, b].T, theta[:, :, a, b].T
    return _State(k, theta)
