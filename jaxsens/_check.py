"""One-line errors for arguments that cannot be right."""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def positive_int(name: str, value: Any) -> int:
    """``value`` as an int >= 1. Raises TypeError for no integer, ValueError for one below 1."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be an integer, got {value!r} ({type(value).__name__})"
        ) from None
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def positive_float(name: str, value: Any) -> float:
    """``value`` as a finite float > 0; TypeError when it is no number, ValueError otherwise."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be finite and greater than 0, got {number}")
    return number


def checked_inputs(inputs: Any) -> Any:
    """The inputs as a pytree of host arrays of one length: real, finite, at least one example.

    Numbers in (nested) lists are one array. Raises TypeError or ValueError.
    """
    leaves = jax.tree.leaves(inputs)
    if not leaves or all(isinstance(leaf, bool | int | float | complex | str) for leaf in leaves):
        inputs = _array(inputs, "inputs")
    named = named_leaves(inputs)
    inputs = jax.tree.unflatten(
        jax.tree.structure(inputs), [_array(leaf, _of(name)) for name, leaf in named.items()]
    )
    lengths = {name: len(leaf) for name, leaf in named_leaves(inputs).items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {length}" for name, length in list(lengths.items())[:4])
        raise ValueError(
            f"inputs must have the same number of examples in every array, got {listed}; a list "
            "of examples must be stacked into one array first"
        )
    return inputs


def _array(leaf: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(leaf)
    except ValueError:
        raise ValueError(
            f"{what} must be an array (N, ...), got examples of unequal shape"
        ) from None
    real = jnp.issubdtype(array.dtype, jnp.number) and not np.iscomplexobj(array)
    if array.ndim == 0 or not (real or array.dtype == bool):
        raise TypeError(
            f"{what} must be a numeric array (N, ...) with the batch first, or a pytree of such "
            f"arrays, got {array.dtype} of shape {array.shape}"
        )
    if array.size == 0:
        raise ValueError(f"{what} are empty: shape {array.shape}; expected at least one example")
    return _held(array, what)


def _held(array: np.ndarray, what: str) -> np.ndarray:
    """The array in the dtype that a device holds it in: native, 32 bits unless x64 is enabled."""
    dtype = jax.dtypes.canonicalize_dtype(
        np.float64 if array.dtype == np.longdouble else array.dtype.newbyteorder("=")
    )
    if jnp.issubdtype(array.dtype, jnp.floating):
        with np.errstate(over="ignore"):
            held = array.astype(dtype, copy=False)
        good, wrong = np.isfinite(held), "NaN or inf"
        if np.isfinite(array).all():
            wrong = f"numbers beyond the range of {dtype}"
    else:
        held = array.astype(dtype, copy=False)
        good, wrong = held == array, f"numbers beyond the range of {dtype}"
    if not good.all():
        bad = np.flatnonzero(~good.reshape(len(array), -1).all(axis=1))
        raise ValueError(
            f"{what} hold {wrong} in {len(bad)} of {len(array)} examples, first in example "
            f"{bad[0]}; clean the data first"
        )
    return held


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by name: keys, fields and indices joined by dots; "" if it is one."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}


def leaf_number(tree: Any, name: str | int | None, argument: str, what: str) -> int:
    """Which leaf of ``tree`` has that name; None for the only one. Raises ValueError."""
    names = list(named_leaves(tree))
    listed = ", ".join(map(repr, names[:6])) + ", ..." * (len(names) > 6)
    if name is None:
        if len(names) == 1:
            return 0
        raise ValueError(
            f"{what} hold {len(names)} arrays ({listed}); say which one holds the tokens by "
            f"{argument}=NAME (a list of examples must be stacked into one array instead)"
        )
    if str(name) not in names:
        raise ValueError(f"{argument}={name!r} names no array of the {what}: they have {listed}")
    return names.index(str(name))


def _of(name: str) -> str:
    return f"inputs[{name!r}]" if name else "inputs"


def check_members(name: str, value: Any, members: tuple[str, ...], such_as: str) -> None:
    """Raises TypeError unless ``value`` is an instance that has the members of a protocol."""
    if isinstance(value, type) or not all(hasattr(value, member) for member in members):
        raise TypeError(
            f"{name} must be an object with {', '.join(members)}, such as {such_as}, got {value!r}"
        )


def checked_key(key: Any) -> jax.Array:
    """A Threefry key made from a single key of any kind. Raises TypeError or ValueError."""
    try:
        data = jax.random.key_data(
            key if isinstance(key, jax.Array) else jax.random.wrap_key_data(key)
        )
    except (TypeError, ValueError):
        stream = "; pass key=rngs() to draw one" if isinstance(key, nnx.Rngs) else ""
        shown = type(key).__name__ if isinstance(key, nnx.Pytree) else " ".join(f"{key!r}".split())
        raise TypeError(
            f"key must be a PRNG key such as jax.random.key(0), got {shown[:60]}{stream}"
        ) from None
    if data.ndim != 1:
        raise ValueError(f"key must be a single PRNG key, got an array of keys, {key.shape}")
    # Other generators give another stream for each batch of rows; Threefry's rows stand alone.
    return jax.random.wrap_key_data(jax.random.bits(key, (2,), "uint32"), impl="threefry2x32")
