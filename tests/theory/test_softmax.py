"""Softmax kernels: closed forms, direct Monte Carlo over scores, finite networks, verdicts."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from theory import softmax, softmax_table
from theory.architecture import Architecture
from theory.finite_width import Network, empirical_ck, empirical_ntk, fitted_slope
from theory.recursion import ck_ntk
from theory.softmax import factor, softmax_ck_ntk
from theory.softmax_verdict import (
    Estimate,
    _off_diagonal,
    _order,
    _spread,
    softmax_cube,
    softmax_verdicts,
    symmetrised,
)

X = np.array(list(itertools.product([1.0, -1.0], repeat=6)))[::9]


def test_one_token_is_exact():
    """softmax of one score is 1: attention passes its input on, K' = K and Theta' = 2 K + Theta."""
    for architecture in (
        Architecture(mlp="relu", bias=0.3, positions=0.2),
        Architecture(mlp="relu", bias=0.3, positions=0.2, residual=True, layer_norm="pre"),
    ):
        ck, ntk = softmax_ck_ntk(architecture, X, draws=2)
        c = 1.0 + 0.09 + 0.04
        k = X @ X.T / 6 + 0.13
        if architecture.layer_norm == "pre":
            k, theta = k + k / c, k + 3 * k / c  # Theta of the input is K; K' = LN(K), 2 K' + LN
        else:
            theta = 3 * k
        # Then the MLP sublayer, by the recursion's formulas for ReLU.
        inner = k / k[0, 0] if architecture.layer_norm == "pre" else k
        slope_in = theta / k[0, 0] if architecture.layer_norm == "pre" else theta
        u = inner + 0.09
        r = np.clip(u / u[0, 0], -1, 1)
        r[np.abs(r) > 1 - 1e-12] = np.sign(r[np.abs(r) > 1 - 1e-12])
        angle = np.pi - np.arccos(r)
        value = u[0, 0] * (np.sqrt(1 - r**2) + r * angle) / (2 * np.pi) + 0.09
        theta_out = (slope_in + u) * angle / (2 * np.pi) + value
        if architecture.layer_norm == "pre":
            value, theta_out = value + k, theta_out + theta
            theta_out, value = theta_out / value[0, 0], value / value[0, 0]
        np.testing.assert_allclose(ck, value + 0.09, rtol=1e-12)
        np.testing.assert_allclose(ntk, theta_out + value + 0.09, rtol=1e-12)


def test_the_identity_in_place_of_softmax_is_linear_attention(monkeypatch):
    monkeypatch.setattr(softmax, "softmax", lambda scores, axis: scores)
    architecture = Architecture(tokens=3, bias=0.3, positions=0.4, mlp="erf", readout="mean")
    found = np.stack([softmax_ck_ntk(architecture, X, draws=1024, seed=s)[0] for s in range(4)])
    expected = ck_ntk(architecture, X, X)[0]
    stderr = found.std(0, ddof=1) / 2
    # Scores have no bound here: four errors of the mean, and a floor for three degrees of freedom.
    assert np.all(np.abs(found.mean(0) - expected) < 4 * stderr + 0.01 * expected.max())
    assert np.abs(found.mean(0) - expected).max() < 0.01 * expected.max()


def direct(cross, left, right, theta, draws, rng):
    """One layer, one pair of inputs: sample the 2 T² scores themselves, and the formula."""
    t = len(cross)

    def scores(a, b):  # covariance of G_ai and G'_bj, flattened
        return np.kron(a, b)

    covariance = np.block(
        [
            [scores(left, left), scores(cross, cross)],
            [scores(cross.T, cross.T), scores(right, right)],
        ]
    )
    values, vectors = np.linalg.eigh(covariance)
    g = rng.normal(size=(draws, 2 * t * t)) * np.sqrt(np.maximum(values, 0)) @ vectors.T
    s, u = (np.exp(part.reshape(draws, t, t)) for part in (g[:, : t * t], g[:, t * t :]))
    s, u = s / s.sum(-1, keepdims=True), u / u.sum(-1, keepdims=True)
    k, ntk = np.zeros((t, t)), np.zeros((t, t))
    for a, b in itertools.product(range(t), repeat=2):
        k[a, b] = np.einsum("ni,nj,ij->", s[:, a], u[:, b], cross) / draws
        ntk[a, b] = 2 * k[a, b] + np.einsum("ni,nj,ij->", s[:, a], u[:, b], theta) / draws
        js = np.einsum("ni,ik->nik", s[:, a], np.eye(t)) - s[:, a, :, None] * s[:, a, None]
        ju = np.einsum("ni,ik->nik", u[:, b], np.eye(t)) - u[:, b, :, None] * u[:, b, None]
        inner = np.einsum("nik,ij,njl->kl", js, cross, ju, optimize=True) / draws
        weight = 2 * cross[a, b] * cross + theta[a, b] * cross + cross[a, b] * theta
        ntk[a, b] += np.sum(inner * weight)
    return k, ntk


def test_one_layer_against_direct_sampling_of_the_scores():
    architecture = Architecture(tokens=3, bias=0.4, positions=0.6, readout="mean")
    found = np.stack([softmax_ck_ntk(architecture, X[:3], draws=2048, seed=s) for s in range(2)])
    x = X[:3].reshape(3, 3, 2)
    rng = np.random.default_rng(0)
    for i, j in ((0, 1), (1, 2), (2, 2)):
        cross, left, right = (
            a @ b.T / 2 + 0.16 + 0.36 * np.eye(3)
            for a, b in ((x[i], x[j]), (x[i], x[i]), (x[j], x[j]))
        )
        k, theta = direct(cross, left, right, cross, 100_000, rng)
        expected = [k.mean() + 0.16, theta.mean() + k.mean() + 0.16]
        # 1e5 plain draws of numbers of order 1: about 0.3 % each.
        np.testing.assert_allclose(found[:, :, i, j].mean(0), expected, rtol=0.015)


@pytest.mark.parametrize("readout", ["flatten", "mean", "last"])
def test_positive_semidefinite_and_symmetric_for_few_draws(readout):
    architecture = Architecture(
        tokens=3, depth=2, mlp="gelu", bias=0.2, positions=0.5, readout=readout, residual=True
    )
    for k in softmax_ck_ntk(architecture, X, draws=16):
        np.testing.assert_allclose(k, k.T, rtol=1e-12)
        values = np.linalg.eigvalsh(k)
        assert values[0] > -1e-12 * values[-1]


def test_the_factor_is_exact():
    phi = np.random.default_rng(0).normal(size=(9, 4))
    found = factor(phi @ phi.T)
    assert found.shape == (9, 4)
    np.testing.assert_allclose(found @ found.T, phi @ phi.T, atol=1e-12)


def softmax_errors(architecture, widths, seeds):
    """Relative distance of one finite network's CK and NTK from the limit, per width and seed."""
    limits = np.mean(
        [softmax_ck_ntk(architecture, X, draws=4096, seed=s) for s in range(2)], axis=0
    )

    @partial(jax.jit, static_argnums=0)
    def draw(width, key):
        network = Network(architecture, 6, width, softmax=True, rngs=nnx.Rngs(params=key))
        x = jnp.asarray(X, jnp.float32)
        return empirical_ck(network, x), empirical_ntk(network, x)

    errors = np.empty((2, len(widths), seeds))
    for i, width in enumerate(widths):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), width), seeds)
        found = jax.lax.map(partial(draw, width), keys)
        for k in range(2):
            gap = np.asarray(found[k], np.float64) - limits[k]
            errors[k, i] = np.linalg.norm(gap, axis=(1, 2)) / np.linalg.norm(limits[k])
    return errors


