"""Gradient flow in closed form against neural-tangents, against small steps, and real networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsens import boolean
from theory import dynamics
from theory.architecture import Architecture
from theory.finite_width import Network
from theory.kernels import float64
from theory.nt_compat import neural_tangents
from theory.recursion import ck_ntk

MLP = Architecture(attention="none", mlp="relu", depth=2, bias=0.3)
TRANSFORMER = Architecture(tokens=2, mlp="relu", embedding=False, layer_norm="post")


def cube(d):
    return np.asarray(boolean.cube(d), np.float64)


@pytest.fixture(scope="module")
def problem():
    """Half of the 5-cube, a random target, and the two NTK blocks."""
    x = cube(5)
    rng = np.random.default_rng(0)
    order = rng.permutation(32)
    train, test = order[:14], order[14:]
    y = rng.choice([-1.0, 1.0], 14)
    theta = ck_ntk(MLP, x, x)[1]
    return theta[np.ix_(train, train)], theta[np.ix_(test, train)], y, rng.normal(size=(2, 18))


TIMES = np.array([0.0, 0.1, 1.0, 30.0, np.inf])


def test_agrees_with_neural_tangents(problem):
    train, test, y, noise = problem
    start, test_start = noise[0, :14], noise[1]
    on_train = dynamics.gradient_flow(train, y, TIMES, start=start)
    on_test = dynamics.gradient_flow(
        train, y, TIMES, start=start, test_kernel=test, test_start=test_start
    )
    with float64():
        predict = neural_tangents().predict.gradient_descent_mse(
            jnp.asarray(train), jnp.asarray(y)[:, None]
        )
        for t, f, g in zip(TIMES[:-1], on_train, on_test, strict=False):
            expected = predict(
                t, jnp.asarray(start)[:, None], jnp.asarray(test_start)[:, None], jnp.asarray(test)
            )
            # Condition number of the kernel, about 1e2, times rounding.
            np.testing.assert_allclose(f, expected[0][:, 0], atol=1e-10)
            np.testing.assert_allclose(g, expected[1][:, 0], atol=1e-10)
    np.testing.assert_allclose(on_train[-1], y, atol=1e-10)
    interpolant = test_start + test @ np.linalg.solve(train, y - start)
    np.testing.assert_allclose(on_test[-1], interpolant, atol=1e-9)


def test_agrees_with_small_steps(problem):
    train, test, y, _ = problem
    f, g = np.zeros(14), np.zeros(18)
    steps, total = 20_000, 2.0
    for _ in range(steps):
        slope = (f - y) / 14 * total / steps
        f, g = f - train @ slope, g - test @ slope
    # Euler's error: total x step x lambda² / N² / 2 < 1e-3 of the outputs.
    np.testing.assert_allclose(dynamics.gradient_flow(train, y, [total])[0], f, atol=1e-3)
    on_test = dynamics.gradient_flow(train, y, [total], test_kernel=test)[0]
    np.testing.assert_allclose(on_test, g, atol=1e-3)


def test_a_mode_with_eigenvalue_zero_is_never_learned():
    """Attention alone at T = 1 is c³: no parity of degree 2 or 5, whatever the time."""
    x = cube(5)
    theta = ck_ntk(Architecture(embedding=False), x, x)[1]
    y = np.asarray(boolean.parity(5, [0, 1]), np.float64)
    np.testing.assert_allclose(dynamics.gradient_flow(theta, y, [0.0, 1e6, np.inf]), 0, atol=1e-10)


@pytest.mark.parametrize("k", range(6))
def test_the_eigenvalue_is_the_learning_curve(k):
    x = cube(5)
    theta = ck_ntk(MLP, x, x)[1]
    mu = np.array([np.asarray(boolean.parity(5, range(j))) @ theta[0] / 32 for j in range(6)])
    y = np.asarray(boolean.parity(5, range(k)), np.float64)
    times = np.linspace(0, 2 / mu[k], 5)
    flow = dynamics.loss(dynamics.gradient_flow(theta, y, times), y)
    np.testing.assert_allclose(flow, dynamics.losses_by_degree(mu, times)[:, k], atol=1e-12)


def test_time_to():
    t = np.linspace(0, 4, 4001)
    # Linear interpolation of an exponential over steps of 1e-3.
    assert abs(dynamics.time_to(t, np.exp(-t)) - np.log(2)) < 1e-6
    assert dynamics.time_to(t, np.exp(-t), fraction=0.01) == float("inf")
    assert dynamics.time_to(t, np.zeros(4001)) == 0.0


@pytest.mark.parametrize(("architecture", "widths"), [(MLP, (32, 512)), (TRANSFORMER, (8, 48))])
def test_wide_networks_follow_the_flow(architecture, widths):
    """Gradient descent on a Flax network against the limit NTK from the same f_0.

    The distance falls with width; rms over four seeds and three targets of degree 1 and 2 on the
    whole 4-cube. At width^(-1/2) the factors would be 0.25 and 0.41; 0.65 leaves room for seeds.
    """
    d = 4
    x = cube(d)
    theta = ck_ntk(architecture, x, x)[1]
    rate = 0.1 * len(x) / np.linalg.eigvalsh(theta)[-1]
    times = np.arange(6) * 20 * rate
    distances = []
    for width in widths:
        squares, learned = [], []
        for seed in range(4):
            network = Network(architecture, d, width, rngs=nnx.Rngs(seed))
            for chosen in ([0], [0, 1], [0, 2]):
                y = np.asarray(boolean.parity(d, chosen), np.float32)
                _, f = dynamics.train(
                    network, x.astype(np.float32), y, learning_rate=rate, steps=100, every=20
                )
                flow = dynamics.gradient_flow(theta, y, times, start=f[0])
                squares.append(np.mean((f - flow) ** 2))
                learned.append(dynamics.loss(f[-1], y) / dynamics.loss(f[0], y))
        distances.append(np.sqrt(np.mean(squares)))
    assert np.mean(learned) < 0.5  # there was a curve to follow
    assert distances[0] < 0.4  # of outputs of order one
    assert distances[1] < 0.65 * distances[0]


def test_train_leaves_the_network_and_reports_divergence():
    network = Network(MLP, 4, 16, rngs=nnx.Rngs(0))
    x, y = boolean.cube(4), boolean.parity(4, [0]).astype(jnp.float32)
    before = np.asarray(network(x))
    trained, f = dynamics.train(network, x, y, learning_rate=0.5, steps=6, every=3)
    np.testing.assert_array_equal(network(x), before)
    np.testing.assert_allclose(f[0], before, rtol=1e-5)
    np.testing.assert_allclose(trained(x), f[-1], rtol=1e-5)
    assert f.shape == (3, 16)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        dynamics.train(network, x, y, learning_rate=1e6, steps=60)
    with pytest.raises(ValueError, match="multiple of every, got 5 and 2"):
        dynamics.train(network, x, y, learning_rate=0.1, steps=5, every=2)


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(embedding=False),
        Architecture(tokens=3, mlp="relu"),
        Architecture(tokens=2, mlp="erf", positions=0.5, residual=True, readout="last", bias=0.4),
    ],
    ids=str,
)
def test_prior_sensitivity_is_that_of_samples(architecture):
    """Arccosine law over neighbours against 4000 drawn functions, counted on the whole cube."""
    d = 6
    ck, _ = ck_ntk(architecture, cube(d), cube(d))
    f = dynamics.sample_prior(ck, 4000, seed=1)
    # The readout's eigenvalues of 0 leave rounding where f is 0: none of these is identically 0.
    measured = boolean.normalised_sensitivity(np.where(f > 0, 1, -1).astype(np.int8))
    expected = dynamics.prior_sensitivity(architecture, d)
    assert abs(measured.mean() - expected) < 4 * measured.std() / 4000**0.5


def test_prior_sensitivity_of_a_dot_product_kernel():
    # c³ at c = 1 - 2/d; a thousand bits cost one neighbourhood.
    d = 1000
    expected = np.arccos((1 - 2 / d) ** 3) / np.pi
    value = dynamics.prior_sensitivity(Architecture(embedding=False), d)
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_prior_sensitivity_refuses_what_would_not_end():
    with pytest.raises(ValueError, match=r"2\^20 inequivalent points"):
        dynamics.prior_sensitivity(Architecture(tokens=6), 24)


def test_sample_prior_has_its_covariance():
    k = ck_ntk(TRANSFORMER, cube(3)[:, [0, 1, 2, 0]], cube(3)[:, [0, 1, 2, 0]])[0]
    f = dynamics.sample_prior(k, 40_000, seed=0)
    # Standard error of a product of two Gaussians: at most sqrt(2) k_max / 200.
    np.testing.assert_allclose(f.T @ f / len(f), k, atol=0.03 * k.max())


class TestTrajectory:
    def test_full_cube_is_learned_exactly(self):
        x = cube(5)
        theta = ck_ntk(MLP, x, x)[1]
        y = np.asarray(boolean.majority(5), np.float64)
        path = dynamics.sensitivity_over_time(theta, y, np.arange(32), np.array([0.0, np.inf]))
        assert path.sensitivity[0] == 0  # f_0 = 0 counts as -1 everywhere
        assert path.sensitivity[1] == boolean.normalised_sensitivity(y)
        np.testing.assert_allclose(path.train_loss, [0.5, 0], atol=1e-12)
        assert np.isnan(path.test_accuracy).all()
        weights = boolean.weights_by_degree(y)
        np.testing.assert_allclose(path.mean_degree, [0, weights @ np.arange(6)], atol=1e-9)

    def test_low_degrees_come_first(self):
        # x_0 + x_0 x_1 x_2 ... : the residual of the lower degree dies first, so mean degree rises.
        x = cube(5)
        theta = ck_ntk(MLP, x, x)[1]
        y = np.asarray(boolean.tribes(5, 5), np.float64)
        path = dynamics.sensitivity_over_time(theta, y, np.arange(32), np.geomspace(0.1, 1e4, 20))
        assert np.all(np.diff(path.mean_degree) > -1e-9)

    def test_start_is_carried(self):
        x = cube(4)
        ck, theta = ck_ntk(MLP, x, x)
        start = dynamics.sample_prior(ck, 1, seed=0)[0]
        y = np.asarray(boolean.parity(4, [1]), np.float64)
        path = dynamics.sensitivity_over_time(
            theta, y, np.arange(0, 16, 2), np.array([0.0]), start=start
        )
        assert path.sensitivity[0] == boolean.normalised_sensitivity(np.where(start > 0, 1, -1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.eye(3), np.ones(2), [0.0]), r"kernel \(N, N\) and targets \(N,\)"),
        ((np.triu(np.ones((2, 2))), np.ones(2), [0.0]), "symmetric"),
        ((np.eye(2), np.ones(2), [-1.0]), "times must be"),
    ],
)
def test_bad_flow(arguments, message):
    with pytest.raises(ValueError, match=message):
        dynamics.gradient_flow(*arguments)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"start must have"):
        dynamics.gradient_flow(np.eye(2), np.ones(2), [0.0], start=np.ones(3))
    with pytest.raises(ValueError, match=r"test_kernel must have shape \(M, 2\)"):
        dynamics.gradient_flow(np.eye(2), np.ones(2), [0.0], test_kernel=np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"indices in 0\.\.3"):
        dynamics.sensitivity_over_time(np.eye(4), np.ones(4), np.array([4]), np.array([0.0]))


def test_float32_default_is_untouched():
    assert jax.numpy.ones(1).dtype == jnp.float32
