"""Modules are put into inference mode wherever they sit, and the caller's stay as they were."""

import collections
import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsens._inference import inference

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


class StochasticDepth(nnx.Module):
    """Reads two flags of its own, which no ``set_view`` knows."""

    def __init__(self, rngs):
        self.deterministic, self.training, self.rngs = False, True, rngs

    def __call__(self, x):
        if not self.deterministic:
            x = x + jax.random.normal(self.rngs.dropout(), x.shape)
        return x + x.mean(0, keepdims=True) if self.training else x


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.path = nnx.List([StochasticDepth(rngs), nnx.Dropout(0.5, rngs=rngs)])
        self.last = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        x = self.norm(self.first(x))
        for layer in self.path:
            x = layer(x)
        return self.last(x)

    @nnx.jit
    def compiled(self, x):
        return self(x)

    def one(self, row):
        return self(row[None])[0]


class Knows(nnx.Module):
    """A child that knows its parent."""

    def __init__(self, net):
        self.net, self.child = net, StochasticDepth(nnx.Rngs(1))
        self.child.parent = self

    def __call__(self, x):
        return self.net(self.child(x))


class Wrapper:
    def __init__(self, net):
        self.nets = {"only": [net]}

    def __call__(self, x):
        return self.nets["only"][0](x)


@nnx.jit
def predict(net, x):
    return net(x)


def reading_globals(net):
    space = {"net": net, "X": X}
    exec(
        "def helper(x):\n    return [net(x) for _ in 'a'][0]\ndef model(x):\n    return helper(x)",
        space,
    )
    return space["model"]


def from_split(net):
    graphdef, state = nnx.split(net)
    return lambda x: nnx.merge(graphdef, state)(x)


def by_default(net):
    def model(x, net=net, *, again=(net,)):
        return net(x) + 0 * again[0](x)

    return model


NNX = {
    "closure": lambda net: lambda x: net(x),
    "closure of a closure": lambda net: (lambda f: lambda x: f(x))(lambda x: net(x)),
    "globals": reading_globals,
    "default argument": by_default,
    "object": Wrapper,
    "closure over an object": lambda net: (lambda o: lambda x: o(x))(Wrapper(net)),
    "jit of a closure": lambda net: jax.jit(lambda x: net(x)),
    "nnx.jit method": lambda net: net.compiled,
    "nnx.jit function": lambda net: lambda x: predict(net, x),
    "partial of it": lambda net: functools.partial(predict, net),
    "Partial of it": lambda net: jax.tree_util.Partial(predict, net),
    "cached_partial of it": lambda net: nnx.cached_partial(predict, net),
    "nnx.jit of a closure": lambda net: nnx.jit(lambda x: net(x)),
    "bound method in a closure": lambda net: (lambda f: lambda x: f(x))(net.__call__),
    "vmap of a method": lambda net: jax.vmap(net.one),
    "remat": lambda net: jax.checkpoint(lambda x: net(x)),
    "split": from_split,
    "child that knows its parent": Knows,
    "in a dictionary": lambda net: (lambda nets: lambda x: nets["a"][0](x))({"a": (net,)}),
}


@pytest.mark.parametrize("kind", NNX)
def test_nnx(kind):
    net = Net(nnx.Rngs(0))
    model = NNX[kind](net)

    def flags():
        return {
            "/".join(map(str, path)): {k: v for k, v in vars(m).items() if isinstance(v, bool)}
            for path, m in nnx.iter_modules(net)
        }  # fmt: skip

    modes, kernel, count = flags(), net.last.kernel[...], net.path[1].rngs.count[...]
    got = jax.jit(lambda x: inference(model)(x))(X)
    by_hand = (X @ net.first.kernel[...] + net.first.bias[...][None]) / np.sqrt(1 + 1e-5)
    by_hand = by_hand @ net.last.kernel[...] + net.last.bias[...][None]
    np.testing.assert_allclose(got, by_hand, rtol=1e-4, atol=1e-5)
    assert flags() == modes
    assert net.last.kernel[...] is kernel
    assert net.path[1].rngs.count[...] is count
    assert net.norm.mean[...].sum() == 0  # not moved by a batch


