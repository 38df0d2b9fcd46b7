r"""The conjugate and neural tangent kernels of an `Architecture`, layer by layer, in float64.

This is our own recursion, in NumPy alone; `theory.kernels` obtains the same kernels from
neural-tangents. The layers, and what is carried through them, are in `theory.layers`; here points
become token Gram matrices, tiles keep memory bounded, and the output gets its size back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mpmath
import numpy as np
from jaxtyping import Float64, Shaped

from .architecture import Architecture
from .layers import State, layers, readout
from .reference import PLAIN, constant, digits

# Entries of a T x T intermediate held at a time: 8 MiB an array, about 100 MiB in all.
TILE = 2**20

_Grams = tuple[np.ndarray, np.ndarray, np.ndarray]


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
        state = State(cross, np.zeros_like(cross), left, right, levels, start)
        for layer in layers(architecture):
            state = layer(state)
        # `left` and `right` are not read out: only the cross kernel is asked for.
        k, theta = (readout(architecture, a) for a in (state.k, state.theta))
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
