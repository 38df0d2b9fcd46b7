"""Noisy copies: what an epoch visits, and what noise it meets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import Gaussian
from jaxsens.data.noisy_copies import NoisyCopies
from jaxsens.data.split import Split

N = 30
DATA = Split(np.arange(N, dtype=np.float32)[:, None] * np.ones(50, np.float32), np.arange(N))


@jax.jit
def epoch(source, key, start):
    plan, _ = source.plan(key, start, 6)
    return jax.lax.map(source.batch, plan)


@pytest.mark.parametrize("added", [True, False])
def test_an_epoch_visits_every_example_and_every_copy_once(added):
    source = NoisyCopies(jax.tree.map(jnp.asarray, DATA), Gaussian(4.0), 10, added=added)
    assert source.steps_per_epoch == (6 if added else 3)
    inputs, labels = (x.reshape(60, -1) for x in epoch(source, jax.random.key(0), 0))
    labels, noise = labels.ravel(), inputs - labels.reshape(60, 1)  # without: two epochs
    copies = np.asarray((noise != 0).all(1))
    assert ((noise == 0).all(1) | copies).all()
    if added:
        for kind in (copies, ~copies):
            np.testing.assert_array_equal(np.sort(labels[kind]), np.arange(N))
    else:
        assert copies.all()
        np.testing.assert_array_equal(np.sort(labels), np.repeat(np.arange(N), 2))
    drawn = np.asarray(noise[copies])
    assert drawn.std() == pytest.approx(2.0, rel=0.1)
    assert len(np.unique(drawn)) > 0.99 * drawn.size
    again = epoch(source, jax.random.key(0), source.steps_per_epoch)
    assert (np.asarray(again.inputs)[:3] != np.asarray(inputs).reshape(6, 10, 50)[:3]).any()


def test_inputs_that_no_noise_can_act_on_are_one_line():
    with pytest.raises(TypeError, match="needs floating-point inputs, got int64"):
        NoisyCopies(Split(DATA.labels[:, None], DATA.labels), Gaussian(1.0))
    with pytest.raises(TypeError, match="one array, not of several"):
        NoisyCopies(Split((DATA.inputs, DATA.inputs), DATA.labels), Gaussian(1.0))
    with pytest.raises(ValueError, match="data have 30 inputs and 29 labels"):
        NoisyCopies(Split(DATA.inputs, DATA.labels[1:]), Gaussian(1.0))
