"""Carry weights, statistics and gradients between a PyTorch statement and the nnx model."""

import numpy as np
import torch
from flax import nnx

LEAF_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def torch_path(path):
    """The name in `state_dict` of the nnx variable at `path`."""
    *parents, leaf = (str(part) for part in path)
    return ".".join((*parents, LEAF_NAMES.get(leaf, leaf)))


def to_nnx(tensor, shape):
    """A torch weight in the layout of ours: the last axis counts outputs, channels come last.

    A convolution whose stride is its size is a matrix over flattened patches here.
    """
    array = tensor.detach().numpy()
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    elif array.ndim == 2:
        array = array.T
    return np.ascontiguousarray(array).reshape(shape)


def load(model, reference):
    """Copy every parameter and running statistic of the torch `reference` into the nnx `model`.

    Each tensor must be used exactly once, so that a part present in one only cannot hide.
    """
    source = {k: v for k, v in reference.state_dict().items() if "num_batches" not in k}
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        variable[...] = to_nnx(source.pop(torch_path(path)), variable.shape)
    assert not source, f"not in the model: {sorted(source)}"


def randomise(reference, seed):
    """Give every tensor a generic value, so that no scale is 1, no bias 0, no statistic trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in reference.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.is_floating_point():
                spread = 0.3 if tensor.ndim < 2 else 0.05
                tensor.add_(spread * torch.randn(tensor.shape, generator=generator))