def test_finite_networks_converge_at_the_rate_of_their_width():
    """Slope -1/2; a kernel that is not the limit leaves a floor and bends it toward 0."""
    widths = (8, 32)
    for errors in softmax_errors(Architecture(tokens=3, embedding=False), widths, 48):
        slope, stderr = fitted_slope(widths, errors)
        assert abs(slope + 0.5) < 0.1 + 3 * stderr
        assert stderr < 0.1


@pytest.mark.slow
def test_finite_transformers_converge_too():
    architecture = Architecture(
        tokens=3, mlp="relu", positions=1.0, bias=0.2, residual=True, layer_norm="pre"
    )
    for errors in softmax_errors(architecture, (16, 32, 64), 64):
        slope, stderr = fitted_slope((16, 32, 64), errors)
        assert abs(slope + 0.5) < 0.1 + 3 * stderr


def test_verdicts():
    one = Architecture(mlp="relu")
    for v in softmax_verdicts(one, 4, softmax_cube(one, 4, draws=2, randomisations=4)):
        assert (v.spread.zero, v.off_diagonal.zero, v.chain.holds, v.degree.holds) == ("yes",) * 4
        assert v.bias == "stronger"  # linear attention at one token takes K to K³
    two = Architecture(tokens=2, embedding=False)
    cubes = softmax_cube(two, 4, draws=128, randomisations=8)
    ck, ntk = softmax_verdicts(two, 4, cubes)
    assert (ck.spread.zero, ck.off_diagonal.zero) == ("no", "no")
    assert (ntk.spread.zero, ntk.off_diagonal.zero) == ("no", "no")
    # The share of the mean over many draws, without the correction for noise.
    many = softmax_cube(two, 4, draws=4096, randomisations=4).mean(0)[0]
    index = np.arange(16)
    centred = many[index[:, None], index[:, None] ^ index]
    plain = np.sqrt(np.sum((centred - centred.mean(0)) ** 2) / np.sum(centred**2))
    assert abs(ck.off_diagonal.value - plain) < 5 * ck.off_diagonal.stderr + 1e-3


