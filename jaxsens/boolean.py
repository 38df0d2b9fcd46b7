"""Boolean functions on the cube {±1}^d: Fourier analysis and sensitivity, exactly.

Order. A function is the table of its 2^d values. Coordinate 0 is the most significant bit of the
index; bit 0 stands for +1 and bit 1 for -1. So row 0 of `cube(d)` is (+1, ..., +1), row 1 flips the
last coordinate, and `table.reshape((2,) * d)` has coordinate i on axis i. A set U of coordinates
is written as an index in the same way: chi_U(x) = prod_{i in U} x_i = (-1)^popcount(U & x). As
logic, -1 is true.

Measures of ±1 tables take any leading batch axes, `f: (..., 2^d)`, count in integers, and return
float64 NumPy values that are exact multiples of a power of two. Paper: Section 3 and Eq. 1.
"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num, Shaped

Reals = Float[np.ndarray, "*batch"] | np.floating  # NumPy's sums over all axes are scalars
Integers = Int[np.ndarray, "*batch"] | np.integer
MAX_DIMENSION = 30  # The transform of a ±1 table reaches 2^d, which int32 must hold.


def _check_dimension(d: int) -> int:
    if not 1 <= d <= MAX_DIMENSION:
        raise ValueError(
            f"d must lie in 1..{MAX_DIMENSION} for a table of 2^d values, got {d}; "
            "sample inputs for larger cubes"
        )
    return int(d)


def _log2(length: int) -> int:
    if length < 2 or length & (length - 1):
        raise ValueError(f"a table holds 2^d values (d >= 1) on its last axis, got {length}")
    return length.bit_length() - 1


def _signs(table: Shaped[ArrayLike, "*batch N"]) -> np.ndarray:
    f = np.asarray(table)
    if f.ndim == 0:
        raise ValueError("a table holds 2^d values (d >= 1) on its last axis, got a scalar")
    _check_dimension(_log2(f.shape[-1]))
    if f.dtype == bool or not np.issubdtype(f.dtype, np.number) or not (np.abs(f) == 1).all():
        wrong = f.ravel()[0] if f.dtype == bool else f[np.abs(f) != 1][0]
        raise ValueError(f"a Boolean function has values +1 and -1, got {wrong} ({f.dtype})")
    return f.astype(np.int8)


def cube(d: int) -> Float[Array, "N d"]:
    """All 2^d points of {±1}^d, float32, in the order of this module."""
    _check_dimension(d)
    bits = jnp.arange(2**d)[:, None] >> jnp.arange(d - 1, -1, -1)[None, :] & 1
    return 1.0 - 2.0 * bits.astype(jnp.float32)


def evaluate(f: Callable[[Array], Array], d: int, *, batch_size: int = 2**14) -> Int[Array, " N"]:
    """Table of sign(f): +1 where f(x) > 0 and -1 elsewhere.

    `f` maps points `(n, d)` to `(n,)` or `(n, 1)`; it sees 2^k <= `batch_size` points at a time.
    Raises ValueError for another output shape and for NaN.
    """
    _check_dimension(d)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    inner = min(d, int(batch_size).bit_length() - 1)
    low = cube(inner) if inner else jnp.zeros((1, 0))
    high = cube(d - inner) if d > inner else jnp.zeros((1, 0))
    parts = []
    for prefix in high:
        x = jnp.concatenate([jnp.broadcast_to(prefix, (2**inner, d - inner)), low], axis=1)
        y = np.asarray(f(x))
        if y.shape not in ((2**inner,), (2**inner, 1)):
            raise ValueError(f"f must map (n, {d}) to (n,) or (n, 1), got {y.shape} for {x.shape}")
        if np.isnan(y).any():
            raise ValueError("f returned NaN: a Boolean function has a sign at every input")
        parts.append(np.where(y.reshape(-1) > 0, 1, -1).astype(np.int8))
    return jnp.asarray(np.concatenate(parts))


@jax.jit
def walsh_hadamard(f: Num[Array, "*batch N"]) -> Num[Array, "*batch N"]:
    """F(U) = sum_x f(x) chi_U(x) along the last axis, unnormalised; applied twice it gives N f.

    d N operations in memory O(N): the matrix H_2^(⊗d) is applied as factors H_16 = H_2^(⊗4), four
    coordinates at a time, which is twice as fast as single butterflies on CPU. Integers narrower
    than 32 bits are widened, so a ±1 table is transformed exactly.
    """
    if f.ndim == 0 or f.dtype == bool:
        raise ValueError(f"a table of numbers is needed, got shape {f.shape} and dtype {f.dtype}")
    if jnp.issubdtype(f.dtype, jnp.integer):
        f = f.astype(jnp.promote_types(f.dtype, jnp.int32))
    batch, size = f.shape[:-1], f.shape[-1]
    left = _log2(size)
    while left:
        radix = 2 ** min(left, 4)
        index = np.arange(radix)
        parity_of = np.bitwise_count(index[:, None] & index[None, :]) % 2
        h = jnp.asarray(1 - 2 * parity_of.astype(np.int32), f.dtype)
        # The transformed digits move to the end, so after every factor the order is natural again.
        f = f.reshape(*batch, radix, size // radix)
        f = jnp.einsum("...an,ab->...nb", f, h, precision="highest").reshape(*batch, size)
        left -= min(left, 4)
    return f


def set_sizes(d: int) -> Int[np.ndarray, " N"]:
    """|U| for every index U: the number of one bits."""
    return np.bitwise_count(np.arange(2 ** _check_dimension(d), dtype=np.uint32)).astype(np.int64)


def fourier_coefficients(f: Num[ArrayLike, "*batch N"]) -> Float[np.ndarray, "*batch N"]:
    """f_hat(U) = E_x[f(x) chi_U(x)], float64; exact for tables of integers."""
    table = np.asarray(f)
    if table.dtype == np.float32 and (np.abs(table) == 1).all():
        table = _signs(table)  # float32 would round the sums of a large cube
    with jax.enable_x64(True):  # real tables keep the precision they came with
        return np.asarray(walsh_hadamard(table), np.float64) / table.shape[-1]


def weights_by_degree(f: Num[ArrayLike, "*batch N"]) -> Float[np.ndarray, "*batch degrees"]:
    """W_k = sum_{|U|=k} f_hat(U)^2 for k = 0..d; sums to E[f^2], which is 1 for a ±1 table."""
    squares = fourier_coefficients(f) ** 2
    sizes = set_sizes(_log2(squares.shape[-1]))
    order = np.argsort(sizes, kind="stable")
    starts = np.searchsorted(sizes[order], np.arange(sizes[-1] + 1))
    return np.add.reduceat(squares[..., order], starts, axis=-1)


def degree(f: Num[ArrayLike, "*batch N"]) -> Integers:
    """Largest |U| with f_hat(U) != 0, for a ±1 table: no tolerance is needed."""
    nonzero = fourier_coefficients(_signs(f)) != 0
    return np.max(np.where(nonzero, set_sizes(_log2(nonzero.shape[-1])), 0), axis=-1)


@jax.jit
def _changes(f: Int[Array, "*batch N"]) -> tuple[Int[Array, "*batch N"], Int[Array, "*batch d"]]:
    # For each input the number of flips that change f; for each flip the number of inputs.
    batch, size = f.shape[:-1], f.shape[-1]
    at_input = jnp.zeros(f.shape, jnp.int8)
    at_flip = []
    for i in range(_log2(size)):
        pairs = f.reshape(*batch, 2**i, 2, -1)
        changed = pairs != jnp.flip(pairs, -2)
        at_input += changed.reshape(f.shape).astype(jnp.int8)
        at_flip.append(jnp.sum(changed, axis=(-3, -2, -1), dtype=jnp.int32))
    return at_input, jnp.stack(at_flip, -1)


def influences(f: Num[ArrayLike, "*batch N"]) -> Float[np.ndarray, "*batch d"]:
    """Inf_i(f) = Pr_x[f(x) != f(x with coordinate i flipped)]."""
    table = _signs(f)
    return np.asarray(_changes(table)[1], np.float64) / table.shape[-1]


def sensitivity_at(f: Num[ArrayLike, "*batch N"]) -> Int[np.ndarray, "*batch N"]:
    """S(f, x): at each input, the number of coordinates whose flip changes f."""
    return np.asarray(_changes(_signs(f))[0])


def sensitivity_profile(f: Num[ArrayLike, "*batch N"]) -> Float[np.ndarray, "*batch degrees"]:
    """Fraction of inputs with S(f, x) = s, for s = 0..d."""
    s = sensitivity_at(f)
    bins = _log2(s.shape[-1]) + 1
    rows = s.reshape(-1, s.shape[-1]) + bins * np.arange(s[..., 0].size)[:, None]
    counts = np.bincount(rows.ravel(), minlength=bins * len(rows))
    return counts.reshape(*s.shape[:-1], bins) / s.shape[-1]


def average_sensitivity(f: Num[ArrayLike, "*batch N"]) -> Reals:
    """S(f) = E_x[S(f, x)] = sum_i Inf_i(f) = sum_U |U| f_hat(U)^2 (Eq. 1)."""
    return influences(f).sum(-1)


def normalised_sensitivity(f: Num[ArrayLike, "*batch N"]) -> Reals:
    """S(f) / d: what `jaxsens.sensitivity` estimates with Bits and Flip."""
    return influences(f).mean(-1)


def maximum_sensitivity(f: Num[ArrayLike, "*batch N"]) -> Integers:
    """S_max(f) = max_x S(f, x); degree(f) <= S_max(f)^2 (Huang 2019)."""
    return sensitivity_at(f).max(-1).astype(np.int64)


def noise_stability(
    f: Num[ArrayLike, "*batch N"], rho: float | Float[ArrayLike, "..."]
) -> Float[np.ndarray, "..."] | np.floating:
    """Q_rho(f) = E[f(x) f(x')] = sum_k rho^k W_k, each x'_i = x_i with probability (1 + rho) / 2.

    `rho` is a number or an array; the result has shape batch + rho.shape. ValueError outside
    [-1, 1].
    """
    correlation = np.asarray(rho, np.float64)
    wrong = correlation[~(np.abs(correlation) <= 1)]
    if wrong.size:
        raise ValueError(f"rho is a correlation and must lie in [-1, 1], got {wrong[0]}")
    weights = weights_by_degree(_signs(f))
    degrees = np.arange(weights.shape[-1]).reshape(-1, *[1] * correlation.ndim)
    return np.tensordot(weights, correlation**degrees, 1)


def parity(d: int, coordinates: Iterable[int] | None = None) -> Int[Array, " N"]:
    """prod_{i in coordinates} x_i; all d coordinates unless named."""
    chosen = range(d) if coordinates is None else list(coordinates)
    if len(set(chosen)) != len(chosen) or not all(0 <= i < d for i in chosen):
        raise ValueError(f"coordinates must be distinct and lie in 0..{d - 1}, got {chosen}")
    mask = sum(1 << (d - 1 - i) for i in chosen)
    index = np.arange(2 ** _check_dimension(d), dtype=np.uint32)
    return jnp.asarray(1 - 2 * (np.bitwise_count(index & np.uint32(mask)) % 2).astype(np.int8))


def dictator(d: int, coordinate: int = 0) -> Int[Array, " N"]:
    """x_i: one coordinate decides."""
    return parity(d, [coordinate])


def majority(d: int) -> Int[Array, " N"]:
    """sign(sum_i x_i); ValueError for even d, where half the coordinates can tie."""
    if d % 2 == 0:
        raise ValueError(f"majority needs an odd d (an even one has ties), got {d}")
    return jnp.asarray(np.where(2 * set_sizes(d) < d, 1, -1).astype(np.int8))


def tribes(d: int, width: int) -> Int[Array, " N"]:
    """True (-1) when some tribe of `width` consecutive coordinates is all true; width divides d."""
    _check_dimension(d)
    if width < 1 or d % width:
        raise ValueError(f"the tribe width must divide d = {d}, got {width}")
    index = np.arange(2**d)
    tribe = 2**width - 1
    won = [(index >> start & tribe) == tribe for start in range(0, d, width)]
    return jnp.asarray(np.where(np.any(won, axis=0), -1, 1).astype(np.int8))


def random(d: int, *, key: Array) -> Int[Array, " N"]:
    """Independent fair ±1 values: a uniformly random Boolean function."""
    return jax.random.rademacher(key, (2 ** _check_dimension(d),), jnp.int8)
