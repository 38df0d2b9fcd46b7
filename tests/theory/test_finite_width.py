"""Finite networks converge to the kernels at the rate width^(-1/2): the third witness."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from theory.architecture import Architecture
from theory.finite_width import (
    Dense,
    Network,
    _empirical,
    empirical_ck,
    empirical_ntk,
    fitted_slope,
    kernel_errors,
)
from theory.recursion import ck_ntk

X = np.array(list(itertools.product([1.0, -1.0], repeat=6)))[::11]


def check_slope(architecture, widths, seeds, largest_stderr=0.1):
    """-1/2 within 0.1 for what is not yet asymptotic, and three standard errors for the draws.

    A kernel that is not the limit leaves a floor under the error and bends the slope toward 0.
    """
    for errors in kernel_errors(architecture, X, widths=widths, seeds=seeds, key=jax.random.key(0)):
        slope, stderr = fitted_slope(widths, errors)
        assert stderr < largest_stderr
        assert abs(slope + 0.5) < 0.1 + 3 * stderr
        assert slope < -0.2


def test_rate_of_an_mlp():
    mlp = Architecture(attention="none", mlp="relu", depth=2, bias=0.3)
    check_slope(mlp, (32, 128, 512), 48)


def test_rate_of_linear_attention():
    check_slope(Architecture(tokens=3, embedding=False), (8, 16, 32), 96)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(tokens=3, mlp="relu", layer_norm="post", residual=True, positions=1.0),
        Architecture(tokens=3, mlp="erf", layer_norm="pre", positions=1.0, readout="last"),
        Architecture(
            tokens=3,
            depth=2,
            mlp="gelu",
            layer_norm="pre",
            residual=True,
            positions=1.0,
            bias=0.2,
            readout="mean",
        ),
    ],
    ids=str,
)
def test_rate_of_transformers(architecture):
    # The NTK of deep stacks has heavy tails, hence the wider error of the slope.
    check_slope(architecture, (16, 32, 64), 64, largest_stderr=0.2)


def test_one_attention_layer_is_unbiased_at_any_width():
    """On raw tokens every expectation factorises, so the mean kernel is the limit already at n = 4.

    20000 draws; four standard errors of the mean, entry by entry, and 1 % for heavy tails (a
    product of four Gaussian matrices).
    """
    a = Architecture(tokens=3, embedding=False)
    keys = jax.random.split(jax.random.key(1), 20_000)
    draws = jax.jit(jax.vmap(lambda key: _empirical(a, 4, jnp.asarray(X, jnp.float32), key)))(keys)
    for empirical, limit in zip(draws, ck_ntk(a, X, X), strict=True):
        empirical = np.asarray(empirical, np.float64)
        stderr = empirical.std(0) / len(keys) ** 0.5
        assert np.all(np.abs(empirical.mean(0) - limit) < 4 * stderr + 0.01 * np.abs(limit).max())
        assert stderr.max() < 0.02 * np.abs(limit).max()


@pytest.mark.parametrize("softmax", [False, True])
def test_ntk_is_the_product_of_jacobians(softmax):
    a = Architecture(tokens=3, mlp="gelu", residual=True, positions=0.5, bias=0.2)
    network = Network(a, 6, 5, heads=2, head_width=3, softmax=softmax, rngs=nnx.Rngs(0))
    x = jnp.asarray(X, jnp.float32)
    graph, parameters = nnx.split(network)
    jacobian = jax.jacrev(lambda p: nnx.merge(graph, p)(x))(parameters)
    rows = jnp.concatenate([j.reshape(len(x), -1) for j in jax.tree.leaves(jacobian)], axis=1)
    # float32 sums of a few hundred products.
    np.testing.assert_allclose(empirical_ntk(network, x), rows @ rows.T, rtol=1e-4, atol=1e-4)


def test_ck_is_the_covariance_over_readouts():
    a = Architecture(tokens=2, mlp="erf", bias=0.5, readout="mean")
    network = Network(a, 6, 6, rngs=nnx.Rngs(0))
    x = jnp.asarray(X[:3], jnp.float32)

    features = network.features(x)

    def output(key):
        return Dense(6, 1, a.bias, rngs=nnx.Rngs(key))(features)[:, 0]

    f = np.asarray(jax.vmap(output)(jax.random.split(jax.random.key(0), 20_000)), np.float64)
    expected = np.asarray(empirical_ck(network, x))
    # Variance of a product of two unit-scale Gaussians over 20000 draws: 1.4 % at most, times 4.
    np.testing.assert_allclose(f.T @ f / len(f), expected, atol=0.06 * expected.max())


def test_attention_follows_the_formula_loop_by_loop():
    network = Network(Architecture(tokens=3, embedding=False), 6, 4, heads=2, rngs=nnx.Rngs(3))
    attention = network.sublayers[0]
    z = np.asarray(X[1], np.float64).reshape(3, 2)
    w = {n: np.asarray(getattr(attention, n)[...], float) for n in ("query", "key", "value")}
    out = np.zeros((3, 4))
    for a, b, h in itertools.product(range(3), range(3), range(2)):
        q, k, v = z[a] @ w["query"][h], z[b] @ w["key"][h], z[b] @ w["value"][h]
        score = (q / 2**0.5) @ (k / 2**0.5) / 4**0.5
        out[a] += score * (v / 2**0.5) @ np.asarray(attention.output[...])[h] / 8**0.5
    np.testing.assert_allclose(attention(jnp.asarray(z[None], jnp.float32))[0], out, rtol=1e-5)


def test_bad_sizes():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Network(Architecture(), 4, 0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="multiple of the number of tokens"):
        Network(Architecture(tokens=3), 4, 2, rngs=nnx.Rngs(0))
    mlp = Architecture(attention="none", mlp="relu")
    with pytest.raises(ValueError, match="softmax=True needs attention"):
        Network(mlp, 4, 2, softmax=True, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="two widths and two seeds, got 1 and 3"):
        fitted_slope((4,), np.ones((1, 3)))
