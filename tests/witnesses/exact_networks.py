"""MAJORITY and FIRST as transformers of one block with weights set by hand.

Tokens are (1, -1) for bit 0 and (-1, 1) for bit 1, beside two zeros for the position. Attention
adds a multiple of what it reads of the tokens there, the MLP is 0, and the head reads its sign.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsens.models.length import LengthTransformer

FACTOR = 3.0  # from what attention reads to what it adds


def majority(n):
    """Even attention: the mean m of the points; 1/2 less a bit where m = 0."""
    return _network(n, query=0.0)


def first(n):
    """All attention on the first token, which has a position of its own."""
    return _network(n, query=200.0)


def _network(n, query):
    model = LengthTransformer(bits=n, dim=4, heads=1, depth=1, rngs=nnx.Rngs(0))
    (block,) = model.blocks
    model.tokens[...] = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    model.positions[...] = jnp.zeros((n, 2)).at[0, 0].set(1.0)
    qkv, out = np.zeros((4, 12)), np.zeros((4, 4))
    qkv[2, 4] = 1.0  # the key is the first number of the position
    qkv[0, 8] = qkv[1, 9] = 1.0  # the value is the token
    out[0, 2] = out[1, 3] = FACTOR
    block.attention.qkv.kernel[...], block.attention.out.kernel[...] = map(jnp.asarray, (qkv, out))
    block.attention.qkv.bias[...] = jnp.zeros(12).at[0].set(query)  # every query is the same
    for layer in (block.up, block.down):
        layer.kernel[...], layer.bias[...] = jnp.zeros((4, 4)), jnp.zeros(4)
    model.head.kernel[...] = jnp.array([[0.0], [0.0], [-1.0], [1.0]])
    model.head.bias[...] = jnp.array([0.499])
    return model


def deviation(m):
    """The squared deviation, with ddof 0, of (±1, ∓1, c m, -c m), what the first norm is given."""
    return (1 + (FACTOR * np.asarray(m)) ** 2) / 2