def test_noise_is_not_a_verdict():
    """Pure noise around a kernel for which all parts hold, with every order within the noise."""
    rng = np.random.default_rng(0)
    sizes = np.bitwise_count(np.arange(16))
    noise = 0.1 * rng.normal(size=(8, 16, 16))
    centred = 1.0 + noise
    assert _spread(centred, sizes).zero == "undecided"
    assert _off_diagonal(centred).zero == "undecided"
    assert abs(_off_diagonal(centred).value) < 0.05  # its square has mean 0
    names = [(i,) for i in range(16)]
    steps = np.stack([np.arange(14), np.arange(2, 16)])
    assert _order(1 + noise[:, 0], steps, names).holds == "undecided"
    falling = 2.0 ** -np.arange(16) * (1 + 0.001 * noise[:, 0])
    assert _order(falling, steps, names).holds == "yes"
    assert _order(falling[:, ::-1], steps, names).holds == "no"
    assert [Estimate(v, 1.0).zero for v in (5.0, 3.0, -9.0)] == ["no", "undecided", "undecided"]


def test_symmetrising_keeps_what_is_symmetric_already():
    architecture = Architecture(tokens=2, mlp="relu", bias=0.3)
    x = np.array(list(itertools.product([1.0, -1.0], repeat=4)))
    k, _ = ck_ntk(architecture, x, x)
    np.testing.assert_allclose(symmetrised(k, 4, 2), k, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: softmax_ck_ntk(Architecture(attention="none", mlp="relu"), X), "no attention"),
        (lambda: softmax_ck_ntk(Architecture(tokens=3), X, draws=100), "power of two.*got 100"),
        (lambda: softmax_ck_ntk(Architecture(tokens=3), 0 * X), "must hold ±1"),
        (lambda: softmax_ck_ntk(Architecture(tokens=9), np.ones((1, 9))), "up to 8 tokens, got 9"),
        (lambda: softmax_ck_ntk(Architecture(tokens=4), np.ones((2000, 4))), "limit is 4096"),
        (lambda: softmax_cube(Architecture(tokens=2), 10, draws=2), "d must be <= 9"),
        (lambda: softmax_cube(Architecture(), 2, draws=2, randomisations=3), "halves"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_table(monkeypatch):
    monkeypatch.setattr(softmax_table, "CASES", softmax_table.CASES[:1])
    lines = softmax_table.softmax_table().splitlines()
    assert len(lines) == 4
    assert lines[2].count("| yes ") == 4
    assert len({line.count("|") for line in lines}) == 1
