"""Training on modular addition, step for step as PyTorch does it."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from jaxsens.data.algorithmic import modular_addition
from jaxsens.losses import plain, precise_cross_entropy
from jaxsens.models.one_layer import OneLayerTransformer
from jaxsens.training import Trainer, fit

torch = pytest.importorskip("torch")
from witnesses import torch_one_layer  # noqa: E402


@pytest.mark.parametrize(("start", "residual"), [("published", False), ("nanda", True)])
@pytest.mark.parametrize("kind", ["OneLayerTransformer", "LastPosition"])
def test_ten_steps_of_adamw_agree_with_pytorch(start, residual, kind):
    train, test = modular_addition(11, train_fraction=0.5, key=jax.random.key(0))
    model = OneLayerTransformer(
        modulus=11, dim=16, heads=4, hidden=32, residual=residual, start=start, rngs=nnx.Rngs(0)
    )
    arrays = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    network = getattr(torch_one_layer, kind)(11, 16, 4, 32, residual).load(arrays)
    pairs, labels = (torch.tensor(np.asarray(part), dtype=torch.long) for part in train)
    losses = torch_one_layer.train(network, pairs, labels, epochs=10)

    trainer = Trainer(
        [model],
        optax.adamw(1e-3, b2=0.98, weight_decay=1.0),
        batch_size=None,
        loss=plain(precise_cross_entropy),
    )
    keys = jax.random.split(jax.random.key(1), 1)
    for state in fit(trainer, train, keys=keys, epochs=10, every=10):
        found = trainer.evaluate(state, train)["loss"][0]
        if int(state.step[0]) == 0:
            assert found == pytest.approx(losses[0], rel=1e-5)
    with torch.no_grad():
        expected = network(torch.tensor(test.inputs, dtype=torch.long)).numpy()
    run = jax.jit(lambda model, inputs: model(inputs))
    np.testing.assert_allclose(
        run(trainer.models(state)[0], test.inputs), expected, rtol=1e-3, atol=1e-3
    )
