"""What replaces a token: Gaussian noise, a draw from a vocabulary, or a bit flip."""

import dataclasses
import math
import operator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxsens._check import positive_float
from jaxsens._pytree import pytree

if TYPE_CHECKING:
    from jaxsens.tokens import Readable


class Noise(Protocol):
    """The protocol of a noise: any pytree with these three members.

    - ``deterministic``: True if the replacement depends on the token alone. Each token is then
      evaluated once, whatever ``repeats`` says.
    - ``check(inputs)``: looks at the (N, ...) inputs once, before anything is compiled, and raises
      ValueError or TypeError with one line when this noise cannot act on them.
    - ``__call__(token, *, key)``: the replacement of one token, of the token's shape and dtype.
      It is traced and vmapped; ``key`` is fresh for every example, token and draw.
    """

    deterministic: ClassVar[bool]

    def check(self, inputs: np.ndarray) -> None: ...

    def __call__(self, token: jax.Array, *, key: jax.Array) -> jax.Array: ...


@pytree(data=("variance",))
@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Additive noise: ``e + xi`` with ``xi ~ N(0, variance * I)`` (paper A, Def. 4.1).

    ``variance`` is sigma^2, a **variance** and not a standard deviation: finite and > 0. It is
    traced, so a sweep over variances compiles once. Raises TypeError on inputs that are not
    floating point.
    """

    variance: float
    deterministic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "variance", positive_float("variance", self.variance))

    def check(self, inputs: np.ndarray) -> None:
        if not jnp.issubdtype(inputs.dtype, jnp.floating):
            raise TypeError(
                f"Gaussian noise needs floating-point inputs, got {inputs.dtype}; "
                "convert them, or use Replacement for token ids and Flip for bits"
            )

    def __call__(self, token: jax.Array, *, key: jax.Array) -> jax.Array:
        # The root first: in half precision a small variance is 0 long before its root is.
        sigma = jnp.sqrt(jnp.asarray(self.variance)).astype(token.dtype)
        return token + sigma * _normal(key, token.shape, token.dtype)


def _normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Standard normal numbers, on a CPU in a third of the time of ``jax.random.normal``.

    Noise is most of what the estimator costs beyond a small model, and hashing a Threefry block for
    every number most of the noise. Here the key, which Threefry made for this token and draw alone,
    is 64 random bits, and the numbers come from a counter that two rounds of a mixing function
    scramble, each after one half of the key was added or xored in. Inverse of the normal
    distribution function at uniform numbers of 24 bits.
    """
    if dtype != jnp.float32 or str(jax.random.key_impl(key)) != "threefry2x32":
        return jax.random.normal(key, shape, dtype)
    first, second = jax.random.key_data(key)
    counts = jnp.arange(math.prod(shape), dtype=jnp.uint32) * np.uint32(0x9E3779B9)
    words = _mixed(_mixed(counts + first) ^ second)
    # Odd multiples of 2^-24 in (-1, 1): none is 0 or as far out as 1.
    uniform = (words >> 8).astype(jnp.int32).astype(jnp.float32) * np.float32(2**-23)
    return (np.float32(np.sqrt(2)) * _erf_inv(uniform + np.float32(2**-24 - 1))).reshape(shape)


def _mixed(words: jax.Array) -> jax.Array:
    """A bijection of 32 bits in which every bit flips about half of the others.

    The multipliers are those of Wellons' search (hash-prospector) for low bias.
    """
    words = (words ^ (words >> 16)) * np.uint32(0x21F0AAAD)
    words = (words ^ (words >> 15)) * np.uint32(0x735A2D97)
    return words ^ (words >> 15)


# Giles' polynomials in w = -log(1 - x^2): around w = 2.5 below w = 5, around sqrt(w) = 3 above.
CENTRAL = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
           -0.00125372503, -0.00417768164, 0.246640727, 1.50140941)  # fmt: skip
TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
        -0.0076224613, 0.00943887047, 1.00167406, 2.83297682)  # fmt: skip


