"""Calling the user's model: one line of what went wrong, and of what to do."""

import functools
import sys
import types
from typing import Any

import jax
from jax import Array

FIRST_LINE = 90


def check_model(model: Any, name: str = "model") -> None:
    """Raises TypeError for what cannot be a model, before anything is compiled."""
    inner = model
    while isinstance(inner, functools.partial) and not (inner.args or inner.keywords):
        inner = inner.func
    how = "pass jax.tree_util.Partial(module.apply, variables)"
    if isinstance(inner, type):
        raise TypeError(f"{name} is the class {inner.__name__}; pass an instance of it")
    if linen := sys.modules.get("flax.linen"):
        owner = inner.__self__ if isinstance(inner, types.MethodType) else inner
        is_apply = owner is not inner and inner.__name__ in ("apply", "init", "init_with_output")
        if isinstance(owner, linen.Module) and (is_apply or owner.scope is None):
            raise TypeError(
                f"{name} is a linen module ({type(owner).__name__}) without its variables; {how}"
            )
    if not callable(model):
        raise TypeError(
            f"{name} must be callable, got {type(model).__name__}; for a linen module {how}"
        )


def outputs_of(model: Any, inputs: Any) -> Array:
    """The model's outputs for a batch, (rows, ...). Raises TypeError or ValueError.

    An error inside the model becomes one line that says with what it was called; its own error
    stays attached as the cause.
    """
    try:
        outputs = model(inputs)
    except Exception as error:
        raise _explained(model, inputs, error) from error
    rows = jax.tree.leaves(inputs)[0].shape[0]
    if not isinstance(outputs, jax.Array):
        raise TypeError(
            f"the model returned {_kind(outputs)}; expected one array of shape (N,) or (N, C): "
            f"wrap the model so that it returns its logits alone{_where(outputs, rows)}"
        )
    if outputs.shape[:1] != (rows,):
        raise ValueError(
            f"the model's output has shape {outputs.shape} for a batch of {rows}; "
            "expected (N,) or (N, C) with the batch first (a model of single examples needs "
            "jax.vmap)"
        )
    return outputs


def _explained(model: Any, inputs: Any, error: Exception) -> Exception:
    called = ", ".join(f"{leaf.dtype} {leaf.shape}" for leaf in jax.tree.leaves(inputs)[:4])
    if _takes_single_examples(model, inputs):
        return ValueError(
            f"the model takes single examples and fails on a batch ({called}): wrap it in jax.vmap"
        )
    reason = (str(error).strip().splitlines() or [""])[0][:FIRST_LINE]
    not_jax = (
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerBoolConversionError,
        jax.errors.TracerIntegerConversionError,
        jax.errors.ConcretizationTypeError,
    )
    if isinstance(error, not_jax):
        return TypeError(
            "the model cannot be compiled, because it needs the values of its inputs in Python or "
            "NumPy: write it in jax.numpy, or call what is not JAX through jax.pure_callback"
        )
    return ValueError(
        f"the model fails when called with a batch of {called}: {type(error).__name__}: {reason} "
        "(batch_size= sets the first axis)"
    )


def _takes_single_examples(model: Any, inputs: Any) -> bool:
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs)
    try:
        outputs = jax.eval_shape(lambda x: model(x), one)
    except Exception:  # anything: a user's code, or what checks its shapes, raises what it likes
        return False
    return isinstance(outputs, jax.ShapeDtypeStruct) and outputs.ndim <= 1


def _kind(outputs: Any) -> str:
    return "None" if outputs is None else type(outputs).__name__


def _where(outputs: Any, rows: int) -> str:
    """Where in the outputs the logits seem to be."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(outputs)[0]:
        if path and isinstance(leaf, jax.Array) and leaf.ndim in (1, 2) and leaf.shape[0] == rows:
            place = jax.tree_util.keystr(path)
            return f", such as lambda x: model(x){place} of shape {leaf.shape}"[:80]
    return ""
