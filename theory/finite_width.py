r"""The network of an `Architecture` at finite width, in Flax, and its empirical kernels.

Width n means n channels, n heads of width n and n hidden units, every parameter N(0, 1) and scaled
in the forward pass by (fan_in)^(-1/2) (the NTK parameterisation, so that plain gradient descent
moves the function as the NTK says). As n grows, one draw's empirical CK and NTK converge to
`theory.recursion.ck_ntk` with a relative error of order n^(-1/2): the third witness, which shares
no formula with the other two. An attention layer has 4 n³ parameters, so n is 16 to 256.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float64

from .architecture import Architecture
from .recursion import ck_ntk

ACTIVATIONS = {
    "relu": nnx.relu,
    "erf": jax.scipy.special.erf,
    "gelu": partial(nnx.gelu, approximate=False),
}


def _normal(rngs: nnx.Rngs, *shape: int) -> nnx.Param:
    return nnx.Param(jax.random.normal(rngs.params(), shape))


class Dense(nnx.Module):
    """z W / sqrt(fan_in) + bias b on the last axis."""

    def __init__(self, inputs: int, outputs: int, bias: float, *, rngs: nnx.Rngs) -> None:
        self.bias = bias
        self.w = _normal(rngs, inputs, outputs)
        self.b = _normal(rngs, outputs) if bias else None

    def __call__(self, z: Float[Array, "... i"]) -> Float[Array, "... o"]:
        out = z @ self.w[...] / len(self.w) ** 0.5
        return out if self.b is None else out + self.bias * jnp.broadcast_to(self.b[...], out.shape)


class Attention(nnx.Module):
    """sum over heads of G V W_O with G = Q K^T / sqrt(head width), or its softmax."""

    def __init__(
        self, inputs: int, width: int, heads: int, head_width: int, softmax: bool, *, rngs: nnx.Rngs
    ) -> None:
        self.softmax = softmax
        self.query = _normal(rngs, heads, inputs, head_width)
        self.key = _normal(rngs, heads, inputs, head_width)
        self.value = _normal(rngs, heads, inputs, head_width)
        self.output = _normal(rngs, heads, head_width, width)

    def __call__(self, z: Float[Array, "N T i"]) -> Float[Array, "N T o"]:
        heads, inputs, head_width = self.query.shape

        def project(w: nnx.Param) -> Float[Array, "N h T k"]:
            return jnp.einsum("nti,hik->nhtk", z, w[...]) / inputs**0.5

        scores = jnp.einsum("nhak,nhbk->nhab", project(self.query), project(self.key))
        scores = scores / head_width**0.5
        if self.softmax:
            scores = nnx.softmax(scores, axis=-1)
        mixed = jnp.einsum("nhab,nhbk->nhak", scores, project(self.value))
        # Without the outer division each head would add a unit of variance.
        return jnp.einsum("nhak,hko->nao", mixed, self.output[...]) / (heads * head_width) ** 0.5


class MLP(nnx.Module):
    """Dense, activation and, unless the network is a plain MLP, a closing Dense."""

    def __init__(self, architecture: Architecture, inputs: int, width: int, *, rngs: nnx.Rngs):
        self.activation = architecture.mlp
        self.opening = Dense(inputs, width, architecture.bias, rngs=rngs)
        closing = None if architecture.plain_mlp else (width, width, architecture.bias)
        self.closing = None if closing is None else Dense(*closing, rngs=rngs)

    def __call__(self, z: Float[Array, "N T i"]) -> Float[Array, "N T o"]:
        z = ACTIVATIONS[self.activation](self.opening(z))
        return z if self.closing is None else self.closing(z)


def layer_norm(z: Float[Array, "... n"]) -> Float[Array, "... n"]:
    """Mean 0 and variance 1 over the channels, without gain, shift or epsilon."""
    z = z - z.mean(-1, keepdims=True)
    return z / jnp.sqrt(jnp.mean(z**2, -1, keepdims=True))


class Network(nnx.Module):
    """f: ±1 points (N, d) to real outputs (N,). See `Architecture` for the layers.

    `width` channels and hidden units; `heads` heads of width `head_width`, both `width` unless
    given. `softmax=True` puts softmax over the scores of every attention layer (its limit kernels:
    `theory.softmax`). Raises ValueError when T does not divide d or a size is not positive.
    """

    def __init__(
        self,
        architecture: Architecture,
        d: int,
        width: int,
        *,
        heads: int | None = None,
        head_width: int | None = None,
        softmax: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        heads = width if heads is None else heads
        head_width = width if head_width is None else head_width
        if min(width, heads, head_width) < 1:
            raise ValueError(
                "width, heads and head_width must be at least 1, "
                f"got {width}, {heads} and {head_width}"
            )
        if softmax and architecture.attention == "none":
            raise ValueError("softmax=True needs attention='linear' in the architecture")
        channels = architecture.check(d)
        self.architecture = architecture
        embedding = (channels, width, architecture.bias) if architecture.embedding else None
        self.embedding = None if embedding is None else Dense(*embedding, rngs=rngs)
        channels = channels if embedding is None else width
        table = (architecture.tokens, width) if architecture.positions else None
        self.positions = None if table is None else _normal(rngs, *table)
        sublayers = []
        for _ in range(architecture.depth):
            if architecture.attention == "linear":
                sizes = (channels, width, heads, head_width, softmax)
                sublayers.append(Attention(*sizes, rngs=rngs))
                channels = width
            if architecture.mlp != "none":
                sublayers.append(MLP(architecture, channels, width, rngs=rngs))
                channels = width
        self.sublayers = nnx.List(sublayers)
        fan_in = channels * (architecture.tokens if architecture.readout == "flatten" else 1)
        self.readout = Dense(fan_in, 1, architecture.bias, rngs=rngs)

    def features(self, x: Float[Array, "N d"]) -> Float[Array, "N F"]:
        """What the readout's Dense sees."""
        a = self.architecture
        z = x.reshape(len(x), a.tokens, -1)
        if self.embedding is not None:
            z = self.embedding(z)
        if self.positions is not None:
            z = z + a.positions * jnp.broadcast_to(self.positions[...], z.shape)
        for sublayer in self.sublayers:
            out = sublayer(layer_norm(z) if a.layer_norm == "pre" else z)
            z = z + out if a.residual else out
            z = layer_norm(z) if a.layer_norm == "post" else z
        if a.layer_norm == "pre":
            z = layer_norm(z)
        if a.readout == "flatten":
            return z.reshape(len(x), -1)
        return z.mean(1) if a.readout == "mean" else z[:, -1]

    def __call__(self, x: Float[Array, "N d"]) -> Float[Array, " N"]:
        return self.readout(self.features(x))[:, 0]


