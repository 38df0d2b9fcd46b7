"""How many rows a batch has when nobody says: by the backend and the size of the activations."""

import math
from typing import Any

import jax
from jax.extend.core import Jaxpr, jaxprs_in_params

PROBE = 13  # rows of a trace; an axis that is a multiple of it counts rows
# On a CPU: past the point where larger batches help, and what its caches nearly hold.
CPU_ROWS, CPU_BYTES = 512, 2**25
# Elsewhere: a 32nd of the device's memory (of 16 GiB if it tells none) for the largest array.
DEVICE_ROWS, DEVICE_SHARE, DEVICE_BYTES = 2**14, 32, 2**34
FEWEST = 8


def largest_per_row(jaxpr: Jaxpr, rows: int) -> float:
    """Bytes for each row of the largest array with a rows axis that the program computes."""
    largest = 0.0
    for eqn in jaxpr.eqns:
        for out in eqn.outvars:
            shape, dtype = getattr(out.aval, "shape", ()), getattr(out.aval, "dtype", None)
            if dtype is not None and any(axis and axis % rows == 0 for axis in shape):
                # Some dtypes (keys) have a size of their own.
                largest = max(largest, math.prod(shape) * getattr(dtype, "itemsize", 8) / rows)
        for inner in jaxprs_in_params(eqn.params):
            largest = max(largest, largest_per_row(inner, rows))
    return largest


def default_batch_size(program: Any, args: tuple[Any, ...]) -> int:
    """The power of two that keeps the largest array within the backend's bound.

    ``args`` are those of a call with one batch of ``PROBE`` rows; it is traced, not compiled, and
    the trace is kept by JAX, so that a second measurement of one structure traces nothing.
    """
    per_row = largest_per_row(program.trace(*args).jaxpr.jaxpr, PROBE)
    if jax.default_backend() == "cpu":
        most, room = CPU_ROWS, CPU_BYTES
    else:
        told = jax.local_devices()[0].memory_stats() or {}
        most, room = DEVICE_ROWS, told.get("bytes_limit", DEVICE_BYTES) // DEVICE_SHARE
    rows = min(most, max(FEWEST, room / max(per_row, 1.0)))
    return 2 ** int(math.log2(rows))
