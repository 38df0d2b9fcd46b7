"""Our recursion against neural-tangents, against kernels worked out by hand, and invariants."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import kernels, recursion
from theory.architecture import Architecture

CK_TOLERANCE = 1e-12
# neural-tangents evaluates arccos(1 - e) ~ sqrt(2 e) at e ~ 1e-16 where tokens coincide.
COINCIDENT_TOLERANCE = 1e-8


def cube(d):
    return np.array(list(itertools.product([1.0, -1.0], repeat=d)))


BLOCKS = [
    {},
    {"embedding": False, "depth": 2},
    {"bias": 0.3, "positions": 0.5, "depth": 2},
    {"residual": True, "bias": 0.2},
    {"layer_norm": "pre", "residual": True, "depth": 2, "bias": 0.1, "positions": 0.7},
    {"layer_norm": "pre"},
    {"layer_norm": "post", "residual": True, "bias": 0.4},
    {"layer_norm": "post", "embedding": False},
    {"attention": "none", "depth": 3, "bias": 0.2},
    {"attention": "none", "residual": True, "layer_norm": "pre", "depth": 2},
]
READOUTS = [(1, "flatten"), (3, "flatten"), (3, "mean"), (3, "last")]
# Every block meets every readout, every activation and both one and several tokens.
CASES = [
    Architecture(tokens=t, readout=readout, mlp=mlp, **block)
    for i, block in enumerate(BLOCKS)
    for j, mlp in enumerate(["relu", "erf", "gelu", "none"])
    for t, readout in [READOUTS[(i + j) % 4]]
    if mlp != "none" or block.get("attention") != "none"
]
CASES.append(Architecture(tokens=6, depth=2, mlp="erf", positions=0.5))


@pytest.mark.parametrize("architecture", CASES, ids=str)
def test_agrees_with_neural_tangents(architecture):
    x = cube(6)[::5]
    y = cube(6)[3::7]
    ck, ntk = recursion.ck_ntk(architecture, x, y)
    ck_nt, ntk_nt = kernels.ck_ntk(architecture, x, y)
    assert ck.shape == ntk.shape == (len(x), len(y))
    np.testing.assert_allclose(ck, ck_nt, atol=CK_TOLERANCE * np.abs(ck).max(), rtol=0)
    scale = np.abs(ntk).max()
    np.testing.assert_allclose(ntk, ntk_nt, atol=COINCIDENT_TOLERANCE * scale, rtol=0)
    if architecture.mlp != "relu":
        np.testing.assert_allclose(ntk, ntk_nt, atol=1e-12 * scale, rtol=0)
        return
    # Away from correlation ±1: no token of x equals or opposes one of y, seen by the network.
    t = architecture.tokens
    a, b = x.reshape(len(x), t, -1), y.reshape(len(y), t, -1)
    overlap = np.abs(np.einsum("nip,mjp->nmij", a, b)).max((2, 3))
    away = overlap < 6 // t
    np.testing.assert_allclose(ntk[away], ntk_nt[away], atol=1e-12 * scale, rtol=0)


def test_float64_stays_local():
    import jax
    import jax.numpy as jnp

    kernels.ck_ntk(Architecture(), cube(2), cube(2))
    assert jnp.ones(3).dtype == jnp.float32
    assert jax.config.jax_numpy_rank_promotion == "raise"


class TestByHand:
    """Numbers anyone can check with a pencil."""

    def quadratic_forms(self, kernel, d):
        """mu_{U,V} = chi_U^T K chi_V / 4^d for the subsets asked for."""
        x = cube(d)

        def form(u, v=None):
            chi = [np.prod(x[:, [i - 1 for i in s]], axis=1) for s in (u, u if v is None else v)]
            return chi[0] @ kernel @ chi[1] / 4**d

        return form

    def test_one_attention_layer_is_not_a_dot_product_kernel(self):
        # d = 4, T = 2: S counts token overlaps, all four agree for 1111 and two for 111-1.
        x = np.array([[1, 1, 1, 1], [1, 1, 1, -1]])
        ck, _ = recursion.ck_ntk(Architecture(tokens=2), x, x)
        assert np.diag(x @ x.T).tolist() == [4, 4]
        np.testing.assert_allclose(np.diag(ck), [4, 2], rtol=1e-15)

    def test_one_attention_layer_mixes_degrees(self):
        x = cube(4)
        ck, _ = recursion.ck_ntk(Architecture(tokens=2), x, x)
        form = self.quadratic_forms(ck, 4)
        pair = [(2,), (1, 3, 4)]
        block = np.array([[form(u, v) for v in pair] for u in pair])
        np.testing.assert_allclose(block, [[5 / 8, 1 / 8], [1 / 8, 1 / 8]], atol=1e-15)
        golden = [(3 - math.sqrt(5)) / 8, (3 + math.sqrt(5)) / 8]
        np.testing.assert_allclose(np.linalg.eigvalsh(block), golden, atol=1e-15)

    def test_a_relu_after_attention_breaks_the_order(self):
        x = cube(4)
        ck, _ = recursion.ck_ntk(Architecture(tokens=2, mlp="relu"), x, x)
        form = self.quadratic_forms(ck, 4)
        four = (0.5 + (1 - 2 * math.sqrt(2)) / (2 * math.pi)) / 4
        np.testing.assert_allclose(form((1, 2, 3, 4)), four, atol=1e-15)
        assert abs(form((1, 3))) < 1e-15 < four  # degree 2 below degree 4
        mean = [
            np.mean([form(u) for u in itertools.combinations(range(1, 5), k)]) for k in range(5)
        ]
        np.testing.assert_allclose(mean, [0.5615, 0.1563, 0.0227, 0.0313, 0.0522], atol=5e-5)

    def test_attention_ntk(self):
        # T = 1, no embedding: K = c³ and Theta = 4 c³, then the readout adds K.
        x = cube(4)
        c = x @ x.T / 4
        ck, ntk = recursion.ck_ntk(Architecture(embedding=False), x, x)
        np.testing.assert_allclose(ck, c**3, atol=1e-15)
        np.testing.assert_allclose(ntk, 5 * c**3, atol=1e-15)

    def test_two_layer_relu_mlp(self):
        # One hidden layer: CK kappa_1 / 2, NTK adds c kappa_0 / 2, kappas at c = <x,y>/d.
        x = cube(5)
        c = np.clip(x @ x.T / 5, -1, 1)
        mlp = Architecture(attention="none", mlp="relu", embedding=False)
        ck, ntk = recursion.ck_ntk(mlp, x, x)
        k0 = (np.pi - np.arccos(c)) / np.pi
        k1 = np.sqrt(1 - c * c) / np.pi + c * k0
        np.testing.assert_allclose(ck, k1 / 2, atol=1e-15)
        np.testing.assert_allclose(ntk, (k1 + c * k0) / 2, atol=1e-15)

    def test_bias_positions_and_readouts_without_nonlinearity(self):
        # One attention layer on one bit per token, T = 2: everything is a polynomial.
        x, y = np.array([[1.0, -1.0]]), np.array([[1.0, 1.0]])
        k = np.array([[1 + 0.25, 1.0], [-1.0, -1 + 0.25]])  # tokens of x by tokens of y
        expected = {"flatten": np.trace(k) / 2, "mean": k.mean(), "last": k[1, 1]}
        s = np.sum(k**2)
        for readout, value in expected.items():
            a = Architecture(tokens=2, positions=0.5, readout=readout)
            ck, _ = recursion.ck_ntk(a, x, y)
            np.testing.assert_allclose(ck, [[value * s]], rtol=1e-15)


ARCHITECTURES = st.builds(
    lambda mlp, residual, norm, readout, depth, t, positions: Architecture(
        tokens=t,
        depth=depth,
        mlp=mlp,
        residual=residual,
        layer_norm=norm,
        readout=readout,
        positions=positions,
        bias=0.25,
    ),
    st.sampled_from(["none", "relu", "erf", "gelu"]),
    st.booleans(),
    st.sampled_from(["none", "pre", "post"]),
    st.sampled_from(["flatten", "mean", "last"]),
    st.integers(1, 2),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0.0, 0.5]),
)


@given(ARCHITECTURES)
def test_symmetric_and_positive(architecture):
    x = cube(4)
    for kernel in recursion.ck_ntk(architecture, x, x):
        scale = np.abs(kernel).max()
        np.testing.assert_allclose(kernel, kernel.T, atol=1e-13 * scale)
        # Rounding of 16 x 16 entries moves an eigenvalue by at most 16 ulps of the scale.
        assert np.linalg.eigvalsh(kernel).min() > -1e-13 * scale


@given(ARCHITECTURES, st.permutations(range(4)), st.lists(st.sampled_from([-1, 1]), min_size=4))
def test_symmetries_of_the_tokens(architecture, permutation, signs):
    """Flipping and permuting coordinates alike in every token leaves both kernels unchanged."""
    p = architecture.check(4)
    x = cube(4)
    within = [i for i in permutation if i < p]
    z = (x.reshape(16, -1, p)[:, :, within] * np.array(signs[:p])).reshape(16, 4)
    for a, b in zip(
        recursion.ck_ntk(architecture, x, x),
        recursion.ck_ntk(architecture, z, z),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-13 * np.abs(a).max())


@given(n=st.integers(1, 40), m=st.integers(1, 40), t=st.integers(1, 9), budget=st.integers(1, 999))
def test_tiles_cover_once_within_the_budget(n, m, t, budget):
    seen = np.zeros((n, m), int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recursion, "TILE", budget)
        for rows, columns in recursion.tiles(n, m, t):
            block = seen[rows, columns]
            assert block.size == 1 or block.size * t * t <= budget
            block += 1
    assert np.all(seen == 1)


def test_tiling_does_not_change_the_kernel(monkeypatch):
    a = Architecture(tokens=3, depth=2, mlp="gelu", positions=0.3)
    x = cube(6)
    whole = recursion.ck_ntk(a, x, x[:7])
    monkeypatch.setattr(recursion, "TILE", 50)
    for one, other in zip(whole, recursion.ck_ntk(a, x, x[:7]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)


def test_memory_is_bounded():
    """2048² pairs of 12 tokens would need 4.8 GB an array all at once."""
    import tracemalloc

    x = cube(12)[::2]
    tracemalloc.start()
    ck, _ = recursion.ck_ntk(Architecture(tokens=12), x, x[:256])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ck.shape == (2048, 256)
    assert peak < 150e6


@pytest.mark.parametrize("ck_ntk", [recursion.ck_ntk, kernels.ck_ntk])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.array([[0.0, 1.0]]), np.ones((1, 2)), "±1 only"),
        (np.array([[True, True]]), np.ones((1, 2)), "±1 only"),
        (np.ones(2), np.ones((1, 2)), r"shape \(points, d\)"),
        (np.ones((1, 2)), np.ones((1, 4)), "same d, got 2 and 4"),
        (np.ones((1, 3)), np.ones((1, 3)), "multiple of the number of tokens"),
    ],
)
def test_bad_points(ck_ntk, x, y, message):
    with pytest.raises(ValueError, match=message):
        ck_ntk(Architecture(tokens=2), x, y)


def test_gram_matrices_are_all_that_the_kernels_see():
    architecture = Architecture(tokens=3, mlp="relu", bias=0.3, layer_norm="post", residual=True)
    x, y = cube(6)[::7].reshape(-1, 3, 2), cube(6)[::5].reshape(-1, 3, 2)
    grams = recursion.ck_ntk_of_grams(
        architecture,
        np.einsum("nap,mbp->nmab", x, y) / 2,
        np.einsum("nap,nbp->nab", x, x) / 2,
        np.einsum("nap,nbp->nab", y, y) / 2,
    )
    points = recursion.ck_ntk(architecture, cube(6)[::7], cube(6)[::5])
    np.testing.assert_allclose(np.stack(grams), np.stack(points), rtol=1e-13)
