"""What the PyTorch statements answer, kept in ``tests/reference/`` for machines without PyTorch.

Weights and inputs are not kept: they are numbers made from a name and a shape, the same on every
machine. Gradients are kept as sketches. `make_references` writes the file.
"""

import functools
import json
import math
import re
import zlib
from pathlib import Path

import numpy as np
from flax import nnx

FILE = Path(__file__).parents[1] / "reference" / "torch.npz"
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def numbers(name, shape):
    """Independent U(-1, 1) numbers that depend on the name and the shape alone."""
    count = math.prod(shape)
    x = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    start = zlib.crc32(name.encode()) * 0xD1B54A32D192ED03 % 2**64
    x = x + np.full(count, start, np.uint64)  # arrays wrap around in silence, scalars do not
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x = x ^ (x >> np.uint64(31))
    uniform = (x >> np.uint64(11)).astype(np.float64) / 2**52 - 1
    return uniform.reshape(shape).astype(np.float32)


def weight(name, shape):
    """A generic weight for a PyTorch tensor: no scale is 1, no bias 0, no statistic trivial."""
    drawn = numbers(name, shape)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return 1 + 0.5 * drawn
    if len(shape) < 2:
        return 0.5 * drawn + np.float32(leaf == "weight")
    return drawn * np.float32(math.sqrt(3 / math.prod(shape[1:])))


def weights(manifest):
    """Every tensor of a manifest of names and shapes."""
    return {name: np.asarray(weight(name, tuple(shape))) for name, shape in manifest.items()}


def sketch(array):
    """At most 16 numbers that hardly agree for two arrays that do not."""
    array = np.asarray(array, np.float64)
    if array.size <= 16:
        return array.ravel()
    views = [numbers(f"sketch {i}", array.shape) for i in range(4)]
    return np.array([(array * view).sum() for view in views] + [np.sqrt((array**2).sum())])


def assert_sketch(got, expected, *, least=0.0, relative=1e-4, name=""):
    """Within ``relative`` of the sketch's largest number, which is near the array's norm, or of
    ``least`` where that is larger."""
    slack = relative * max(np.abs(expected).max(), least)
    np.testing.assert_allclose(sketch(got), expected, rtol=0, atol=slack, err_msg=name)


@functools.cache
def _file():
    with np.load(FILE, allow_pickle=False) as file:
        return dict(file)


def reference(key):
    """The array kept under ``key``."""
    return _file()[key]


def manifest(case):
    """Names and shapes of the PyTorch statement's tensors."""
    return json.loads(str(reference(f"{case}/manifest")))


def sketches(case):
    """Names and sketches of its gradients."""
    names = json.loads(str(reference(f"{case}/gradient names")))
    flat, lengths = reference(f"{case}/gradients"), reference(f"{case}/gradient lengths")
    return dict(zip(names, np.split(flat, np.cumsum(lengths)[:-1]), strict=True))


def named(case, what):
    """Arrays that are kept with their names."""
    names = json.loads(str(reference(f"{case}/{what} names")))
    return {name: reference(f"{case}/{what} {i}") for i, name in enumerate(names)}


def torch_path(path, renames=()):
    """The name in `state_dict` of the nnx variable at ``path``."""
    *parents, leaf = (str(part) for part in path)
    name = ".".join((*parents, LEAVES.get(leaf, leaf)))
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def to_nnx(path, array, shape):
    """A PyTorch array in the layout of ours: outputs and channels last.

    A convolution whose stride is its size is a matrix over flattened patches here.
    """
    array = np.asarray(array)
    if str(path[-1]).endswith("kernel"):
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return np.ascontiguousarray(array).reshape(shape)


def to_torch(path, array, shape):
    """An array of ours in PyTorch's layout, which has that shape."""
    array = np.asarray(array)
    if str(path[-1]).endswith("kernel"):
        if len(shape) == 4:
            outputs, inputs, height, width = shape
            return array.reshape(height, width, inputs, outputs).transpose(3, 2, 0, 1)
        return array.T
    return array.reshape(shape)


def load(model, arrays, renames=()):
    """Copy every array into the model; each must be used exactly once."""
    left = dict(arrays)
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        variable[...] = to_nnx(path, left.pop(torch_path(path, renames)), variable.shape)
    assert not left, f"not in the model: {sorted(left)}"
    return model


def assert_gradients(case, gradients, renames=(), *, least, relative=1e-4):
    """A state of gradients of ours holds the kept ones, each once.

    ``least``, as in `assert_sketch`, is relative to the largest number kept.
    """
    kept, shapes = sketches(case), manifest(case)
    largest = max(np.abs(part).max() for part in kept.values())
    for path, gradient in nnx.to_flat_state(gradients):
        name = torch_path(path, renames)
        found = to_torch(path, gradient[...], shapes[name])
        assert_sketch(found, kept.pop(name), least=least * largest, relative=relative, name=name)
    assert not kept