def _erf_inv(x: jax.Array) -> jax.Array:
    """Inverse error function in (-1, 1), to a few roundings (Giles, GPU Computing Gems, 2012).

    ``jax.lax.erf_inv`` is the same with ``log1p``, which costs several times more on a CPU and
    matters where x is next to 0, beyond what uniform numbers resolve.
    """
    w = -jnp.log((1 - x) * (1 + x))
    central = w < 5
    distance = jnp.where(central, w - np.float32(2.5), jnp.sqrt(w) - 3)
    value = jnp.zeros_like(x)
    for near, far in zip(CENTRAL, TAIL, strict=True):
        value = value * distance + jnp.where(central, np.float32(near), np.float32(far))
    return value * x


@pytree(data=("vocabulary",))
@dataclasses.dataclass(frozen=True, eq=False)
class Replacement:
    """A uniform draw from ``vocabulary``, which may be the token itself (paper A, Section 4.1).

    ``vocabulary`` has shape (V, *token shape): ``jnp.eye(M)`` for one-hot tokens, ``jnp.arange(M)``
    for token ids, or every token of a data set with :meth:`from_data`. Raises ValueError when it is
    empty or not finite, or when its entries do not have the shape and kind of a token.
    """

    vocabulary: jax.Array | np.ndarray
    deterministic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        values = np.asarray(self.vocabulary)
        if values.ndim == 0 or len(values) == 0:
            raise ValueError(
                "vocabulary must have shape (V, *token shape) with V >= 1, got shape "
                f"{values.shape}; for the ids 0..M-1 pass jnp.arange(M)"
            )
        if jnp.issubdtype(values.dtype, jnp.floating) and not np.isfinite(values).all():
            raise ValueError("vocabulary holds NaN or inf; every entry must be finite")
        object.__setattr__(self, "vocabulary", jnp.asarray(values))

    @classmethod
    def from_data(cls, tokens: "Readable", inputs: Any) -> Self:
        """Tokens drawn from the data: every (unpadded) token of every example, equally likely.

        For instance ``Replacement.from_data(Patches(7), images)``.
        """
        return cls(tokens.read(np.asarray(inputs)))

    def check(self, inputs: np.ndarray) -> None:
        kinds = [jnp.issubdtype(a.dtype, jnp.floating) for a in (inputs, self.vocabulary)]
        if kinds[0] != kinds[1]:
            raise TypeError(
                f"vocabulary has dtype {self.vocabulary.dtype} but inputs have {inputs.dtype}; "
                "both must be floating point or both integers"
            )

    def __call__(self, token: jax.Array, *, key: jax.Array) -> jax.Array:
        if self.vocabulary.shape[1:] != token.shape:
            raise ValueError(
                f"vocabulary entries have shape {self.vocabulary.shape[1:]} but tokens have shape "
                f"{token.shape}; pass a vocabulary of shape (V, *{token.shape})"
            )
        index = jax.random.randint(key, (), 0, len(self.vocabulary), jnp.int32)
        return jnp.asarray(self.vocabulary)[index].astype(token.dtype)


@pytree(meta=("values",))
@dataclasses.dataclass(frozen=True)
class Flip:
    """The other of two values: -1 and +1 by default (paper A, Eq. 1). Deterministic.

    ``values`` is the pair in use, (0, 1) for instance. Raises ValueError when the inputs hold
    anything else, or when ``values`` are not two different integers.
    """

    values: tuple[int, int] = (-1, 1)
    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        try:
            low, high = map(operator.index, self.values)
        except (TypeError, ValueError):
            low = high = 0
        if low == high:
            raise ValueError(f"values must be two different integers, got {self.values!r}")
        object.__setattr__(self, "values", (low, high))

    def check(self, inputs: np.ndarray) -> None:
        low, high = self.values
        wrong = (inputs != low) & (inputs != high)
        if wrong.any():
            raise ValueError(
                f"Flip expects inputs of {low} and {high} only, got {inputs[wrong].flat[0]}; "
                "for another pair pass Flip(values=(a, b))"
            )

    def __call__(self, token: jax.Array, *, key: jax.Array) -> jax.Array:
        low, high = (jnp.asarray(value, token.dtype) for value in self.values)
        return jnp.where(token == low, high, low)
