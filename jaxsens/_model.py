"""Any callable as something one compiled program can take: arrays apart from everything static."""

import functools
import sys
import types
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np
from flax import nnx


def inference(model: Any) -> Any:
    """The model as it predicts: no dropout, running averages in normalisation layers.

    flax.nnx modules anywhere inside ``model`` are replaced by views that share their parameters,
    equinox modules by copies from ``equinox.nn.inference_mode``; the caller's objects keep their
    mode. Methods bound to a pytree and ``functools.partial`` objects become pytrees, so their
    arrays are arguments of the compiled program rather than constants in it.
    """
    if isinstance(model, types.MethodType) and any(map(_is_array, jax.tree.leaves(model.__self__))):
        model = jax.tree_util.Partial(model.__func__, model.__self__)
    elif type(model) is functools.partial:
        model = jax.tree_util.Partial(model.func, *model.args, **model.keywords)
    if equinox := sys.modules.get("equinox"):  # if it was never imported, no module is one of its
        model = equinox.nn.inference_mode(model)
    return jax.tree.map(
        lambda node: _nnx_inference(node) if isinstance(node, nnx.Module) else node,
        model,
        is_leaf=lambda node: isinstance(node, nnx.Module),
    )


def _nnx_inference(module: nnx.Module) -> nnx.Module:
    return nnx.view(module, deterministic=True, use_running_average=True, raise_if_not_found=False)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def partition(tree: Any) -> tuple[list[Any], Hashable]:
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


class _Hole:
    """Marks the place of an array."""


_HOLE = _Hole()


def compile_once(function: Callable[..., Any]) -> Callable[..., Callable[..., Any]]:
    """``function(model, settings, ...)`` compiled once for each structure of model and settings.

    The result maps ``(model, settings)`` to a program of the remaining arguments. Models of one
    structure share a program, whatever their weights. A callable without array leaves (a plain
    function, say) may hide its weights where no pytree shows them: it gets a program of its own on
    every call, so that new weights are always seen.
    """

    @functools.partial(jax.jit, static_argnums=0)
    def shared(static: Any, arrays: list[Any], *args: Any) -> Any:
        return function(*combine(arrays, static), *args)

    def prepare(model: Any, settings: Any) -> Callable[..., Any]:
        arrays, static = partition((model, settings))
        if any(map(_is_array, jax.tree.leaves(model))) and _hashable(static):
            return functools.partial(shared, static, arrays)
        return jax.jit(lambda *args: function(*combine(arrays, static), *args))

    return prepare


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
