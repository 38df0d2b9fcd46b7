"""The scratchpad of paper B: against PyTorch, and its answers one bit after another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from witnesses.references import (
    assert_gradients,
    load,
    manifest,
    reference,
    weights,
)
from witnesses.scratchpad_case import BITS, NAMES, SHIFT, SIZES, WRITTEN

from jaxsens.models.scratchpad import ScratchpadTransformer, running_parities

POINTS, WRONG = (jnp.asarray(1.0 - 2.0 * bits, jnp.float32) for bits in (BITS, WRITTEN))


@pytest.fixture(scope="module")
def model():
    built = ScratchpadTransformer(**SIZES, rngs=nnx.Rngs(0))
    return load(built, weights(manifest("scratchpad")), NAMES)


@pytest.fixture(scope="module")
def shifted(model):
    moved = nnx.clone(model)
    moved.head.bias[...] = moved.head.bias[...] + SHIFT
    return moved


@pytest.fixture(scope="module")
def written(shifted):
    return np.asarray(jax.jit(lambda model: model.write(POINTS))(shifted))


def test_answers_and_gradients_are_pytorchs(model):
    graphdef, params = nnx.split(model)

    @jax.jit
    def run(params):
        def loss(params):
            answers = nnx.merge(graphdef, params)({"points": POINTS, "written": WRONG})
            return jnp.mean((answers - (1 - running_parities(POINTS)) / 2) ** 2), answers

        (_, answers), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return answers, gradients

    answers, gradients = run(params)
    np.testing.assert_allclose(answers, reference("scratchpad/answers"), rtol=1e-4, atol=1e-5)
    assert_gradients("scratchpad", gradients, NAMES, least=0.01, relative=1e-3)


def test_what_it_writes_is_pytorchs(written):
    """Bits of both kinds among it, so that a bit that is fed back matters."""
    expected = reference("scratchpad/written")
    assert 0.1 < (expected[:, :-1] > 0.5).mean() < 0.9
    np.testing.assert_allclose(written, expected, rtol=1e-4, atol=1e-5)


def test_its_own_bits_as_given_are_answered_as_it_writes_them(shifted, written):
    own = jnp.where(jnp.asarray(written) > 0.5, -1.0, 1.0)
    answers = jax.jit(lambda model, y: model({"points": POINTS, "written": y}))(shifted, own)
    np.testing.assert_allclose(answers, written, rtol=1e-4, atol=1e-5)


def test_running_parities_are_sums_modulo_two():
    expected = np.cumsum(BITS, axis=1) % 2
    np.testing.assert_array_equal((1 - np.asarray(running_parities(POINTS))) / 2, expected)


def test_initial_matrices_are_xaviers():
    dim = 16
    model = ScratchpadTransformer(bits=3, dim=dim, rngs=nnx.Rngs(1))
    for layer in (model.decoder[0].attention, model.decoder[1].cross, model.encoder[0].attention):
        for kernel, bound in (
            (layer.qkv.kernel, (1.5 / dim) ** 0.5),
            (layer.out.kernel, (3 / dim) ** 0.5),
        ):
            assert 0.9 * bound < np.abs(kernel[...]).max() <= bound
        assert not np.any(layer.qkv.bias[...])
        assert not np.any(layer.out.bias[...])
    first, second = model.decoder
    assert np.any(first.up.kernel[...] != second.up.kernel[...])


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
        ScratchpadTransformer(**{"bits": 4, "dim": 8, **arguments}, rngs=nnx.Rngs(0))


def test_strings_of_another_length_are_refused(model):
    with pytest.raises(ValueError, match=r"written have shape \(16, 3\): expected \(N, 4\)"):
        model({"points": POINTS, "written": WRONG[:, :3]})
