"""One-line errors for arguments that cannot be right."""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


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


def checked_inputs(model: Any, inputs: Any) -> np.ndarray:
    """The inputs on the host: real, finite, at least one. Raises TypeError or ValueError."""
    if not callable(model):
        raise TypeError(
            f"model must be callable, got {type(model).__name__}; for a linen module pass "
            "jax.tree_util.Partial(module.apply, variables)"
        )
    try:
        inputs = np.asarray(inputs)
    except ValueError:
        raise ValueError(
            "inputs must be one array (N, ...), got examples of unequal shape"
        ) from None
    real = jnp.issubdtype(inputs.dtype, jnp.number) and not np.iscomplexobj(inputs)
    if inputs.ndim == 0 or not (real or inputs.dtype == bool):
        raise TypeError(
            f"inputs must be one numeric array (N, ...) with the batch first, got "
            f"{inputs.dtype} of shape {inputs.shape}"
        )
    if inputs.size == 0:
        raise ValueError(f"inputs are empty: shape {inputs.shape}; expected at least one example")
    if jnp.issubdtype(inputs.dtype, jnp.floating) and not np.isfinite(inputs).all():
        bad = np.flatnonzero(~np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1))
        raise ValueError(
            f"inputs hold NaN or inf in {len(bad)} of {len(inputs)} examples, first in example "
            f"{bad[0]}; clean the data first"
        )
    return inputs


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
        raise TypeError(f"key must be a PRNG key such as jax.random.key(0), got {key!r}") from None
    if data.ndim != 1:
        raise ValueError(f"key must be a single PRNG key, got an array of keys, {key.shape}")
    # Other generators give another stream for each batch of rows; Threefry's rows stand alone.
    return jax.random.wrap_key_data(jax.random.bits(key, (2,), "uint32"), impl="threefry2x32")
