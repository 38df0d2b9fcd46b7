"""Checkpoints of a training state: written whole by orbax, read back bit for bit."""

from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

Tree = TypeVar("Tree")


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another model; the message is one line."""


def save(directory: Path, state: Tree, *, step: int) -> None:
    """Write ``state`` as ``directory/<step>`` and then remove the earlier ones.

    orbax writes beside the final name and renames, so an interruption leaves the previous
    checkpoint in place.
    """
    import orbax.checkpoint as ocp  # slow to import, and only needed here

    directory = directory.absolute()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory / str(step), _leaves(state), force=True)
    for old in _steps(directory):
        if old != step:
            _remove(directory / str(old))


def latest(directory: Path) -> int | None:
    """The step of the newest complete checkpoint, None when there is none."""
    return max(_steps(directory), default=None)


def restore(directory: Path, like: Tree, *, step: int) -> Tree:
    """The state saved as ``directory/<step>``, in the structure of ``like``.

    Raises CheckpointError when it is missing, damaged, or does not have the shapes of ``like``.
    """
    import orbax.checkpoint as ocp

    path = directory.absolute() / str(step)
    expected = _leaves(like)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, expected)
            saved = checkpointer.restore(path, shapes)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"the checkpoint {path} cannot be used here ({reason[0][:200]}); it is damaged or of "
            "another configuration: resume with the options of the run, or start afresh"
        ) from None
    leaves = [
        jax.random.wrap_key_data(saved[str(i)], impl=jax.random.key_impl(old))
        if _is_key(old)
        else saved[str(i)]
        for i, old in enumerate(jax.tree.leaves(like))
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _leaves(tree: Tree) -> dict[str, jax.Array]:
    """The leaves by number, keys as their bits: no structure of ours enters the file format."""
    return {
        str(i): jax.random.key_data(leaf) if _is_key(leaf) else jax.numpy.asarray(leaf)
        for i, leaf in enumerate(jax.tree.leaves(tree))
    }


def _is_key(leaf: jax.Array | np.ndarray) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _steps(directory: Path) -> list[int]:
    if not directory.is_dir():
        return []
    return [int(path.name) for path in directory.iterdir() if path.name.isdecimal()]


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)
