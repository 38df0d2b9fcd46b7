"""Rows divided over devices: bit for bit the value of one device; foreign shardings and meshes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from witnesses.devices import flags

from jaxsens import Flip, Patches, placement, sensitivity

ROOT = Path(__file__).parents[2]
# Whole numbers: every sum is exact, in whatever order it is taken.
X = np.random.default_rng(0).choice([-1.0, 1.0], size=(50, 2, 4, 1)).astype(np.float32)
W = np.random.default_rng(1).integers(-3, 4, size=(8, 3)).astype(np.float32)
MODEL = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, W)


def measure(model=MODEL, inputs=X, **options):
    options = {"tokens": Patches(2), "noise": Flip(), "key": jax.random.key(0), **options}
    return sensitivity(model, inputs, **options).rates


def meshes():
    devices = np.array(jax.devices()[:2])
    yield "automatic", Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    yield "explicit", jax.make_mesh((2, 1), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    yield "default", jax.make_mesh((2,), ("x",))


@pytest.mark.parametrize("kind", ["automatic", "explicit", "default"])
def test_two_devices(kind):
    mesh, want = dict(meshes())[kind], measure()
    np.testing.assert_array_equal(measure(mesh=mesh), want)
    np.testing.assert_array_equal(measure(mesh=mesh, batch_size=10), want)
    np.testing.assert_array_equal(measure(lambda x: x.reshape(len(x), -1) @ W, mesh=mesh), want)
    axis = mesh.axis_names[0]
    rows, columns = (NamedSharding(mesh, PartitionSpec(*s)) for s in ((axis,), (axis, None)))
    divided = jax.device_put(X, rows)
    np.testing.assert_array_equal(measure(inputs=divided), want)
    sharded = jax.tree_util.Partial(MODEL.func, jax.device_put(W, columns))
    np.testing.assert_array_equal(measure(sharded), want)
    np.testing.assert_array_equal(measure(sharded, divided), want)
    with jax.set_mesh(mesh):
        np.testing.assert_array_equal(measure(mesh=mesh), want)
        np.testing.assert_array_equal(measure(), want)


def test_a_batch_is_really_divided():
    seen = []

    def model(x):
        seen.append(x.shape[0])
        return MODEL(x)

    measure(model, mesh=dict(meshes())["default"], batch_size=20)
    assert set(seen) == {10}


def test_errors_are_one_line():
    mesh = dict(meshes())["default"]
    with pytest.raises(ValueError, match=r"batch_size=7 cannot be divided over 2 devices"):
        measure(mesh=mesh, batch_size=7)
    with pytest.raises(TypeError, match=r"mesh must be a jax.sharding.Mesh, got int"):
        measure(mesh=2)
    with pytest.raises(ValueError, match=r"other rows|place in the batch"):  # on its own device
        measure(lambda x: MODEL(x) * x.mean() + x.mean(), mesh=mesh)


def test_the_devices_that_arrays_lie_on():
    assert placement.rows_mesh(None, X, MODEL) is None
    one = jax.device_put(X, jax.devices()[1])
    assert placement.rows_mesh(None, one) is None
    both = jax.device_put(X, NamedSharding(dict(meshes())["default"], PartitionSpec("x")))
    assert placement.rows_mesh(None, {"a": one, "b": both}).size == 2


EIGHT = """
import sys; sys.path[:0] = [{root!r}, {root!r} + "/tests", {tests!r}]
import jax, numpy as np
from test_placement import measure
assert len(jax.devices()) == 8
mesh = jax.make_mesh((4, 2), ("a", "b"))
assert (measure(mesh=mesh) == measure()).all()
assert (measure(mesh=mesh, batch_size=16, tokens_per_example=1)
        == measure(batch_size=16, tokens_per_example=1))[:, :].sum() > 0
print("same")
"""

PROCESS = """
import sys; sys.path[:0] = [{root!r}, {root!r} + "/tests", {tests!r}]
import jax
jax.distributed.initialize("localhost:{port}", 2, int(sys.argv[1]))
from test_placement import measure
import numpy as np
assert (jax.device_count(), jax.local_device_count()) == (4, 2)
mesh = jax.make_mesh((4,), ("all",))
np.save(sys.argv[2], measure(mesh=mesh))
"""


def environment(devices):
    return {**os.environ, "XLA_FLAGS": flags(devices), "JAX_PLATFORMS": "cpu"}


def test_eight_devices():
    code = EIGHT.format(root=str(ROOT), tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(8), capture_output=True, text=True,
        timeout=200,
    )  # fmt: skip
    assert done.stdout.strip() == "same", done.stderr[-2000:]


@pytest.mark.slow
def test_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = PROCESS.format(root=str(ROOT), tests=str(Path(__file__).parent), port=port)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(number), str(tmp_path / f"{number}.npy")],
            env=environment(2), stderr=subprocess.PIPE, text=True,
        )
        for number in (0, 1)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said[0][-2000:]
    for number in (0, 1):
        np.testing.assert_array_equal(np.load(tmp_path / f"{number}.npy"), measure())
