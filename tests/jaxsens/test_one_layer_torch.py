"""Training on modular addition, step for step as PyTorch does it; its answers are kept."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from witnesses import one_layer_cases
from witnesses.references import reference

from jaxsens.losses import plain, precise_cross_entropy
from jaxsens.training import Trainer, fit


@pytest.mark.parametrize("start", one_layer_cases.STARTS)
def test_ten_steps_of_adamw_agree_with_pytorch(start):
    train, test = one_layer_cases.data()
    model = one_layer_cases.model(start)
    arrays = one_layer_cases.arrays(start)
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        variable[...] = arrays.pop(path[0])
    assert not arrays
    trainer = Trainer(
        [model],
        optax.adamw(1e-3, b2=0.98, weight_decay=1.0),
        batch_size=None,
        loss=plain(precise_cross_entropy),
    )
    keys, steps = jax.random.split(jax.random.key(1), 1), one_layer_cases.STEPS
    found = []
    for state in fit(trainer, train, keys=keys, steps=steps, every=steps):
        found.append(trainer.evaluate(state, train)["loss"][0])
    logits = jax.jit(lambda model, inputs: model(inputs))(trainer.models(state)[0], test.inputs)
    for kind in one_layer_cases.KINDS:
        np.testing.assert_allclose(found[0], reference(f"{start} {kind}/losses")[0], rtol=1e-5)
        expected = reference(f"{start} {kind}/logits")
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
