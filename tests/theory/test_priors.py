"""Profiles of random networks against exact counts on the cube and against the Gaussian prior."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsens import boolean
from theory import priors
from theory.architecture import Architecture
from theory.dynamics import prior_sensitivity

SMALL = {"width": 8, "depth": 1, "heads": 2}


@pytest.mark.parametrize("family", priors.FAMILIES)
def test_profile_is_the_exact_count_on_the_cube(family):
    """The same draws, evaluated as tables and counted by jaxsens.boolean."""
    key = jax.random.key(3)
    profile = priors.sensitivity_profile(family, 5, seeds=2, points=32, key=key, **SMALL)
    assert profile.profiles.shape == (2, 6)
    sizes = (family, 8, 1, 2, "last")
    f = jax.jit(lambda draw, x: priors._network(sizes, 5, nnx.Rngs(draw))(x))
    for i, draw in enumerate(jax.random.split(jax.random.split(key)[1], 2)):
        table = boolean.evaluate(partial(f, draw), 5)
        np.testing.assert_array_equal(profile.profiles[i], boolean.sensitivity_profile(table))
        assert profile.sensitivity[i] == pytest.approx(boolean.normalised_sensitivity(table))
        assert profile.bias[i] == pytest.approx(abs(float(np.mean(table))), abs=1e-6)


def test_wide_mlps_have_the_sensitivity_of_the_gaussian_prior():
    wide = priors.sensitivity_profile("mlp", 8, width=256, seeds=192, key=jax.random.key(0))
    expected = prior_sensitivity(Architecture(attention="none", mlp="gelu", depth=2), 8)
    # Four standard errors, and 1/width for the distance of a finite prior from its limit.
    assert abs(wide.mean - expected) < 4 * wide.stderr + 1 / 256
    assert wide.stderr < 0.01


def test_a_sample_of_inputs_estimates_the_whole_cube():
    arguments = {"seeds": 12, "key": jax.random.key(1), **SMALL}
    whole = priors.sensitivity_profile("mlp", 9, points=512, **arguments)
    sampled = priors.sensitivity_profile("mlp", 9, points=511, **arguments)
    # The same networks; S(f, x) / d lies in [0, 1], so 511 inputs are right to 0.5 / sqrt(511) at
    # most, averaged over 12.
    assert np.abs(whole.sensitivity - sampled.sensitivity).max() < 4 * 0.5 / 511**0.5
    assert not np.array_equal(whole.profiles, sampled.profiles)


def test_centred_functions_are_balanced():
    profile = priors.sensitivity_profile(
        "lstm-uniform", 6, seeds=4, centred=True, key=jax.random.key(2), **SMALL
    )
    # 64 inputs split at their median; ties could move a few.
    assert profile.bias.max() <= 2 / 64
    assert profile.sensitivity.min() > 0


def test_lstm_follows_the_cell_equations():
    """i, f, g, o gates written out; c <- f c + i g, h <- o tanh(c)."""
    lstm = priors.LSTM(3, 2, uniform=True, rngs=nnx.Rngs(0))
    x = np.asarray(boolean.cube(4))[5]

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    inputs = x[:, None]
    for cell in lstm.cells:
        h, c, out = np.zeros(3), np.zeros(3), []
        w, u = np.asarray(cell.dense_i.kernel[...]), np.asarray(cell.dense_h.kernel[...])
        b = np.asarray(cell.dense_h.bias[...])
        for z in inputs:
            i, f, g, o = np.split(z @ w + h @ u + b, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            out.append(h)
        inputs = np.array(out)
    expected = inputs[-1] @ np.asarray(lstm.readout.kernel[...]) + np.asarray(
        lstm.readout.bias[...]
    )
    np.testing.assert_allclose(lstm(x[None])[0], expected[0], rtol=1e-5)


def test_error_bars_are_over_seeds():
    p = priors.Profile("mlp", 2, np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1.0]]), np.zeros(3))
    assert p.mean == pytest.approx(0.5)
    assert p.stderr == pytest.approx(np.std([0, 0.5, 1], ddof=1) / 3**0.5)
    np.testing.assert_allclose(p.mean_profile, 1 / 3)
    np.testing.assert_allclose(p.stderr_profile, 1 / 3)
    one = priors.Profile("mlp", 2, np.array([[1, 0, 0.0]]), np.zeros(1))
    assert np.isnan(one.stderr)
    assert np.isnan(one.stderr_profile).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "gru"}, "unknown family 'gru': expected one of linear-transformer"),
        ({"d": 0}, "d must be at least 1"),
        ({"width": 10}, "heads must divide width, got heads = 4, width = 10"),
        ({"seeds": 0}, "at least 1, got 0 and"),
    ],
)
def test_bad_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        priors.sensitivity_profile(
            **{"family": "mlp", "d": 4, "key": jax.random.key(0), **arguments}
        )


@pytest.mark.parametrize("centred", [False, True])
def test_a_network_with_nan_at_one_string_is_refused(monkeypatch, centred):
    def broken(sizes, d, rngs):
        return lambda x: jnp.where((x == 1).all(1), jnp.nan, x[:, 0])

    monkeypatch.setattr(priors, "_network", broken)
    priors._sensitivities.clear_cache()  # what is compiled of the real network is not to be taken
    try:
        with pytest.raises(ValueError, match=r"outputs of the mlp networks are NaN: lower the"):
            priors.sensitivity_profile(
                "mlp", 4, seeds=2, centred=centred, key=jax.random.key(0), **SMALL
            )
    finally:
        priors._sensitivities.clear_cache()
