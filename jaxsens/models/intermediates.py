"""What goes into the layers inside a model, beside its answer."""

import types
from collections.abc import Callable
from typing import Any

from flax import nnx
from jax import Array


def with_intermediates(
    call: Callable[..., Any], *args: Any, of: type[nnx.Module] = nnx.LayerNorm, **keywords: Any
) -> tuple[Any, dict[str, Array]]:
    """``call(*args, **keywords)``, and the input of every ``of`` layer by its path in the model.

    ::

        logits, inputs = with_intermediates(model, images)
        logits, inputs = with_intermediates(model.from_embeddings, vectors, mask)
        inputs["blocks.0.attention_norm"]                           # (N, T, dim)

    ``call`` is a Flax module or a method of one. It is run on a copy whose layers write down what
    they are given, so the model itself never pays for it; under ``jit``, ``vmap`` and ``grad`` the
    whole call is one function. A layer that is used again gets ``path#2``, and so on. Layers inside
    a loop of JAX (``scan``, ``map``) or under ``nnx.jit`` cannot be looked into. Raises TypeError
    for other callables, ValueError where there is no such layer.
    """
    bound = isinstance(call, types.MethodType)
    owner = call.__self__ if isinstance(call, types.MethodType) else call
    if not isinstance(owner, nnx.Module):
        raise TypeError(
            f"call is {type(call).__name__}: expected a flax.nnx module or a method of one"
        )
    copy: Any = nnx.merge(*nnx.split(owner))
    found: dict[str, Array] = {}
    layers = [(path, layer) for path, layer in nnx.iter_modules(copy) if isinstance(layer, of)]
    if not layers:
        raise ValueError(f"the model has no {of.__name__}; name another layer with of=")
    for path, layer in layers:
        _listen(layer, ".".join(map(str, path)), found)
    run = getattr(copy, call.__name__) if bound else copy
    return run(*args, **keywords), found


def _listen(layer: nnx.Module, path: str, found: dict[str, Array]) -> None:
    """Let ``layer`` write its input into ``found`` whenever it is called."""
    kind = type(layer)

    def listening(self: Any, x: Array, *args: Any, **keywords: Any) -> Any:
        count = sum(name.partition("#")[0] == path for name in found) + 1
        found[path if count == 1 else f"{path}#{count}"] = x
        return kind.__call__(self, x, *args, **keywords)

    # Python looks __call__ up in the class, so the copy gets a class of its own.
    object.__setattr__(layer, "__class__", type(kind.__name__, (kind,), {"__call__": listening}))
