"""Attention that is held to PyTorch's own: padding, causal order, keys and values of a memory."""

import numpy as np
from witnesses.references import numbers

N, T, DIM, HEADS = 3, 5, 6, 2
# Where no key is seen PyTorch answers NaN: every query has one here.
PADDING = np.arange(T)[None] < np.array([5, 3, 1])[:, None]
# case: padding, causal, a memory
CASES = {
    "plain": (False, False, False),
    "padding": (True, False, False),
    "causal": (False, True, False),
    "padding, causal": (True, True, False),
    "padding, memory": (True, False, True),
}


def vectors(name, tokens=T):
    return numbers(name, (N, tokens, DIM)) * np.float32(3**0.5)
