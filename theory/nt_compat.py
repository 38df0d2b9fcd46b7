"""neural-tangents 0.6.5 on current JAX.

Its last release (2024) imports seven names that JAX has since moved or removed. They are put back
while it is being imported and taken away again, so that no other code ever sees them:

- `jax.core.{Jaxpr, JaxprEqn, Literal, Primitive, Var}` now live in the public `jax.extend.core`;
- `jax.interpreters.ad.zeros_like_p` serves only as a dictionary key: any fresh primitive will do;
- the module `jax.util` is needed for `safe_map` and `safe_zip`, which are `map` and `zip` that
  insist on equal lengths.

`neural_tangents.experimental` is an empty module meanwhile: it is what pulls in TensorFlow.

What works then: the analytic kernels, `predict` with concrete kernels, `linearize`,
`monte_carlo_kernel_fn`, and the empirical NTK with the implementations JACOBIAN_CONTRACTION, which
is its default, and NTK_VECTOR_PRODUCTS. What does not: STRUCTURED_DERIVATIVES; AUTO, which measures
all of them in a way that JAX has changed; and `predict.max_learning_rate` on CPU, which calls
`scipy.linalg.eigvalsh` with an argument that SciPy has removed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.interpreters.ad

VERSION = "0.6.5"  # of neural-tangents: the names below are the ones this release wants
MINIMUM_JAX = (0, 10)

_lock = threading.RLock()
_MISSING = object()


def neural_tangents() -> ModuleType:
    """The module `neural_tangents`, imported on first use. TensorFlow is not imported.

    Raises ImportError with one line when neural-tangents is absent or is not 0.6.5, when JAX is
    older than 0.10, or when a JAX yet to come has moved what the import needs.
    """
    with _lock:
        loaded = sys.modules.get("neural_tangents")
        if loaded is not None:
            _require(str(getattr(loaded, "__version__", "unknown")))
            return loaded
        try:
            _require(importlib.metadata.version("neural-tangents"))
        except importlib.metadata.PackageNotFoundError:
            raise ImportError(
                f"these kernels need neural-tangents {VERSION}: "
                f"pip install neural-tangents=={VERSION}"
            ) from None
        try:
            with _restored_names():
                return importlib.import_module("neural_tangents")
        except (ImportError, AttributeError) as error:
            raise ImportError(
                f"neural-tangents {VERSION} does not import on jax {jax.__version__}: {error} "
                "(known to work: jax 0.10 to 0.12); theory.recursion computes the same kernels "
                "without it"
            ) from error


def _require(found: str) -> None:
    if found != VERSION:
        raise ImportError(
            f"expected neural-tangents {VERSION}, found {found}: "
            f"pip install neural-tangents=={VERSION}"
        )
    if jax.__version_info__[:2] < MINIMUM_JAX:
        minimum = ".".join(map(str, MINIMUM_JAX))
        raise ImportError(f"expected jax >= {minimum}, found {jax.__version__}: upgrade jax")


def _safe_zip(*sequences: Any) -> list[tuple[Any, ...]]:
    return list(zip(*map(list, sequences), strict=True))


def _safe_map(function: Any, *sequences: Any) -> list[Any]:
    return [function(*items) for items in _safe_zip(*sequences)]


@contextmanager
def _restored_names() -> Iterator[None]:
    """Names restored for the length of the block; everything is as before when it ends."""
    moved = jax.extend.core
    names: list[tuple[Any, str, Any]] = [
        (jax.core, name, getattr(moved, name))
        for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    ]
    names.append((jax.interpreters.ad, "zeros_like_p", moved.Primitive("zeros_like")))
    util = ModuleType("jax.util")
    vars(util).update(safe_map=_safe_map, safe_zip=_safe_zip)
    modules = {
        "jax.util": util,
        "neural_tangents.experimental": ModuleType("neural_tangents.experimental"),
    }
    # vars() and not hasattr(): a module's __getattr__ may answer for a name it will not hand out.
    namespaces = [(vars(owner), name, value) for owner, name, value in names]
    entries = [*namespaces, *((sys.modules, name, module) for name, module in modules.items())]
    before = [(where, name, where.get(name, _MISSING)) for where, name, _ in entries]
    try:
        for where, name, value in entries:
            where.setdefault(name, value)
        yield
    finally:
        for where, name, value in before:
            if value is _MISSING:
                where.pop(name, None)
            else:
                where[name] = value
        package = sys.modules.get("neural_tangents")
        if package is not None and before[-1][2] is _MISSING:
            vars(package).pop("experimental", None)
