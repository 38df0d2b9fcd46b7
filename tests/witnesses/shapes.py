"""Shapes and types of arrays as they are annotated, checked at every call in the tests.

For `jaxtyping.install_import_hook`: beartype, for the annotations that speak of arrays alone. The
others are mypy's, and many tests hand over what is wrong on purpose. Where an array of JAX is
annotated one of NumPy may be given, as in JAX itself.
"""

import pkgutil
import types
import typing
from pathlib import Path

import jax
import jaxtyping
import numpy as np
from beartype import beartype

ROOT = Path(__file__).parents[2] / "jaxsens"
# What is checked beside the modules with an underscore. Models and `jaxsens.boolean` say in a line
# of their own what they must be given, and tests of that line give them something else; what opens
# files has no arrays, and tests of how long it takes.
PACKAGES = (
    "augment", "curvature", "losses", "measures", "models.convolution", "models.layers",
    "noise", "placement", "regularised", "sharpness", "tokens", "training", "weights",
)  # fmt: skip


def check_annotations():
    """From now on, in modules that are not imported yet."""
    private = [name for name in _modules(ROOT) if name[0] == "_"]
    data = [f"data.{name}" for name in _modules(ROOT / "data") if name != "files"]
    jaxtyping.install_import_hook(
        [f"jaxsens.{name}" for name in (*private, *data, *PACKAGES)], "witnesses.shapes.checked"
    )


def _modules(folder):
    return [found.name for found in pkgutil.iter_modules([str(folder)])]


def checked(function):
    """``function`` that raises where an array is not as annotated."""
    hints = {
        name: _or_numpy(hint) for name, hint in function.__annotations__.items() if _of_arrays(hint)
    }
    if not hints:
        return function
    bare = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    bare.__kwdefaults__, bare.__annotations__ = function.__kwdefaults__, hints
    bare.__module__, bare.__qualname__ = function.__module__, function.__qualname__
    return beartype(bare)


def _is_array(hint):
    return isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)


def _of_arrays(hint):
    return _is_array(hint) or any(map(_of_arrays, typing.get_args(hint)))


def _or_numpy(hint):
    if _is_array(hint):
        both = hint.array_type is jax.Array
        return hint | hint.dtype[np.ndarray, hint.dim_str] if both else hint
    args = tuple(map(_or_numpy, typing.get_args(hint)))
    if args == typing.get_args(hint) or not _of_arrays(hint):
        return hint
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.Union[args]  # noqa: UP007 (of as many as there are)
    return typing.get_origin(hint)[args]
