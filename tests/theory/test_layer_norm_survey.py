"""LayerNorm on two tokens at d = 4: how many kernels are functions of <x, y>, and which."""

import numpy as np

from jaxsens import boolean
from theory.layer_norm_survey import keeps_parts_1_and_2, layer_norm_grid, odd_and_unbiased
from theory.recursion import ck_ntk


def test_which_kernels_keep_parts_1_and_2():
    grid = layer_norm_grid()
    assert (len(grid), len(set(grid))) == (432, 432)
    kept = {a: keeps_parts_1_and_2(a) for a in grid}
    flattened = [a for a in grid if a.readout == "flatten"]
    assert (len(flattened), sum(kept[a][0] for a in flattened)) == (144, 22)
    assert sum(kept[a][1] for a in flattened) == 14
    assert [a for a in grid if kept[a][0]] == [a for a in grid if odd_and_unbiased(a)]
    assert [a for a in grid if kept[a][1]] == [
        a for a in grid if odd_and_unbiased(a) and not a.residual
    ]
    # Part 2 from its own definition: the transform of such a kernel is diagonal.
    x = np.asarray(boolean.cube(4), np.float64)
    walsh = np.stack([x[:, members].prod(axis=1) for members in subsets(4)])
    for a in [a for a in flattened if kept[a][0]][::4]:
        transformed = walsh @ ck_ntk(a, x, x)[0] @ walsh.T
        off = transformed - np.diag(np.diag(transformed))
        assert np.abs(off).max() < 1e-12 * np.abs(transformed).max()


def subsets(d):
    return [[i for i in range(d) if u >> i & 1] for u in range(2**d)]


def test_six_bits_break_them():
    kept = [a for a in layer_norm_grid(("flatten",)) if odd_and_unbiased(a)]
    assert not any(keeps_parts_1_and_2(a, 6)[0] for a in kept)
