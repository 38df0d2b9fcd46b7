"""A model as it predicts: every module in inference mode, wherever in the callable it sits."""

import collections
import contextlib
import copy
import dataclasses
import functools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

# Flags that say "training" when they are True; flax's own say "inference" when they are.
TRAINING = ("training", "train", "is_training")
PREDICTING = ("deterministic", "use_running_average")
# Packages whose functions and objects hold no model of the user's in their globals or attributes.
LIBRARIES = (
    *("jax", "jaxlib", "flax", "equinox", "jaxsens", "optax", "orbax", "chex", "numpy", "scipy"),
    *("jaxtyping", "builtins", "functools", "torch", "tensorflow"),
)
DICTS = (dict, collections.OrderedDict, collections.defaultdict)
REBUILT = "__jaxsens_rebuilt__"


def inference(model: Any) -> Any:
    """The model as it predicts: no dropout, running averages in normalisation layers.

    Modules anywhere inside ``model`` are replaced by copies that share its arrays and are switched
    as their own library does it: flax.nnx modules by ``nnx.view`` and ``Module.eval``, equinox
    modules by ``equinox.nn.inference_mode``, flags of linen modules by ``clone``; boolean
    ``training`` flags of flax modules become False. They are looked for in partials, bound
    methods, containers, objects, closures and globals of functions, and behind ``jit`` and
    ``vmap``; what holds one is built anew. Nothing that the caller holds is modified.
    """
    owner = model.__self__ if isinstance(model, types.MethodType) else None
    if isinstance(owner, nnx.Module) or _has_arrays(owner):
        model = jax.tree_util.Partial(model.__func__, owner)
    rebuild = _Rebuild()
    if not isinstance(model, functools.partial):  # of which jax's Partial is a subclass
        return rebuild(model)
    function = inference(model.func)
    arguments = rebuild((model.args, model.keywords))
    is_function = isinstance(function, types.FunctionType | types.MethodType)
    if function is not model.func and not is_function:
        # A module, which Partial would compile in as a constant.
        return jax.tree_util.Partial(_call, function, *arguments)
    # A functools.partial of a function makes no promise that the function hides no weights.
    is_pure = isinstance(model, jax.tree_util.Partial) or isinstance(function, types.MethodType)
    if is_pure and not may_change(function):
        return jax.tree_util.Partial(function, *arguments[0], **arguments[1])
    return functools.partial(function, *arguments[0], **arguments[1])


def _call(function: Any, args: Any, keywords: Any, inputs: Any) -> Any:
    return function(*args, inputs, **keywords)


def may_change(value: Any) -> bool:
    """True for objects that compare by identity, which new weights therefore do not make unequal.

    Functions are taken to be pure, as ``jax.jit`` does, but for those that were built anew.
    """
    if isinstance(value, types.MethodType):
        value = value.__self__
    elif isinstance(value, types.FunctionType) or hasattr(value, "__wrapped__"):
        return hasattr(value, REBUILT)
    is_namespace = isinstance(value, type | types.ModuleType)
    return not is_namespace and type(value).__hash__ is object.__hash__


def _has_arrays(tree: Any) -> bool:
    return any(isinstance(x, jax.Array | np.ndarray | np.generic) for x in jax.tree.leaves(tree))


def _is_library(name: str | None) -> bool:
    return (name or "").partition(".")[0] in LIBRARIES


