"""The transformer of paper B: against PyTorch, against its own blocks as written, and its start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from witnesses.length_case import NAMES, SIZES
from witnesses.references import (
    assert_gradients,
    load,
    manifest,
    reference,
    weights,
)

from jaxsens import boolean
from jaxsens.data.bit_functions import parity
from jaxsens.measures.blowup import layer_norm_blowup
from jaxsens.measures.parameters import not_positions, parameter_norm
from jaxsens.models.length import LengthTransformer

CUBE = boolean.cube(SIZES["bits"])


@pytest.fixture(scope="module")
def model():
    built = LengthTransformer(**SIZES, rngs=nnx.Rngs(0))
    return load(built, weights(manifest("length")), NAMES)


def test_answers_and_gradients_are_pytorchs(model):
    graphdef, params = nnx.split(model)

    @jax.jit
    def run(params):
        def loss(params):
            answers = nnx.merge(graphdef, params)(CUBE)
            return jnp.mean((answers - parity(CUBE)) ** 2), answers

        (_, answers), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return answers, gradients

    answers, gradients = run(params)
    np.testing.assert_allclose(answers, reference("length/answers"), rtol=1e-4, atol=1e-5)
    assert_gradients("length", gradients, NAMES, least=0.01, relative=1e-3)


def test_blowup_is_what_hooks_in_pytorch_find(model):
    """Of the last block, the last token alone counts."""
    found = layer_norm_blowup(model, CUBE, batch_size=20)
    expected = reference("length/blowup")
    np.testing.assert_allclose(list(found.layers.values()), expected, rtol=1e-4)
    np.testing.assert_allclose(found.product, expected.prod(axis=0), rtol=1e-4)


@pytest.mark.parametrize(("dim", "parameters"), [(128, 199_425), (4, 281)])
def test_parameters_beside_positions_are_the_papers(dim, parameters):
    state = jax.eval_shape(
        lambda: nnx.state(LengthTransformer(bits=3, dim=dim, rngs=nnx.Rngs(0)), nnx.Param)
    )
    sizes = [np.prod(leaf.shape) for path, leaf in nnx.to_flat_state(state) if "pos" not in path[0]]
    assert sum(sizes) == parameters


def test_initial_weights_are_pytorchs():
    dim = SIZES["dim"]
    model = LengthTransformer(**SIZES, rngs=nnx.Rngs(3))
    first, second, _ = model.blocks
    for one, other in zip(*(jax.tree.leaves(nnx.state(b)) for b in (first, second)), strict=True):
        np.testing.assert_array_equal(one, other)
    bounds = {
        (1.5 / dim) ** 0.5: [first.attention.qkv.kernel],
        dim**-0.5: [first.attention.out.kernel, first.up.kernel, first.down.kernel,
                    first.up.bias, first.down.bias, model.head.kernel],
    }  # fmt: skip
    for bound, drawn in bounds.items():
        for weight in drawn:
            values = np.abs(np.asarray(weight[...]))
            assert (0.9 if values.size > 60 else 0.5) * bound < values.max() <= bound
    assert not np.any(first.attention.qkv.bias[...])
    assert not np.any(first.attention.out.bias[...])
    assert 0.5 < np.std(model.positions[...]) < 1.5
    apart = LengthTransformer(**SIZES, independent=True, rngs=nnx.Rngs(3)).blocks
    assert np.any(apart[0].up.kernel[...] != apart[1].up.kernel[...])


def test_the_norm_leaves_positions_out(model):
    arrays = [v for k, v in weights(manifest("length")).items() if "positions" not in k]
    expected = np.sqrt(sum((array.astype(float) ** 2).sum() for array in arrays))
    assert parameter_norm(model, not_positions) == pytest.approx(expected, rel=1e-5)
    assert parameter_norm(model) > expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 0}, "bits is 0: expected a positive integer"),
        ({"dim": 9}, "no two halves"),
        ({"heads": 3}, "does not divide into 3 heads"),
    ],
)
def test_what_cannot_be_built_is_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        LengthTransformer(**{"bits": 4, "dim": 8, **arguments}, rngs=nnx.Rngs(0))


def test_points_are_signs_of_the_right_number(model):
    wrong = CUBE.at[0, 0].set(0.0)
    answers = jax.jit(lambda model, points: model(points))(model, wrong)
    assert np.isnan(np.asarray(answers)).tolist() == [True] + [False] * 31
    with pytest.raises(ValueError, match=r"expected \(N, 5\)"):
        model(CUBE[:, :4])
