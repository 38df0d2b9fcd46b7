"""What a token is: a patch, a position, a bit, scattered pixels, or the whole input."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsens._check import leaf_number, positive_int
from jaxsens._pytree import pytree

BoundNoise = Callable[[Array], Array]


class Tokens(Protocol):
    """The protocol of a token class: any pytree with these four members.

    Shapes are those of the array that holds the tokens.

    - ``shared``: True if the examples share the randomness of *where* a token lies; the standard
      error then treats tokens as clusters beside examples.
    - ``count(shape)``: T, the number of tokens of inputs of shape (N, ...). Raises ValueError with
      one line when inputs of that shape have no such tokens.
    - ``valid(shape)``: a boolean (N, T) array that is False where a token is padding and must
      neither be perturbed nor counted, or None when every token is real.
    - ``replace(example, token, noise, shared_key)``: one example, without its batch axis, with
      token number ``token`` (a traced scalar) replaced by ``noise(value)``, where ``noise`` holds
      a key that is fresh for every example, token and draw. ``shared_key`` is fresh for every
      token and draw and the same for all examples. Traced and vmapped.

    Two more are optional:

    - ``bind(inputs)``: the object for the caller's inputs (a pytree of NumPy arrays, before any
      ``embed``), for classes that read a mask out of them.
    - ``within(shape)``: a boolean (N, ...) array, one value for each leading coordinate of an
      example, or None; where it is False, nothing changes whatever ``replace`` returns.
    """

    shared: ClassVar[bool]

    def count(self, shape: tuple[int, ...]) -> int: ...

    def valid(self, shape: tuple[int, ...]) -> np.ndarray | None: ...

    def replace(
        self, example: Array, token: Array, noise: BoundNoise, shared_key: Array
    ) -> Array: ...


class Readable(Protocol):
    """Token classes whose tokens can be listed, for a vocabulary drawn from the data."""

    def read(self, inputs: np.ndarray) -> np.ndarray: ...


class _AllValid:
    """Every token is real and lies in the same place in every example."""

    shared: ClassVar[bool] = False

    def valid(self, shape: tuple[int, ...]) -> np.ndarray | None:
        return None


def _grid(shape: tuple[int, ...], size: int, name: str) -> tuple[int, int]:
    """Patches per column and per row of (N, H, W, C) images."""
    if len(shape) != 4:
        raise ValueError(
            f"{name} needs images of shape (N, H, W, C), got shape {shape}; "
            "grey images need a channel axis: images[..., None]"
        )
    _, height, width, _ = shape
    if height % size or width % size:
        raise ValueError(
            f"{name}({size}) does not divide images of {height} x {width}; "
            "choose a patch size that divides height and width"
        )
    return height // size, width // size


@pytree(meta=("size",))
@dataclasses.dataclass(frozen=True)
class Patches(_AllValid):
    """The size x size patches of an image, every channel included, in row-major order.

    Inputs (N, H, W, C), T = (H / size) (W / size), a token has shape (size, size, C). Paper A,
    Section 5 (patch 4 on 32 x 32 images, 7 on MNIST). Raises ValueError on another rank or when
    ``size`` does not divide H and W.
    """

    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", positive_int("patch size", self.size))

    def count(self, shape: tuple[int, ...]) -> int:
        rows, columns = _grid(shape, self.size, "Patches")
        return rows * columns

    def read(self, inputs: np.ndarray) -> np.ndarray:
        """All patches of all images, shape (N T, size, size, C)."""
        rows, columns = _grid(inputs.shape, self.size, "Patches")
        split = inputs.reshape(len(inputs), rows, self.size, columns, self.size, -1)
        return np.moveaxis(split, 3, 2).reshape(-1, self.size, self.size, inputs.shape[-1])

    def replace(self, example: Array, token: Array, noise: BoundNoise, shared_key: Array) -> Array:
        row, column = jnp.divmod(token, example.shape[1] // self.size)
        corner = (row * self.size, column * self.size, jnp.zeros_like(row))
        patch = jax.lax.dynamic_slice(example, corner, (self.size, self.size, example.shape[2]))
        return jax.lax.dynamic_update_slice(example, noise(patch), corner)


class _Masked:
    """A ``mask``: an array, or, until :meth:`bind` looks it up, the name of one in the inputs."""

    mask: Any

    def __post_init__(self) -> None:
        if self.mask is None or isinstance(self.mask, str):
            return
        mask = np.asarray(self.mask)
        if mask.ndim != 2 or not np.isin(mask, (0, 1)).all():
            raise ValueError(
                f"mask must be an (N, T) array of True and False (or 1 and 0), or the name of one "
                f"in the inputs, got {mask.dtype} of shape {mask.shape}"
            )
        empty = np.flatnonzero(~mask.astype(bool).any(axis=1))
        if len(empty):
            raise ValueError(
                f"mask leaves example {empty[0]} without a real token ({len(empty)} such examples "
                "in all); drop these examples"
            )
        object.__setattr__(self, "mask", mask.astype(bool))

    def bind(self, inputs: Any) -> Self:
        """This with the array that ``mask`` names in the inputs."""
        if not isinstance(self.mask, str):
            return self
        found = jax.tree.leaves(inputs)[leaf_number(inputs, self.mask, "mask", "inputs")]
        return dataclasses.replace(self, mask=found)  # type: ignore[type-var]

    def _checked(self, shape: tuple[int, ...]) -> np.ndarray | None:
        if isinstance(self.mask, str):
            raise ValueError(
                f"mask={self.mask!r} is a name; only inputs given to sensitivity have it"
            )
        if self.mask is not None and self.mask.shape != shape[:2]:
            raise ValueError(
                f"mask has shape {self.mask.shape} but inputs of shape {shape} need {shape[:2]}"
            )
        return self.mask


@pytree(drop=("mask",))
@dataclasses.dataclass(frozen=True, eq=False)
class Positions(_Masked):
    """The positions of a sequence: token ids (N, T) or vectors (N, T, ...).

    ``mask`` (N, T), True or 1 at real tokens, or the name of such an array in the inputs: padded
    positions are never perturbed and never counted, and an example of T_i real tokens averages over
    those T_i. Paper A, Sections 4 and 6 (one-hot tokens; layer-normalised embeddings of sub-words).
    Raises ValueError when the inputs have no position axis, when the mask has another shape than
    (N, T) or holds anything but 0 and 1, or when an example is all padding.
    """

    mask: Any = None
    shared: ClassVar[bool] = False

    def count(self, shape: tuple[int, ...]) -> int:
        if len(shape) < 2:
            raise ValueError(f"Positions needs inputs of shape (N, T, ...), got shape {shape}")
        return shape[1]

    def valid(self, shape: tuple[int, ...]) -> np.ndarray | None:
        return self._checked(shape)

    def read(self, inputs: np.ndarray) -> np.ndarray:
        """All real tokens of all examples, shape (number of them, ...)."""
        mask = self.valid(inputs.shape)
        return inputs.reshape(-1, *inputs.shape[2:]) if mask is None else inputs[mask]

    def replace(self, example: Array, token: Array, noise: BoundNoise, shared_key: Array) -> Array:
        return example.at[token].set(noise(example[token]))


@pytree()
@dataclasses.dataclass(frozen=True)
class Bits(_AllValid):
    """The d coordinates of inputs (N, d): T = d, a token is a number. Paper A, Eq. 1.

    Raises ValueError on inputs of another rank.
    """

    def count(self, shape: tuple[int, ...]) -> int:
        if len(shape) != 2:
            raise ValueError(f"Bits needs inputs of shape (N, d), got shape {shape}")
        return shape[1]

    def read(self, inputs: np.ndarray) -> np.ndarray:
        """All coordinates of all examples, shape (N d,)."""
        return inputs.reshape(-1)

    def replace(self, example: Array, token: Array, noise: BoundNoise, shared_key: Array) -> Array:
        return example.at[token].set(noise(example[token]))


@pytree(drop=("mask",))
@dataclasses.dataclass(frozen=True, eq=False)
class Whole(_Masked, _AllValid):
    """The whole input as one token, every part of it replaced at once: T = 1 (paper A, Table 4).

    ``mask`` (N, T), True or 1 at the positions of (N, T, ...) inputs that are replaced, or the name
    of such an array in the inputs; the others stay as they are: padding, say, or a token that
    belongs to the model. Errors as for :class:`Positions`.
    """

    mask: Any = None

    def count(self, shape: tuple[int, ...]) -> int:
        return 1

    def within(self, shape: tuple[int, ...]) -> np.ndarray | None:
        """Where the inputs may change."""
        return self._checked(shape)

    def read(self, inputs: np.ndarray) -> np.ndarray:
        """The inputs themselves, shape (N, ...)."""
        return inputs

    def replace(self, example: Array, token: Array, noise: BoundNoise, shared_key: Array) -> Array:
        return noise(example)


@pytree(meta=("size",))
@dataclasses.dataclass(frozen=True)
class Scatter:
    """What the authors' vision code perturbs: size^2 random pixels in place of a patch.

    Inputs (N, H, W, C), T = (H / size) (W / size) as for :class:`Patches`; each token is a set of
    size^2 distinct pixel positions, every channel included, drawn uniformly **for the whole
    batch**, afresh for every token and draw, and has shape (size^2, C). Def. 4.1 in the text
    perturbs a patch instead; that code also reads its noise level as a standard deviation, so its
    level s is ``Gaussian(variance=s**2)`` here. Because examples share the positions, the standard
    error clusters by token as well as by example.
    """

    size: int
    shared: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", positive_int("patch size", self.size))

    def count(self, shape: tuple[int, ...]) -> int:
        rows, columns = _grid(shape, self.size, "Scatter")
        return rows * columns

    def valid(self, shape: tuple[int, ...]) -> np.ndarray | None:
        return None

    def replace(self, example: Array, token: Array, noise: BoundNoise, shared_key: Array) -> Array:
        height, width, channels = example.shape
        pixels = jax.random.permutation(shared_key, height * width)[: self.size**2]
        flat = example.reshape(height * width, channels)
        return flat.at[pixels].set(noise(flat[pixels])).reshape(example.shape)
