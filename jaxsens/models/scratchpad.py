"""The encoder-decoder that writes PARITY down bit by bit, paper B's scratchpad (Fig. 11)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxsens.models.layers import (
    ZEROS,
    Attention,
    Block,
    Rngs,
    Start,
    check_sizes,
    layer_norm,
    linear,
    xavier_uniform,
)

BEGIN = 2  # the token in front of what is written
START = Start(xavier_uniform, xavier_uniform, xavier_uniform, xavier_uniform, attention_bias=ZEROS)


class DecoderBlock(nnx.Module):
    """Attention to what is written, then to the encoder's answers, then an MLP, all post-norm.

    ::

        x <- norm1(x + A(x)),  x <- norm2(x + B(x, memory)),  x <- norm3(x + W2 relu(W1 x))

    A is causal. Biases of the MLP are U(±fan_in^-1/2).
    """

    def __init__(self, dim: int, *, heads: int, rngs: nnx.Rngs) -> None:
        def attention(*, causal: bool) -> Attention:
            return Attention(
                dim,
                heads=heads,
                causal=causal,
                kernel_init=xavier_uniform,
                bias_init=ZEROS,
                out_init=xavier_uniform,
                rngs=rngs,
            )

        self.attention, self.cross = attention(causal=True), attention(causal=False)
        self.norm1, self.norm2, self.norm3 = (
            layer_norm(dim, rngs=rngs, dtype=jnp.float32) for _ in range(3)
        )
        self.up, self.down = (
            linear(dim, dim, kernel_init=xavier_uniform, rngs=rngs, dtype=jnp.float32)
            for _ in range(2)
        )

    def __call__(
        self, x: Float[Array, "n t d"], memory: Float[Array, "n s d"]
    ) -> Float[Array, "n t d"]:
        x = self.norm1(x + self.attention(x))
        x = self.norm2(x + self.cross(x, memory=memory))
        return self.norm3(x + self.down(jax.nn.relu(self.up(x))))


class ScratchpadTransformer(nnx.Module):
    """n numbers for each string of n bits, the i-th from the string and i - 1 written bits.

    ::

        m = norm(encoder([E[bit i], P_i])),   x_1 = [E[2], P_1],  x_i = [E[written i-1], P_i]
        f_i = w . norm(decoder(x, m))_i + b

    ``model({"points": x, "written": y})`` is teacher forcing: y are the right bits, of which the
    last is not looked at. ``write(x)`` feeds each answer, 1 where it is above 1/2, back in. Both
    strings are points (N, n), +1 for bit 0 and -1 for bit 1, and any other number gives NaN; the
    answers are (N, n), float32, on the scale of labels 0 and 1.

    Encoder and decoder have ``depth`` post-norm blocks each with an MLP as wide as the network, and
    share the embeddings, E and P ~ N(0, 1). Matrices are Xavier-uniform, that of W_Q, W_K, W_V as
    one; attention's biases are 0, all other U(±fan_in^-1/2), as is the head.

    Raises TypeError or ValueError unless all sizes are positive integers, dim is even and divides
    into heads.
    """

    def __init__(
        self, *, bits: int, dim: int = 32, heads: int = 2, depth: int = 2, rngs: nnx.Rngs
    ) -> None:
        check_sizes(bits=bits, dim=dim, heads=heads, depth=depth)
        if dim % 2:
            raise ValueError(f"dim {dim} has no two halves, of token and position: expected even")
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads: expected a multiple")
        self.bits = bits
        self.tokens = nnx.Param(jax.random.normal(rngs.params(), (3, dim // 2)))
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (bits, dim // 2)))
        self.encoder = nnx.List(
            [
                Block(
                    dim,
                    heads=heads,
                    mlp_dim=dim,
                    norm="post",
                    activation="relu",
                    start=START,
                    rngs=rngs,
                )
                for _ in range(depth)
            ]
        )
        self.encoder_norm = layer_norm(dim, rngs=rngs, dtype=jnp.float32)
        self.decoder = nnx.List([DecoderBlock(dim, heads=heads, rngs=rngs) for _ in range(depth)])
        self.decoder_norm = layer_norm(dim, rngs=rngs, dtype=jnp.float32)
        self.head = linear(dim, 1, rngs=rngs, dtype=jnp.float32)

    def __call__(self, inputs: Mapping[str, Array], *, rngs: Rngs = None) -> Float[Array, "N n"]:
        points, written = inputs["points"], inputs["written"]
        self._check("points", points)
        self._check("written", written)
        answers = self.decode(_bits(written), self.encode(points))
        known = (abs(points) == 1).all(axis=1) & (abs(written) == 1).all(axis=1)
        return jnp.where(known[:, None], answers, jnp.nan)

    def encode(self, points: Float[Array, "N n"]) -> Float[Array, "N n d"]:
        """What the decoder is told of the string."""
        x = self._embed(_bits(points))
        for block in self.encoder:
            x = block(x)
        return self.encoder_norm(x)

    def decode(
        self, written: Int[Array, "N n"], memory: Float[Array, "N n d"]
    ) -> Float[Array, "N n"]:
        """The answers, the i-th from the first i - 1 of the bits ``written`` (0 or 1)."""
        x = self._embed(jnp.pad(written[:, :-1], ((0, 0), (1, 0)), constant_values=BEGIN))
        for block in self.decoder:
            x = block(x, memory)
        return self.head(self.decoder_norm(x))[..., 0]

    def write(self, points: Float[Array, "N n"]) -> Float[Array, "N n"]:
        """The answers where each is read by the ones after it, as a network runs by itself."""
        self._check("points", points)
        memory = self.encode(points)

        def step(i: Array, answers: Array) -> Array:
            found = self.decode((answers > 0.5).astype(jnp.int32), memory)
            return answers.at[:, i].set(found[:, i])

        answers = jax.lax.fori_loop(0, self.bits, step, jnp.zeros(points.shape, jnp.float32))
        return jnp.where((abs(points) == 1).all(axis=1)[:, None], answers, jnp.nan)

    def _embed(self, ids: Int[Array, "N n"]) -> Float[Array, "N n d"]:
        positions = jnp.broadcast_to(self.positions[...][None], (len(ids), *self.positions.shape))
        return jnp.concatenate([self.tokens[...][ids], positions], axis=-1)

    def _check(self, name: str, given: Array) -> None:
        if given.ndim != 2 or given.shape[1] != self.bits:
            raise ValueError(f"{name} have shape {given.shape}: expected (N, {self.bits})")


def _bits(points: Float[Array, "N n"]) -> Int[Array, "N n"]:
    return (points < 0).astype(jnp.int32)


def running_parities(points: Float[Array, "N n"]) -> Float[Array, "N n"]:
    """The parity of the first i bits for i = 1..n, as points: +1 for 0 and -1 for 1."""
    return jnp.cumprod(points, axis=1)
