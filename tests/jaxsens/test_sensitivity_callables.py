"""Every kind of callable: inference mode, the owner's object untouched, new weights always seen."""

import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsens import Bits, Flip, sensitivity

# Weights of zero decide everything alike, here on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:the model decides")

# Flips rather than Gaussian noise, because a program without random numbers compiles in no time.
X = np.random.default_rng(0).choice([-1, 1], size=(30, 8)).astype(np.float32)
measure = functools.partial(
    sensitivity, inputs=X, key=jax.random.key(0), tokens=Bits(), noise=Flip()
)


class Net(nnx.Module):
    """BatchNorm and Dropout, with statistics far from those of X."""

    def __init__(self, rngs):
        self.first = nnx.Linear(8, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(16, 3, rngs=rngs)
        self.norm.mean[...] = jax.random.normal(rngs.params(), (16,), jnp.float32)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))

    def scaled(self, x, scale=1.0):
        return self(x) * scale


def state_of(model):
    return [np.asarray(a) for a in jax.tree.leaves(jax.tree.map(
        lambda a: jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a,
        nnx.to_pure_dict(nnx.state(model)),
    ))]  # fmt: skip


NNX = {
    "module": lambda m: m,
    "bound method": lambda m: m.scaled,
    "bound __call__": lambda m: m.__call__,
    "functools.partial of it": functools.partial,
    "functools.partial of a method": lambda m: functools.partial(m.scaled, scale=2.0),
    "Partial of it": jax.tree_util.Partial,
    "Partial of a method": lambda m: jax.tree_util.Partial(m.scaled, scale=jnp.float32(2)),
    "argument of a Partial": lambda m: jax.tree_util.Partial(Net.__call__, m),
    "argument of a functools.partial": lambda m: functools.partial(Net.__call__, m),
    "inside a Sequential": lambda m: nnx.Sequential(m, lambda logits: 2 * logits),
    "inside an equinox module": lambda m: Wrapped(m),
}


class Wrapped(eqx.Module):
    inner: nnx.Module

    def __call__(self, x):
        return self.inner(x)