class Row(eqx.Module):
    """Of single examples; without a key its dropout raises in training mode."""

    linear: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __call__(self, x, key=None):
        return self.dropout(self.linear(x), key=key)


EQUINOX = {
    "jax.vmap": jax.vmap,
    "eqx.filter_vmap": eqx.filter_vmap,
    "filter_jit of filter_vmap": lambda net: eqx.filter_jit(eqx.filter_vmap(net)),
    "filter_vmap of filter_jit": lambda net: eqx.filter_vmap(eqx.filter_jit(net)),
    "filter_jit of a closure": lambda net: eqx.filter_jit(lambda x: jax.vmap(net)(x)),
    "jit of vmap": lambda net: jax.jit(jax.vmap(net)),
    "vmap of a closure": lambda net: jax.vmap(lambda x: net(x)),
    "eqx.Partial": lambda net: eqx.Partial(eqx.filter_vmap(net)),
    "nested": lambda net: eqx.nn.Lambda(eqx.filter_vmap(net)),
}


@pytest.mark.parametrize("kind", EQUINOX)
def test_equinox(kind):
    net = Row(eqx.nn.Linear(4, 3, key=jax.random.key(0)), eqx.nn.Dropout(0.5))
    got = inference(EQUINOX[kind](net))(X)
    np.testing.assert_allclose(got, X @ net.linear.weight.T + net.linear.bias[None], rtol=1e-4)
    assert not net.dropout.inference


class Linen(nn.Module):
    train: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=not self.train)(nn.Dense(5)(x))
        return nn.Dropout(0.5, deterministic=not self.train)(x)


class Outer(nn.Module):
    inner: nn.Module

    def __call__(self, x):
        return 2 * self.inner(x)


def test_linen_flags():
    net = Linen()
    variables = net.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, X)
    want = Linen(train=False).apply(variables, X)
    rngs = {"dropout": jax.random.key(2)}
    for model in (
        net.bind(variables, rngs=rngs),
        jax.tree_util.Partial(net.apply, variables),
        functools.partial(net.apply, variables),
        lambda x: net.apply(variables, x),
    ):
        np.testing.assert_array_equal(inference(model)(X), want)
    outer = Outer(net)
    variables = {name: {"inner": tree} for name, tree in variables.items()}
    np.testing.assert_array_equal(inference(outer.bind(variables))(X), 2 * want)
    assert net.train
    assert outer.inner.train


def test_what_holds_no_module_is_the_same_object():
    seen, state = [], {"w": jnp.ones(4)}

    def model(x):
        seen.append(len(x))
        return x @ state["w"]

    wrapper = Wrapper(model)
    compiled = jax.jit(model)
    for same in (model, wrapper, compiled, functools.partial(model), jnp.sum):
        assert inference(same) is same or isinstance(same, functools.partial)
    recursive = lambda x, n=3: x if n == 0 else recursive(x, n - 1)  # noqa: E731
    assert inference(recursive) is recursive


def test_a_recursive_function_with_a_module():
    net = nnx.Dropout(0.9, rngs=nnx.Rngs(0))

    def model(x, depth=2):
        return net(x) if depth == 0 else model(x, depth - 1)

    np.testing.assert_array_equal(inference(model)(X), X)


@pytest.mark.parametrize("kind", [dict, collections.OrderedDict, "default"])
def test_dictionaries_whose_keys_have_no_order(kind):
    """In a global as in a list: found in their order, of their kind, and their modules predict."""
    kind = functools.partial(collections.defaultdict, list) if kind == "default" else kind
    held = kind({"z": nnx.Dropout(0.5, rngs=nnx.Rngs(0)), 0: [1], None: jnp.ones(2)})
    held["itself"] = held
    same = kind({"z": 1, 0: held[0], None: held[None]})

    def model(x):
        return held["z"](x) + len(same)

    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(model(X), X + 3)
    np.testing.assert_array_equal(inference(model)(X), X + 3)
    (found,) = inference([held])
    assert type(found) is type(held)
    assert list(found) == list(held)
    assert found["z"].deterministic
    assert not held["z"].deterministic
    assert found[None] is held[None]
    assert found[0] is held[0]
    assert inference(same) is same
    if isinstance(found, collections.defaultdict):
        assert found.default_factory is list
