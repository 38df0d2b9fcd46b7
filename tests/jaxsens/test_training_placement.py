"""Training on several devices: the numbers of one, bit for bit where arithmetic is exact."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from witnesses import exact_training, small_training
from witnesses.devices import flags
from witnesses.small_training import keys, last

from jaxsens import placement
from jaxsens.data.batches import Fresh
from jaxsens.training import Split, fit

ROOT = Path(__file__).parents[2]


def trained(seeds, mesh=None):
    """Losses and last parameters of the exact training."""
    subject = exact_training.trainer(seeds, mesh)
    state = jax.tree.map(jax.numpy.copy, subject.initial)
    state, losses = subject.train(
        state, exact_training.data(), keys(*seeds), steps=exact_training.STEPS
    )
    loss = subject.evaluate(state, exact_training.data(), batch_size=7)["loss"]
    weights = [np.asarray(model.weights[...]) for model in subject.models(state)]
    return np.asarray(losses), np.asarray(loss), weights


def meshes():
    devices = np.array(jax.devices()[:2])
    yield "automatic", Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    yield "explicit", jax.make_mesh((2, 1), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)


@pytest.mark.parametrize("seeds", [(3,), (3, 4)], ids=["rows", "seeds"])
@pytest.mark.parametrize("kind", ["automatic", "explicit"])
def test_exact_arithmetic_is_that_of_one_device(kind, seeds):
    want, got = trained(seeds), trained(seeds, dict(meshes())[kind])
    assert want[0].shape == (len(seeds), exact_training.STEPS)
    assert (want[0][:, -1] < want[0][:, 0]).all()  # it learns
    for one, other in zip(want, got, strict=True):
        np.testing.assert_array_equal(one, other)


def test_statistics_and_dropout_are_those_of_the_whole_batch():
    """Of 5 examples, which two devices cannot divide evenly; sums in another order."""
    mesh = dict(meshes())["explicit"]
    for seeds in ((0,), (0, 1)):
        want, got = (
            last(fit(subject, small_training.data(), keys=keys(*seeds), epochs=2))
            for subject in (
                small_training.trainer(small_training.Noisy, seeds, mesh=mesh),
                small_training.trainer(small_training.Noisy, seeds),
            )
        )
        for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def draw(key, given):
    x = jax.random.rademacher(key, (8, 4), "float32")
    return Split(x, x[:, :2] * given)


def test_a_source_with_data_for_every_seed():
    given = np.array([1.0, 2.0], np.float32)
    source = Fresh(draw, given, steps_per_epoch=2, per_seed=True)
    ends = [
        last(fit(exact_training.trainer((0, 1), mesh), source, keys=keys(0, 1), steps=4)).params
        for mesh in (None, dict(meshes())["automatic"])
    ]
    assert small_training.identical(*ends)


def test_where_things_lie():
    mesh = dict(meshes())["explicit"]
    subject, seen = exact_training.trainer((0, 1), mesh), []
    state = subject.initial
    for leaf in jax.tree.leaves(state):
        assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {1}
    moved, _ = subject.train(
        jax.tree.map(jax.numpy.copy, state), exact_training.data(), keys(0, 1), steps=2
    )
    assert jax.tree.map(lambda a, b: a.sharding == b.sharding, state, moved) == jax.tree.map(
        lambda _: True, state
    )
    (model, _) = subject.models(moved)
    assert model.weights[...].sharding.is_fully_replicated

    rows = placement.training_mesh(mesh, 1)

    def one(x):
        x = placement.constrain(x, rows, placement.ROWS)
        jax.debug.inspect_array_sharding(x, callback=seen.append)
        return x.sum()

    jax.jit(one)(exact_training.data().inputs)
    assert not seen[0].is_fully_replicated


def test_models_that_are_sharded_already():
    mesh = dict(meshes())["explicit"]
    models = [exact_training.Exact(0)]
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    models[0].weights = nnx.Param(jax.device_put(models[0].weights[...], sharding))
    subject = exact_training.Trainer(
        models, exact_training.optax.sgd(0.25), batch_size=8,
        loss=exact_training.plain(exact_training.squares),
        metrics={"loss": exact_training.squares}, mesh=mesh,
    )  # fmt: skip
    state = last(fit(subject, exact_training.data(), keys=keys(0), steps=exact_training.STEPS))
    np.testing.assert_array_equal(state.params["weights"][...][0], trained((0,))[2][0])


def test_what_is_no_mesh_is_one_line():
    with pytest.raises(TypeError, match=r"mesh must be a jax.sharding.Mesh, got int"):
        exact_training.trainer((0,), 2)


EIGHT = """
import sys; sys.path[:0] = [{root!r}, {tests!r}, {here!r}]
import jax, numpy as np
from test_training_placement import trained
assert len(jax.devices()) == 8
mesh = jax.make_mesh((4, 2), ("a", "b"))
for count in (1, 4, 6, 8):  # groups of 8, 2, 4 and 1 devices
    for one, other in zip(trained(range(count)), trained(range(count), mesh)):
        np.testing.assert_array_equal(one, other)
print("same")
"""


def test_eight_devices():
    here = Path(__file__).parent
    code = EIGHT.format(root=str(ROOT), tests=str(here.parent), here=str(here))
    settings = {**os.environ, "XLA_FLAGS": flags(8)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=settings, capture_output=True, text=True, timeout=200
    )
    assert done.stdout.strip() == "same", done.stderr[-2000:]