class _Rebuild:
    """Maps a value to itself when no module is inside, and otherwise to a copy that predicts."""

    def __init__(self) -> None:
        # By identity, so that what is shared stays shared and cycles end; values are kept alive.
        self.done: dict[int, tuple[Any, Any]] = {}
        # If equinox was never imported, no module is one of its.
        self.equinox: Any = sys.modules.get("equinox")
        self.linen: Any = sys.modules.get("flax.linen")

    def __call__(self, value: Any) -> Any:
        if id(value) not in self.done:
            self.done[id(value)] = value, value  # what a cycle meets
            self.done[id(value)] = value, self._rebuilt(value)
        return self.done[id(value)][1]

    def _rebuilt(self, value: Any) -> Any:
        if isinstance(value, nnx.Pytree):
            return _nnx_predicting(value)
        if isinstance(value, nnx.GraphDef):
            return _graphdef_predicting(value)
        if self.equinox and isinstance(value, self.equinox.Module):
            return self._equinox(value)
        if self.linen and isinstance(value, self.linen.Module):
            return self._linen(value)
        if isinstance(value, functools.partial):
            function, *rest = map(self, (value.func, value.args, value.keywords))
            if function is value.func and rest[0] is value.args and rest[1] is value.keywords:
                return value
            return type(value)(function, *rest[0], **rest[1])
        if isinstance(value, types.MethodType):
            owner = self(value.__self__)
            return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if _is_jitted(value):  # the estimator compiles it anyway
            function = self(value.__wrapped__)
            return value if function is value.__wrapped__ else function
        if type(value) in DICTS:
            return self._dict(value)
        if not jax.tree_util.all_leaves([value]):
            return self._leaves(value)
        return self._object(value)

    def _is_leaf(self, node: Any) -> bool:
        kinds: tuple[type, ...] = (nnx.Pytree, nnx.GraphDef, functools.partial, *DICTS)
        return isinstance(node, (*kinds, self.equinox.Module) if self.equinox else kinds)

    def _dict(self, old: Any) -> Any:
        """Item by item: JAX sorts the keys, and not all keys have an order."""
        items = {k: v if isinstance(v, jax.Array) else self(v) for k, v in old.items()}
        if all(items[key] is value for key, value in old.items()):
            return old
        new = copy.copy(old)
        new.update(items)
        return new

    def _leaves(self, tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
        leaves, treedef = jax.tree_util.tree_flatten(tree, is_leaf or self._is_leaf)
        rebuilt = [leaf if isinstance(leaf, jax.Array) else self(leaf) for leaf in leaves]
        same = all(a is b for a, b in zip(leaves, rebuilt, strict=True))
        return tree if same else jax.tree_util.tree_unflatten(treedef, rebuilt)

    def _equinox(self, module: Any) -> Any:
        is_jitted = lambda node: type(node).__name__ == "_JitWrapper"  # noqa: E731
        if is_jitted(module):
            return self(module.__wrapped__)
        is_other = lambda node: isinstance(node, nnx.Pytree | functools.partial)  # noqa: E731
        return self._leaves(
            self.equinox.nn.inference_mode(module), lambda node: is_jitted(node) or is_other(node)
        )

    def _linen(self, module: Any) -> Any:
        """Fields, of modules in fields too; a module holds its variables by ``bind`` alone."""
        changes = {}
        for field in dataclasses.fields(module):
            value = getattr(module, field.name, None)
            if field.name in ("parent", "name"):
                continue
            if field.name in PREDICTING and value is False:
                changes[field.name] = True
            elif field.name in TRAINING and value is True:
                changes[field.name] = False
            elif (rebuilt := self(value)) is not value:
                changes[field.name] = rebuilt
        if not changes:
            return module
        if module.scope is None:
            return module.clone(**changes)
        unbound, variables = module.unbind()
        return unbound.clone(**changes).bind(variables)

    def _function(self, function: types.FunctionType) -> Any:
        new_globals = {
            name: new
            for name, old in _globals_read(function)
            if (new := self(old)) is not old
        }  # fmt: skip
        cells = function.__closure__ or ()
        copies = tuple(types.CellType() for _ in cells)
        names = function.__globals__ if not new_globals else {**function.__globals__, **new_globals}
        built = types.FunctionType(
            function.__code__, names, function.__name__, None, copies or None
        )
        self.done[id(function)] = function, built  # what the function itself means by its name
        built.__defaults__ = self(function.__defaults__)
        built.__kwdefaults__ = self(function.__kwdefaults__)
        changed = bool(new_globals) or built.__defaults__ is not function.__defaults__
        changed |= built.__kwdefaults__ is not function.__kwdefaults__
        for old, cell in zip(cells, copies, strict=True):
            try:
                content = old.cell_contents
            except ValueError:  # not yet assigned
                continue
            cell.cell_contents = self(content)
            changed |= cell.cell_contents is not content and cell.cell_contents is not built
        if not changed:
            return function
        setattr(built, REBUILT, True)
        return built

    def _object(self, value: Any) -> Any:
        attributes: Any = getattr(value, "__dict__", None)
        if isinstance(value, type | types.ModuleType) or not isinstance(attributes, dict):
            return value
        if _is_library(type(value).__module__):
            return value
        changes = {n: new for n, old in attributes.items() if (new := self(old)) is not old}
        if not changes:
            return value
        built = object.__new__(type(value))
        built.__dict__.update(attributes, **changes)
        return built


def _is_jitted(value: Any) -> bool:
    name = f"{type(value).__module__}.{type(value).__name__}"
    is_wrapper = (name.startswith("flax.nnx.") and "Jit" in name) or name.endswith("PjitFunction")
    return is_wrapper and hasattr(value, "__wrapped__") and not hasattr(value, "partial_args")


def _globals_read(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The global names that a function of the user's reads, and what they stand for."""
    if _is_library(function.__module__):
        return
    codes = [function.__code__]
    for code in codes:
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
        for name in code.co_names:
            if name in function.__globals__:
                value = function.__globals__[name]
                if not isinstance(value, type | types.ModuleType):
                    yield name, value


def _nnx_predicting(node: Any) -> Any:
    """A copy of an nnx node whose Variables are its own, and whose modules predict."""
    node = nnx.clone(node)
    flags = dict.fromkeys(PREDICTING, True)
    with contextlib.suppress(ValueError):  # of parents and children that know each other
        node = nnx.view(node, **flags, raise_if_not_found=False)
    for _, module in nnx.iter_modules(node) if isinstance(node, nnx.Module) else ():
        for name, value in (*flags.items(), *dict.fromkeys(TRAINING, False).items()):
            if hasattr(module, name) and (value or getattr(module, name) is True):
                setattr(module, name, value)
    return node


def _graphdef_predicting(graphdef: Any) -> Any:
    """The static half of ``nnx.split``, with the flags it holds switched."""
    static = lambda value: type(value).__name__ == "Static" and isinstance(value.value, bool)  # noqa: E731
    attributes = [
        (name, dataclasses.replace(value, value=name in PREDICTING))
        if static(value) and name in (*PREDICTING, *TRAINING)
        else (name, value)
        for name, value in graphdef.attributes
    ]
    return dataclasses.replace(graphdef, attributes=attributes)
