"""Frozen dataclasses as pytrees whose validation runs at construction and never inside a trace."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

T = TypeVar("T")


def pytree(
    data: tuple[str, ...] = (), meta: tuple[str, ...] = (), drop: tuple[str, ...] = ()
) -> Callable[[type[T]], type[T]]:
    """Class decorator: ``data`` fields are traced, ``meta`` static, ``drop`` left out.

    Unflattening does not call ``__init__``, so ``__post_init__`` may look at values. A dropped
    field is None in the rebuilt object.
    """

    def register(cls: type[T]) -> type[T]:
        def flatten(self: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
            return tuple(getattr(self, f) for f in data), tuple(getattr(self, f) for f in meta)

        def unflatten(static: tuple[Any, ...], children: tuple[Any, ...]) -> T:
            self = object.__new__(cls)
            fields = {
                **dict(zip(data, children, strict=True)),
                **dict(zip(meta, static, strict=True)),
            }
            for name, value in {**fields, **dict.fromkeys(drop)}.items():
                object.__setattr__(self, name, value)
            return self

        jax.tree_util.register_pytree_node(cls, flatten, unflatten)
        return cls

    return register
