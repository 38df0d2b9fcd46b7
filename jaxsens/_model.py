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
    mode. Modules behind a bound method or inside a partial are found too.
    """
    owner = model.__self__ if isinstance(model, types.MethodType) else None
    if isinstance(owner, nnx.Module) or _has_arrays(owner):
        model = jax.tree_util.Partial(model.__func__, owner)
    if not isinstance(model, functools.partial):  # of which jax's Partial is a subclass
        return _predicting(model)
    function = inference(model.func)
    arguments = _predicting((model.args, model.keywords))
    if function is not model.func:  # a module, which Partial would compile in as a constant
        return jax.tree_util.Partial(_call, function, *arguments)
    # A functools.partial of a function makes no promise that the function hides no weights.
    is_pure = isinstance(model, jax.tree_util.Partial) or isinstance(function, types.MethodType)
    if is_pure and not _may_change(function):
        return jax.tree_util.Partial(function, *arguments[0], **arguments[1])
    return functools.partial(function, *arguments[0], **arguments[1])


def _call(function: Any, args: Any, keywords: Any, inputs: Any) -> Any:
    return function(*args, inputs, **keywords)


def _predicting(tree: Any) -> Any:
    """``tree`` with every nnx and equinox module in it in inference mode."""

    def change(kind: type, how: Callable[[Any], Any], tree: Any) -> Any:
        is_kind = lambda node: isinstance(node, kind)  # noqa: E731
        return jax.tree.map(
            lambda node: how(node) if is_kind(node) else node, tree, is_leaf=is_kind
        )

    # If equinox was never imported, no module is one of its.
    if equinox := sys.modules.get("equinox"):
        tree = change(equinox.Module, equinox.nn.inference_mode, tree)
    view = functools.partial(
        nnx.view, deterministic=True, use_running_average=True, raise_if_not_found=False
    )
    return change(nnx.Module, view, tree)


def _has_arrays(tree: Any) -> bool:
    return any(map(_is_array, jax.tree.leaves(tree)))


def _may_change(value: Any) -> bool:
    """True for objects that compare by identity, which new weights therefore do not make unequal.

    Functions are taken to be pure, as ``jax.jit`` does.
    """
    if isinstance(value, types.MethodType):
        value = value.__self__
    elif isinstance(value, types.FunctionType) or hasattr(value, "__wrapped__"):
        return False
    is_namespace = isinstance(value, type | types.ModuleType)
    return not is_namespace and type(value).__hash__ is object.__hash__


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

    The result maps ``(model, settings)`` to a program of the remaining arguments. Models of one
    structure share a program, whatever their weights. A callable without array leaves (a plain
    function, say) may hide its weights where no pytree shows them, and so may a tokens or noise
    object that is no pytree: these get a program of their own on every call, so that new values
    are always seen.
    """

    @functools.partial(jax.jit, static_argnums=0)
    def shared(static: Any, arrays: list[Any], *args: Any) -> Any:
        return function(*combine(arrays, static), *args)

    def prepare(model: Any, settings: Any) -> Callable[..., Any]:
        arrays, static = partition((model, settings))
        opaque = any(map(_may_change, static[1]))
        if _has_arrays(model) and not opaque and _hashable(static):
            return functools.partial(shared, static, arrays)
        return jax.jit(lambda *args: function(*combine(arrays, static), *args))

    return prepare


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
