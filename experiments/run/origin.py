"""What a run was made by and of: command, versions, device, commit; fingerprints of code and data.

A fingerprint is a BLAKE2b hash of 16 bytes in hexadecimal digits.
"""

import dataclasses
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
PACKAGES = ("jaxsens", "jax", "jaxlib", "flax", "optax", "numpy")
WHOLE = 2**28  # bytes of an array up to which every one of them is hashed
PIECE, PIECES = 2**16, 4096  # bytes of a piece of a larger one, and how many


def provenance() -> dict[str, Any]:
    """Command, versions, device and commit."""
    import jax  # which those that only read records do without

    device = jax.devices()[0]
    return {
        "command": _command(),
        "versions": versions(),
        "device": f"{device.device_kind} x {jax.device_count()}",
        "cpu_cores": os.cpu_count(),
        "commit": commit(),
    }


def made_of(data: Any = None) -> dict[str, Any]:
    """What a run that is taken up again must find as it was."""
    import jax

    return {
        "data": None if data is None else of_data(data),
        "code": of_code(),
        "commit": commit(),
        "platform": jax.default_backend(),
        "versions": versions(),
    }


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What changed of code, versions and platform, in a few words; None for nothing.

    The commit is only said: code that is the same under another commit is the same.
    """
    changed = []
    if before.get("code") != now["code"]:
        commits = [value.get("commit") or "no commit" for value in (before, now)]
        changed.append(f"the code of jaxsens/ and experiments/ ({commits[0]}, now {commits[1]})")
    if before.get("platform") != now["platform"]:
        changed.append(f"the platform ({before.get('platform')}, now {now['platform']})")
    old, new = before.get("versions") or {}, now["versions"]
    changed += [
        f"{name} ({old.get(name)}, now {new.get(name)})"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    return ", ".join(changed) or None


def of_data(data: Any) -> str:
    """Fingerprint of arrays, numbers and words in any structure: types, shapes and bytes.

    Of an array above 256 MiB, 4096 pieces of 64 KiB at equal distances, the first and the last
    among them. Raises TypeError for anything of which it does not know what makes it the same.
    """
    found = _hash()
    _feed(found, data)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        array = np.ascontiguousarray(value)
        found.update(f"array {array.dtype.name} {array.dtype.str} {array.shape} ".encode())
        content = array.reshape(-1).view(np.uint8)
        if content.size <= WHOLE:
            found.update(content.data)
        else:
            for start in np.linspace(0, content.size - PIECE, PIECES).astype(int):
                found.update(content[start : start + PIECE].data)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _feed(
            found, {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        )
    elif isinstance(value, Mapping):
        _feed(found, [*map(repr, value), "of", *value.values()])
    elif isinstance(value, tuple | list):
        found.update(f"list {len(value)} ".encode())
        for item in value:
            _feed(found, item)
    elif value is None or isinstance(value, bool | int | float | str | Path):
        found.update(f"{type(value).__name__} {str(value)!r} ".encode())
    else:
        raise TypeError(f"what makes a {type(value).__name__} the same data is not known")


@functools.cache
def of_code() -> str:
    """Fingerprint of the code that can change a number: every module of jaxsens/, experiments/."""
    found = _hash()
    for package in ("jaxsens", "experiments"):
        for path in sorted((ROOT / package).rglob("*.py")):
            found.update(f"{path.relative_to(ROOT)}\n".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def of_bytes(content: bytes) -> str:
    """Fingerprint of some bytes."""
    return _hash(content).hexdigest()


def _hash(content: bytes = b"") -> Any:
    return hashlib.blake2b(content, digest_size=16)


def versions() -> dict[str, str | None]:
    """Of Python, and of the packages that numbers depend on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout without installing it
        return None


def _command() -> str:
    """What was typed: ``python -m`` puts a path in ``sys.argv`` but keeps the name in the spec."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", spec.name.removesuffix(".__main__")] if spec else sys.argv[:1]
    return shlex.join(["python", *program, *sys.argv[1:]])


@functools.cache
def commit() -> str | None:
    """The commit of the code that ran, with "+" when it was changed since; None outside git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
