"""Checkpoints of a training state: written whole by orbax, checked, and read back bit for bit."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

Tree = TypeVar("Tree")
MANIFEST = "manifest.json"  # what the checkpoint holds: leaves, and the SHA-256 of every file


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another model; the message is one line."""


def save(directory: Path, state: Tree, *, step: int) -> None:
    """Write ``state`` as ``directory/<step>`` and then remove the earlier ones.

    The checkpoint is written beside its final name and renamed when it is whole, so an interruption
    leaves the previous one in place. Raises TypeError for a leaf that JAX would store with less
    precision.
    """
    import orbax.checkpoint as ocp  # slow to import, and only needed here

    directory = directory.absolute()
    final, partial = directory / str(step), directory / f"{step}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    leaves = _leaves(state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(partial / "state", leaves)
    manifest = {"leaves": _kinds(state), "files": _hashes(partial)}
    with (partial / MANIFEST).open("w") as file:
        json.dump(manifest, file)
        file.flush()
        os.fsync(file.fileno())
    if final.exists():  # nothing can be renamed onto a directory that is in use
        shutil.rmtree(directory / f"{step}.old", ignore_errors=True)
        final.rename(directory / f"{step}.old")
    partial.rename(final)
    for path in directory.iterdir():
        if path != final and path.name.split(".")[0].isdecimal():
            shutil.rmtree(path, ignore_errors=True)


def latest(directory: Path) -> int | None:
    """The step of the newest complete checkpoint, None when there is none."""
    if not directory.is_dir():
        return None
    names = [path.name for path in directory.iterdir()]
    return max((int(name) for name in names if name.isdecimal()), default=None)


def restore(directory: Path, like: Tree, *, step: int) -> Tree:
    """The state saved as ``directory/<step>``, in the structure of ``like``.

    Raises CheckpointError when it is missing, damaged, or has other shapes or types than ``like``.
    """
    import orbax.checkpoint as ocp

    path = directory.absolute() / str(step)
    # Checked before orbax reads: its own failures come with screens of text from other threads.
    _check(path, _kinds(like))
    expected = _leaves(like)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, expected)
            saved = checkpointer.restore(path / "state", shapes)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"the checkpoint {path} cannot be read: {reason[0][:200]}") from None
    leaves = [
        jax.random.wrap_key_data(saved[str(i)], impl=jax.random.key_impl(old))
        if _is_key(old)
        else saved[str(i)]
        for i, old in enumerate(jax.tree.leaves(like))
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _check(path: Path, kinds: list[Any]) -> None:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        saved, files = list(manifest["leaves"]), dict(manifest["files"])
        found = _hashes(path)
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"there is no whole checkpoint in {path}; start afresh with another directory"
        ) from None
    damaged = sorted(name for name in {*files, *found} if files.get(name) != found.get(name))
    if damaged:
        raise CheckpointError(
            f"the checkpoint {path} is damaged: {damaged[0]} is not as it was written; start "
            "afresh with another directory"
        )
    for number, (old, new) in enumerate(zip(saved, kinds, strict=False)):
        if old != new:
            raise CheckpointError(
                f"the checkpoint {path} is of another model: array {number} is {old} there and "
                f"{new} here; resume with the options of the run"
            )
    if len(saved) != len(kinds):
        raise CheckpointError(
            f"the checkpoint {path} is of another model: it has {len(saved)} arrays and this one "
            f"{len(kinds)}; resume with the options of the run"
        )


def _leaves(tree: Tree) -> dict[str, jax.Array]:
    """The leaves by number, keys as their bits: no structure of ours enters the file format."""
    leaves = {}
    for i, leaf in enumerate(jax.tree.leaves(tree)):
        array = jax.random.key_data(leaf) if _is_key(leaf) else jax.numpy.asarray(leaf)
        if not _is_key(leaf) and array.dtype != leaf.dtype:
            raise TypeError(f"array {i} is {leaf.dtype}, which JAX keeps as {array.dtype} only")
        leaves[str(i)] = array
    return leaves


def _kinds(tree: Tree) -> list[str]:
    """Type and shape of each leaf, such as ``float32[2, 3]``."""
    return [f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(tree)]


def _hashes(path: Path) -> dict[str, str]:
    """SHA-256 of every file under ``path`` but the manifest itself."""
    files = [file for file in path.rglob("*") if file.is_file() and file != path / MANIFEST]
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


def _is_key(leaf: jax.Array | np.ndarray) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
