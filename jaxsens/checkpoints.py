"""Checkpoints of a training state: written whole by orbax, checked, and read back bit for bit.

A step is a folder that gets its name when everything in it is on the disk, with a manifest of what
it holds. On several hosts (`jax.distributed`, one file system) every process calls `save`: orbax
lets each write the shards that it has, and process 0 alone names, hashes and clears away. orbax's
CheckpointManager would keep the steps too, but names a step before anything of ours could be in it,
does not notice a file that changed since, and cannot say what else belongs to the step.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np

Tree = TypeVar("Tree")
MANIFEST = "manifest.json"  # leaves, the SHA-256 of every file and of the manifest's own text
LEFTOVERS = (".partial", ".old")  # of a process that was killed


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another model; the message is one line."""


class DamagedError(CheckpointError):
    """A checkpoint that is not as it was written; an earlier one may serve."""


class Restored(NamedTuple, Generic[Tree]):
    """What `restore_newest` found."""

    step: int
    state: Tree
    about: dict[str, Any]
    damaged: tuple[str, ...]  # a line for each newer checkpoint that could not be used


def save(
    directory: Path | str,
    state: Tree,
    *,
    step: int,
    about: Mapping[str, Any] | None = None,
    keep: int = 2,
) -> None:
    """Write ``state`` as ``directory/<step>``; then remove all but the newest ``keep`` up to it.

    The checkpoint is written beside its final name and renamed when it is whole, so an interruption
    leaves the previous one in place. ``about``, JSON, is kept with it. Raises CheckpointError when
    it cannot be written, TypeError for a leaf that JAX would store with less precision.
    """
    directory = Path(directory).absolute()
    final, partial = directory / str(step), directory / f"{step}.partial"
    leaves, writer = _leaves(state), jax.process_index() == 0
    try:
        if writer:
            shutil.rmtree(partial, ignore_errors=True)
            directory.mkdir(parents=True, exist_ok=True)
        _together("begun")
        _write(partial / "state", leaves)
        if writer:
            manifest = {"step": step, "leaves": _kinds(state), "about": dict(about or {})}
            _write_manifest(partial, {**manifest, "files": _hashes(partial)})
            if final.exists():  # nothing can be renamed onto a directory that is in use
                shutil.rmtree(directory / f"{step}.old", ignore_errors=True)
                final.rename(directory / f"{step}.old")
            partial.rename(final)
            tidy(directory, newest=step, keep=keep)
        _together("named")
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"the checkpoint {final} cannot be written: {error.strerror or error}"
        ) from error


def steps(directory: Path | str) -> list[int]:
    """The steps that are there, ascending."""
    directory = Path(directory)
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if _is_step(p.name) and p.is_dir())


def latest(directory: Path | str) -> int | None:
    """The step of the newest checkpoint, None when there is none."""
    return max(steps(directory), default=None)


def tidy(directory: Path | str, *, newest: int | None = None, keep: int = 2) -> None:
    """Remove what killed processes left, and every step but the ``keep`` up to ``newest``."""
    directory = Path(directory)
    found = steps(directory)
    last = latest(directory) if newest is None else newest
    kept = [step for step in found if last is not None and step <= last][-keep:]
    for path in directory.iterdir() if directory.is_dir() else ():
        stem = next((path.name.removesuffix(s) for s in LEFTOVERS if path.name.endswith(s)), "")
        if (_is_step(path.name) and int(path.name) not in kept) or _is_step(stem):
            shutil.rmtree(path, ignore_errors=True)


def restore(directory: Path | str, like: Tree, *, step: int) -> Tree:
    """The state saved as ``directory/<step>``, in the structure of ``like``.

    Raises CheckpointError when it is missing, damaged, or has other shapes or types than ``like``.
    """
    return _restore(Path(directory).absolute() / str(step), like)[0]


def restore_newest(directory: Path | str, like: Tree) -> Restored[Tree] | None:
    """The newest checkpoint that is as it was written; None when there is none at all.

    Raises CheckpointError when none of them is whole, or one is not of ``like``'s shapes and types.
    """
    damaged: list[DamagedError] = []
    for step in reversed(steps(directory)):
        try:
            state, about = _restore(Path(directory).absolute() / str(step), like)
        except DamagedError as error:
            damaged.append(error)
            continue
        return Restored(step, state, about, tuple(map(str, damaged)))
    if damaged:
        raise damaged[0]
    return None


def _restore(path: Path, like: Tree) -> tuple[Tree, dict[str, Any]]:
    # Checked before orbax reads: its own failures come with screens of text from other threads.
    about = _check(path, _kinds(like))
    try:
        saved = _read(path / "state", _leaves(like))
    except (OSError, ValueError, KeyError) as error:
        raise DamagedError(f"the checkpoint {path} cannot be read: {_reason(error)}") from None
    leaves = [
        jax.random.wrap_key_data(saved[str(i)], impl=jax.random.key_impl(old))
        if _is_key(old)
        else saved[str(i)]
        for i, old in enumerate(jax.tree.leaves(like))
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), about


def _write(path: Path, leaves: dict[str, jax.Array]) -> None:
    """By orbax, whose threads would each tell of a failure; OSError tells of it once."""
    import orbax.checkpoint as ocp  # slow to import, and only needed here

    with _quietly():
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(path, leaves)
        except (OSError, ValueError, RuntimeError) as error:  # tensorstore's errors are ValueErrors
            raise OSError(_reason(error)) from error


def _read(path: Path, like: dict[str, jax.Array]) -> dict[str, jax.Array]:
    import orbax.checkpoint as ocp

    with _quietly(), ocp.StandardCheckpointer() as checkpointer:
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return checkpointer.restore(path, shapes)


def _reason(error: BaseException) -> str:
    """The system's own words, where they can be found in what orbax or tensorstore says."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the logs and tracebacks of orbax's threads, which repeat what is raised."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [logger.disabled for logger in loggers]
    hooks = sys.unraisablehook, threading.excepthook
    for logger in loggers:
        logger.disabled = True
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook, threading.excepthook = hooks
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _together(what: str) -> None:
    """Every process waits here for the others, where there are any."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"jaxsens.checkpoints {what}")


def _write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    with (path / MANIFEST).open("w") as file:
        json.dump({**manifest, "sha256": _digest(manifest)}, file)
        file.flush()
        os.fsync(file.fileno())


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _check(path: Path, kinds: list[Any]) -> dict[str, Any]:
    """What was said about the checkpoint when it was saved."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        whole = _digest({k: v for k, v in manifest.items() if k != "sha256"}) == manifest["sha256"]
        saved, files = list(manifest["leaves"]), dict(manifest["files"])
        about, step = dict(manifest["about"]), manifest["step"]
        found = _hashes(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise DamagedError(
            f"there is no whole checkpoint in {path}; start afresh with another directory"
        )
    damaged = sorted(name for name in {*files, *found} if files.get(name) != found.get(name))
    if damaged:
        raise DamagedError(
            f"the checkpoint {path} is damaged: {damaged[0]} is not as it was written; start "
            "afresh with another directory"
        )
    if str(step) != path.name:
        raise CheckpointError(
            f"the checkpoint {path} is that of step {step}: it was renamed; give it its name back, "
            "or remove it"
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
    return about


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


def _is_step(name: str) -> bool:
    """Whether this is how `save` writes a step: no sign, no leading zero, ASCII digits."""
    return name.isascii() and name.isdecimal() and str(int(name)) == name
