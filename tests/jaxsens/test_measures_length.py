"""Measures of paper B: on networks whose functions are known, and against the general sharpness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from witnesses import exact_networks

from jaxsens import boolean
from jaxsens._check import checked_key
from jaxsens.data.bit_functions import BUILT_IN, average_sensitivity_of, parity
from jaxsens.measures.bits import (
    average_sensitivity,
    sensitivity_at,
    table,
    zero_one,
    zero_one_signs,
)
from jaxsens.measures.blowup import layer_norm_blowup
from jaxsens.measures.parameters import not_positions
from jaxsens.measures.theorem_4 import theorem_4
from jaxsens.measures.weight_noise import WeightNoise, subcube, weight_noise
from jaxsens.models.bit_transformer import BitTransformer
from jaxsens.models.length import LengthTransformer
from jaxsens.sharpness import average_direction

KEY = jax.random.key(0)


@pytest.mark.parametrize("name", ["majority", "first"])
def test_networks_built_by_hand_have_the_sensitivity_of_their_function(name):
    for n in (4, 10):
        model = getattr(exact_networks, name)(n)
        signs = table(model, n, read=zero_one_signs)
        np.testing.assert_array_equal(signs, 2 * BUILT_IN[name](boolean.cube(n)) - 1)
        found = average_sensitivity(model, n, key=KEY, read=zero_one_signs)
        assert (found.value, found.stderr, found.exact) == (
            average_sensitivity_of(name, n),
            0,
            True,
        )
        at = sensitivity_at(model, boolean.cube(n)[5:700], read=zero_one_signs)
        np.testing.assert_array_equal(at, boolean.sensitivity_at(signs)[5:700])


def test_average_sensitivity_is_exact_to_twenty_bits_and_sampled_beyond():
    model = exact_networks.majority(20)
    exact = average_sensitivity(model, 20, key=KEY, read=zero_one_signs).value
    assert exact == average_sensitivity_of("majority", 20)
    sampled = average_sensitivity(model, 20, key=KEY, read=zero_one_signs, exact=19, samples=400)
    assert not sampled.exact
    assert 0 < sampled.stderr < 0.5
    assert abs(sampled.value - exact) < 4 * sampled.stderr
    with pytest.raises(ValueError, match=r"exact must lie in 0..20"):
        average_sensitivity(model, 20, key=KEY, exact=21)


def test_blowup_of_an_input_that_is_known():
    """The first norm is given (±1, ∓1, c m, -c m), the second what the first returns."""
    n = 6
    points = boolean.cube(n)
    found = layer_norm_blowup(exact_networks.majority(n), points)
    variance = exact_networks.deviation(points.mean(axis=1))
    normed = variance / (variance + 1e-5)
    expected = [1 / np.sqrt(4 / 3 * v) for v in (variance, normed)]
    assert list(found.layers) == ["blocks.0.attention_norm", "blocks.0.mlp_norm"]
    np.testing.assert_allclose(list(found.layers.values()), expected, rtol=1e-5)
    assert found.value == pytest.approx(np.prod(expected, axis=0).mean(), rel=1e-5)
    bound = np.prod([1 + part for part in expected], axis=0)
    np.testing.assert_allclose(found.bound, bound, rtol=1e-5)
    model = exact_networks.majority(n)
    statistic = theorem_4(model, points, read=zero_one_signs)
    s = boolean.sensitivity_at(table(model, n, read=zero_one_signs))
    np.testing.assert_allclose(statistic, s / np.sqrt(n * np.log(n)) / bound**2, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [5, 512])
def test_blowup_is_of_layers_that_see_every_input(batch_size):
    """A layer that sees the table of all tokens that there can be is none."""
    points, settings = boolean.cube(5), {"dim": 8, "heads": 2, "rngs": nnx.Rngs(0)}
    model = BitTransformer(bits=5, **settings)
    found = layer_norm_blowup(model.by_token, points, batch_size=batch_size)
    assert {values.shape for values in found.layers.values()} == {(32,)}
    tokens = points.reshape(32, 5, 1) * model.embedding[...][None]
    x = jnp.pad(tokens, ((0, 0), (1, 0), (0, 0))) + model.positions[...][None]
    expected = 1 / np.std(x, axis=-1, ddof=1).min(axis=1)
    np.testing.assert_allclose(found.layers["blocks.0.norm"], expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"layer blocks\.0\.norm is given 6 rows for \d+ inputs"):
        layer_norm_blowup(model, points, batch_size=batch_size)


def test_blowup_takes_the_largest_of_the_tokens_asked_for():
    class Norms(nnx.Module):
        def __init__(self):
            self.first = nnx.LayerNorm(3, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.first(x).sum(axis=(1, 2))

    x = jnp.array([[[1.0, 2, 3], [0, 2, 4]], [[0, 0, 6], [1.0, 1, 2]]])
    deviations = np.asarray(x).std(axis=-1, ddof=1)
    found = layer_norm_blowup(Norms(), x).layers["first"]
    np.testing.assert_allclose(found, 1 / deviations.min(axis=1), rtol=1e-6)
    last = layer_norm_blowup(Norms(), x, rows=lambda name: slice(-1, None)).layers["first"]
    np.testing.assert_allclose(last, 1 / deviations[:, -1], rtol=1e-6)


@pytest.fixture(scope="module")
def network():
    return LengthTransformer(bits=5, dim=8, independent=True, rngs=nnx.Rngs(2))


def test_sharpness_is_the_average_direction_of_the_squared_loss(network):
    found = weight_noise(network, parity, 5, key=KEY, draws=3, batches=2, size=0.3)
    points_key, noise_key = jax.random.split(jax.random.fold_in(checked_key(KEY), 1))
    points = np.asarray(subcube(points_key, n=5, free=5))

    def loss(model, inputs, labels):
        return (2 * model(inputs) - 1 - labels) ** 2

    labels = 2 * np.asarray(parity(jnp.asarray(points))) - 1
    general = average_direction(
        loss, network, points, labels, key=noise_key, size=0.3, draws=3, where=not_positions
    )
    np.testing.assert_allclose(found.increase[1], general.increase.mean(1), rtol=1e-4, atol=1e-5)
    assert found.value == pytest.approx(found.increase.mean())
    same = weight_noise(network, parity, 5, key=KEY, draws=3, batches=2, size=0.3, reuse=True)
    np.testing.assert_allclose(*same.change, rtol=1e-5)  # the same cube under the same draws


@pytest.mark.parametrize(("kind", "size"), [("std", 0.3), ("sphere", 5.0)])
def test_the_change_is_never_below_what_sensitivity_was_lost(network, kind, size):
    found = weight_noise(
        network, parity, 5, key=KEY, kind=kind, size=size, draws=3, batches=2, dimension=4
    )
    assert found.slack > -1e-9
    assert np.all(found.bound >= 0)
    assert found.change.shape == (2, 3)


def test_the_bound_is_attained_by_a_parity_that_is_scaled():
    """f = PARITY, g = c f: E(f-g)^2 = (1-c)^2, as(f)/n = 1 and as(g)/n = c^2."""
    c = 0.25
    found = WeightNoise(*map(np.array, ([[0.0]], [[(1 - c) ** 2]], [1.0], [[c**2]])), reused=False)
    assert found.slack == pytest.approx(0, abs=1e-12)
    assert found.bound == pytest.approx((1 - c) ** 2)


def test_a_batch_is_a_subcube_on_which_sensitivities_are_exact(network):
    points = np.asarray(subcube(KEY, n=5, free=3))
    assert len({tuple(point) for point in points}) == 8
    assert (np.ptp(points, axis=0) == 0).sum() == 2
    found = weight_noise(network, parity, 5, key=KEY, draws=3, batches=2)
    exact = average_sensitivity(network, 5, key=KEY, read=zero_one)
    assert found.before[0] == pytest.approx(exact.value / 5, rel=1e-5)