@jax.jit
def empirical_ck(network: Network, x: Float[Array, "n d"]) -> Float[Array, "n n"]:
    """<features(x), features(y)> / fan_in + bias²: E[f(x) f(y)] over the readout weights alone."""
    z = network.features(x)
    return z @ z.T / z.shape[1] + network.architecture.bias**2


@jax.jit
def empirical_ntk(network: Network, x: Float[Array, "n d"]) -> Float[Array, "n n"]:
    """<grad f(x), grad f(y)> over every parameter: a pullback, then a pushforward.

    One row of parameters at a time, so memory is one gradient and not n of them.
    """
    graph, parameters = nnx.split(network)

    def f(parameters: nnx.State) -> Float[Array, " n"]:
        return nnx.merge(graph, parameters)(x)

    _, pullback = jax.vjp(f, parameters)

    def row(e: Float[Array, " n"]) -> Float[Array, " n"]:
        return jax.jvp(f, (parameters,), pullback(e))[1]

    return jax.lax.map(row, jnp.eye(len(x)))


def kernel_errors(
    architecture: Architecture,
    x: Float[np.ndarray, "n d"],
    *,
    widths: tuple[int, ...],
    seeds: int,
    key: Array,
) -> tuple[Float64[np.ndarray, "widths seeds"], Float64[np.ndarray, "widths seeds"]]:
    """Relative Frobenius distance of one draw's CK and NTK from the limit, per width and seed."""
    limits = ck_ntk(architecture, x, x)
    points = jnp.asarray(x, jnp.float32)
    errors = np.empty((2, len(widths), seeds))
    for i, width in enumerate(widths):
        keys = jax.random.split(jax.random.fold_in(key, width), seeds)
        # One draw at a time: an attention layer has 4 width³ parameters.
        draws = jax.lax.map(partial(_empirical, architecture, width, points), keys)
        for k in range(2):
            difference = np.asarray(draws[k], np.float64) - limits[k]
            errors[k, i] = np.linalg.norm(difference, axis=(1, 2)) / np.linalg.norm(limits[k])
    return errors[0], errors[1]


@partial(jax.jit, static_argnums=(0, 1))
def _empirical(
    architecture: Architecture, width: int, x: Float[Array, "n d"], key: Array
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    network = Network(architecture, x.shape[1], width, rngs=nnx.Rngs(params=key))
    return empirical_ck(network, x), empirical_ntk(network, x)


def fitted_slope(
    widths: tuple[int, ...], errors: Float64[np.ndarray, "widths seeds"]
) -> tuple[float, float]:
    """Slope of log rms error against log width, and its standard error over the seeds.

    The standard error is the jackknife over seeds: the slope refitted without each in turn.
    """

    def slope(e: Float64[np.ndarray, "widths seeds"]) -> float:
        rms = np.sqrt(np.mean(e**2, axis=1))
        return float(np.polyfit(np.log(widths), np.log(rms), 1)[0])

    seeds = errors.shape[1]
    if seeds < 2 or len(widths) < 2:
        raise ValueError(
            f"a slope with an error needs two widths and two seeds, got {len(widths)} and {seeds}"
        )
    without = np.array([slope(np.delete(errors, j, axis=1)) for j in range(seeds)])
    spread = np.sqrt((seeds - 1) * np.mean((without - without.mean()) ** 2))
    return slope(errors), float(spread)
