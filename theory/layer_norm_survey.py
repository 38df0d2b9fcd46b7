"""Which networks with LayerNorm keep parts 1 and 2 of Proposition 3.1 on the smallest cube, T = 2.

With LayerNorm K(x, x) is the same for every x, so the argument that refutes flattened linear
attention on several tokens says nothing. At d = 4 some kernels do keep both parts; at d = 6 they
need not (`theory/README.md` has a pair by hand).
"""

from __future__ import annotations

import itertools

import numpy as np

from jaxsens import boolean

from .architecture import LAYER_NORM, MLP, READOUT, Architecture
from .recursion import ck_ntk
from .verdict import RESOLUTION


def layer_norm_grid(readouts: tuple[str, ...] = READOUT) -> list[Architecture]:
    """Two tokens, pre- or post-LayerNorm, every choice of the other options on a small grid.

    Depth 1 and 2, each MLP, with and without embedding, bias 0.3, positions 0.5 and residual; what
    acts on the embedding comes with it alone. 144 networks for each readout.
    """
    grid = itertools.product(
        (1, 2), MLP, (True, False), (0.0, 0.3), (0.0, 0.5), (False, True), LAYER_NORM[1:], readouts
    )
    return [
        Architecture(2, depth, "linear", mlp, embedding, bias, positions, residual, norm, readout)
        for depth, mlp, embedding, bias, positions, residual, norm, readout in grid
        if embedding or not (positions or residual or norm == "pre")
    ]


def keeps_parts_1_and_2(architecture: Architecture, d: int = 4) -> tuple[bool, bool]:
    """Whether CK and NTK are functions of <x, y>, which makes them Walsh-diagonal as well.

    Every pair of the cube is compared, to 1e-12 of the largest value.
    """
    x = np.asarray(boolean.cube(d), np.float64)
    products = (x @ x.T).astype(int)
    kept = []
    for k in ck_ntk(architecture, x, x):
        gaps = [np.ptp(k[products == c]) for c in np.unique(products)]
        kept.append(bool(max(gaps) <= RESOLUTION * np.abs(k).max()))
    return kept[0], kept[1]


def odd_and_unbiased(architecture: Architecture) -> bool:
    """Flattened, no positions, no MLP or an odd one, and no bias but the readout's."""
    readout_alone = not architecture.embedding and architecture.mlp == "none"
    return (
        architecture.readout == "flatten"
        and architecture.positions == 0
        and architecture.mlp in ("none", "erf")
        and (architecture.bias == 0 or readout_alone)
    )
