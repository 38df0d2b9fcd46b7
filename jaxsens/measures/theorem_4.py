"""Sensitivity against layer-norm blow-up, as Theorem 4 of paper B bounds the one by the other."""

from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float

from jaxsens.measures.bits import Read, sensitivity_at, signs
from jaxsens.measures.blowup import layer_norm_blowup


def theorem_4(
    model: Any, points: Float[Array, "N n"], *, read: Read = signs
) -> Float[np.ndarray, " N"]:
    """s(f, x) / (sqrt(n log n) Blowup(x)^2) at each string, with the natural logarithm.

    ::

        s(f, x) / (C sqrt(n log n)) <= Blowup(x)^2,   Blowup(x) = prod_l (1 + B_l(x))

    for all but a share H / n^2 of the strings, where C and H depend on the parameters' norms. So
    the largest value over x stays bounded as n grows, for networks of bounded norms. NaN for n = 1.
    """
    n = points.shape[1]
    if n == 1:
        return np.full(len(points), np.nan)
    blowup = layer_norm_blowup(model, points).bound
    return sensitivity_at(model, points, read=read) / (np.sqrt(n * np.log(n)) * blowup**2)