@pytest.mark.parametrize("kind", NNX)
def test_nnx_left_in_training_mode(kind):
    """As the same model in inference mode, with its owner's modes, statistics, counts as before."""
    model = Net(nnx.Rngs(0))
    before, modes = state_of(model), (model.norm.use_running_average, model.dropout.deterministic)
    assert modes == (False, False)
    callable_ = NNX[kind](model)

    def expected():
        return measure(
            nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)
        )

    first = measure(callable_)
    np.testing.assert_array_equal(first.rates, expected().rates)
    assert 0 < first.value < 1
    for a, b in zip(before, state_of(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (model.norm.use_running_average, model.dropout.deterministic) == modes
    # An update in place, as an optimiser does it.
    model.last.kernel[...] = jnp.zeros_like(model.last.kernel[...])
    model.last.bias[...] = jnp.arange(3, dtype=jnp.float32)
    assert measure(callable_).value == 0
    model.last.bias[...] = jnp.zeros(3, jnp.float32)
    model.last.kernel[...] = jax.random.normal(jax.random.key(9), (16, 3), jnp.float32)
    changed = measure(callable_)
    np.testing.assert_array_equal(changed.rates, expected().rates)
    assert (changed.rates != first.rates).any()


def test_nnx_module_that_is_no_pytree():
    class Opaque(nnx.Module, pytree=False):
        def __init__(self, rngs):
            self.net = Net(rngs)

        def __call__(self, x):
            return self.net(x)

    model = Opaque(nnx.Rngs(0))
    expected = measure(model.net)
    for callable_ in (model, model.__call__):
        np.testing.assert_array_equal(measure(callable_).rates, expected.rates)
    model.net.last.kernel[...] = jnp.zeros((16, 3), jnp.float32)
    for callable_ in (model, model.__call__):
        assert measure(callable_).value == 0


def test_nnx_with_tied_weights():
    class Tied(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Linear(8, 8, rngs=rngs)
            self.b = self.a

        def __call__(self, x):
            return self.b(nnx.relu(self.a(x)))

    model = Tied(nnx.Rngs(0))
    w, b = model.a.kernel[...], model.a.bias[...]
    by_hand = measure(lambda x: jax.nn.relu(x @ w + b[None]) @ w + b[None])
    np.testing.assert_array_equal(measure(model).rates, by_hand.rates)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(16)(x))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(nn.relu(x)))


@pytest.mark.parametrize("partial", [jax.tree_util.Partial, functools.partial])
def test_linen(partial):
    module = Linen()
    variables = module.init(jax.random.key(0), X)
    est = measure(partial(module.apply, variables))
    np.testing.assert_array_equal(
        est.rates, measure(lambda x: module.apply(variables, x)).rates
    )  # fmt: skip
    assert 0 < est.value < 1
    other = jax.tree.map(jnp.zeros_like, variables)
    assert measure(partial(module.apply, other)).value == 0
    variables["params"]["Dense_1"]["kernel"] = jnp.zeros((16, 3))  # the very object handed in
    assert measure(partial(module.apply, variables)).value == 0


class Equinox(eqx.Module):
    """Written for one example, as equinox modules are, and vmapped inside its own call."""

    layers: list
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        keys = jax.random.split(key)
        self.layers = [eqx.nn.Linear(8, 16, key=keys[0]), eqx.nn.Linear(16, 3, key=keys[1])]
        self.dropout = eqx.nn.Dropout(0.5)

    def one(self, x):
        return self.layers[1](self.dropout(jax.nn.relu(self.layers[0](x))))

    def __call__(self, x):
        return jax.vmap(self.one)(x)


def test_equinox():
    model = Equinox(jax.random.key(0))
    assert not model.dropout.inference
    est = measure(model)
    np.testing.assert_array_equal(est.rates, measure(eqx.nn.inference_mode(model)).rates)
    np.testing.assert_array_equal(est.rates, measure(model.__call__).rates)
    np.testing.assert_array_equal(est.rates, measure(functools.partial(model)).rates)
    assert 0 < est.value < 1
    assert not model.dropout.inference
    weight = lambda m: (m.layers[1].weight, m.layers[1].bias)  # noqa: E731
    updated = eqx.tree_at(weight, model, (jnp.zeros((3, 16)), jnp.arange(3.0)))
    for callable_ in (updated, updated.__call__, functools.partial(updated)):
        assert measure(callable_).value == 0


class Plain:
    """Neither a pytree nor a function. The attribute is a name equinox looks for."""

    inference = False

    def __init__(self):
        self.w = jnp.asarray(np.random.default_rng(1).normal(size=8), jnp.float32)

    def __call__(self, x):
        return x @ self.w

    def shifted(self, shift, x):
        return self(x) + shift


WEIGHTS = Plain()
HIDDEN = {
    "closure": lambda owner: lambda x: owner(x),
    "object": lambda owner: owner,
    "bound method": lambda owner: owner.__call__,
    "functools.partial of a method": lambda o: functools.partial(o.shifted, jnp.float32(0)),
    "Partial of a method": lambda o: jax.tree_util.Partial(o.shifted, jnp.float32(0)),
    "Partial of an object": lambda o: jax.tree_util.Partial(o),
    "functools.partial of a closure": lambda o: functools.partial(
        lambda shift, x: o(x) + shift, jnp.float32(0)
    ),
    "nested functools.partial": lambda o: functools.partial(
        functools.partial(o.shifted, jnp.float32(0))
    ),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_hidden_weights_that_change(kind):
    """What no pytree shows must be looked at again on every call."""
    owner = Plain()
    callable_ = HIDDEN[kind](owner)
    first = measure(callable_)
    np.testing.assert_array_equal(
        first.rates, measure(jax.tree_util.Partial(lambda w, x: x @ w, owner.w)).rates
    )
    assert 0 < first.value < 1
    owner.w = jnp.zeros(8)
    assert measure(callable_).value == 0


class HalvedTokens:
    """The two halves of a sequence. No pytree, no base class: the documented members alone."""

    shared = False

    def __init__(self, real=(True, True)):
        self.real = real

    def count(self, shape):
        return 2

    def valid(self, shape):
        return np.tile(self.real, (shape[0], 1))

    def replace(self, example, token, noise, shared_key):
        half = example.reshape(2, -1)
        return half.at[token].set(noise(half[token])).reshape(-1)


class Negation:
    """A deterministic noise with a setting that may change."""

    deterministic = True

    def __init__(self, scale):
        self.scale = scale

    def check(self, inputs):
        if not np.issubdtype(inputs.dtype, np.floating):
            raise TypeError("Negation needs floats")

    def __call__(self, token, *, key):
        return -self.scale * token


def test_tokens_and_noise_of_ones_own():
    w = np.random.default_rng(1).normal(size=8).astype(np.float32)
    model = jax.tree_util.Partial(lambda w, x: x @ w, w)
    tokens, noise = HalvedTokens(), Negation(1.0)
    one = functools.partial(sensitivity, model, X, key=jax.random.key(0))
    est = one(tokens=tokens, noise=noise)
    halves = (X * w).reshape(30, 2, 4).sum(2)
    for t in range(2):
        flipped = np.sign(halves.sum(1)) != np.sign(halves.sum(1) - 2 * halves[:, t])
        np.testing.assert_array_equal(est.rates[:, t], flipped)
    assert est.forward_passes == 30 * 3
    noise.scale = -1.0  # the identity: a program compiled for the other setting must not be used
    assert one(tokens=tokens, noise=noise).value == 0
    tokens.real, noise.scale = (True, False), 1.0
    again = one(tokens=tokens, noise=noise)
    np.testing.assert_array_equal(again.rates[:, 0], est.rates[:, 0])
    assert np.isnan(again.rates[:, 1]).all()
    with pytest.raises(TypeError, match=r"^Negation needs floats$"):
        sensitivity(model, X > 0, key=jax.random.key(0), tokens=tokens, noise=noise)
