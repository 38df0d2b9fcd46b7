"""The network of modular addition that is held to PyTorch, step for step."""

import jax
import numpy as np
from flax import nnx
from witnesses.references import weight

from jaxsens.data.algorithmic import modular_addition
from jaxsens.models.one_layer import OneLayerTransformer

MODULUS, DIM, HEADS, HIDDEN = WIDTHS = (11, 16, 4, 32)
STARTS = {"published": False, "nanda": True}  # and whether there is a residual stream
KINDS = ("OneLayerTransformer", "LastPosition")
STEPS = 10


def data():
    return modular_addition(MODULUS, train_fraction=0.5, key=jax.random.key(0))


def model(start):
    return OneLayerTransformer(
        modulus=MODULUS, dim=DIM, heads=HEADS, hidden=HIDDEN, residual=STARTS[start], start=start,
        rngs=nnx.Rngs(0),
    )  # fmt: skip


def arrays(start):
    """Generic weights by name."""
    shapes = nnx.to_pure_dict(nnx.state(model(start), nnx.Param))
    return {name: weight(f"one layer {name}", np.shape(shape)) for name, shape in shapes.items()}
