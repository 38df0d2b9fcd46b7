"""Any callable as something one compiled program can take: arrays apart from everything static."""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np

from jaxsens._inference import may_change


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def partition(tree: Any) -> tuple[list[Any], tuple[Hashable, tuple[Any, ...]]]:
    """Array leaves, and everything else in a form that hashes; :func:`combine` is the inverse."""
    leaves, treedef = jax.tree.flatten(tree)
    dynamic = [leaf for leaf in leaves if _is_array(leaf)]
    static = tuple(_HOLE if _is_array(leaf) else leaf for leaf in leaves)
    return dynamic, (treedef, static)


def combine(dynamic: list[Any], static: Any) -> Any:
    """Inverse of :func:`partition`."""
    treedef, leaves = static
    arrays = iter(dynamic)
    return treedef.unflatten([next(arrays) if leaf is _HOLE else leaf for leaf in leaves])


class _HOLE:
    """Marks the place of an array."""


def compile_once(function: Callable[..., Any]) -> Callable[..., Callable[..., Any]]:
    """``function(model, settings, ...)`` compiled once for each structure of model and settings.

    The result maps ``(model, settings)`` to a program of the remaining arguments; ``model`` may be
    a tuple of callables. Models of one structure share a program, whatever their weights. A
    callable without array leaves (a plain function, say) may hide its weights where no pytree shows
    them, and so may a tokens or noise object that is no pytree: these get a program of their own on
    every call, so that new values are always seen.
    """

    @functools.partial(jax.jit, static_argnums=0)
    def shared(static: Any, arrays: list[Any], *args: Any) -> Any:
        return function(*combine(arrays, static), *args)

    def prepare(model: Any, settings: Any) -> Callable[..., Any]:
        arrays, static = partition((model, settings))
        opaque = any(map(may_change, static[1]))
        callables = model if isinstance(model, tuple) else (model,)
        if all(map(_has_arrays, callables)) and not opaque and _hashable(static):
            return functools.partial(shared, static, arrays)

        return jax.jit(lambda *args: function(*combine(arrays, static), *args))

    return prepare


def _has_arrays(tree: Any) -> bool:
    return any(map(_is_array, jax.tree.leaves(tree)))


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
