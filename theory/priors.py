r"""The sensitivity profile of randomly initialised networks: before any training, who is simple?

A network f on {±1}^d is read as the Boolean function sign(f); its profile is the distribution over
inputs x of S(f, x), the number of bit flips that change the sign (Koever et al. 2026 take the whole
distribution; Bhattamishra et al. 2023 and the paper its mean). Each seed is one network; the spread
over seeds is what the error bars show. Inputs: the whole cube where 2^d <= `points`, else a uniform
sample, the same for every network.

Families, of comparable size at `width`, `depth`; all see x as d tokens of one bit:

- linear-attention and softmax-attention transformer (`finite_width.Network`): token and position
  embeddings, residual, pre-LayerNorm, GELU MLP, mean or last-token readout;
- MLP on the whole input, GELU, `depth` hidden layers;
- LSTM (flax.nnx cells, LeCun-normal inputs, orthogonal recurrences, zero biases), `depth` layers,
  last hidden state. `lstm-uniform` draws every parameter from U(-width^(-1/2), width^(-1/2))
  instead, PyTorch's default, since an LSTM's sensitivity depends on how it starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float64, Int, Key

from jaxsens import boolean
from jaxsens.measures.bits import sensitivity_counts
from jaxsens.models.lstm import BitLSTM as LSTM

from .architecture import Architecture
from .finite_width import Network

FAMILIES = ("linear-transformer", "softmax-transformer", "mlp", "lstm", "lstm-uniform")


@dataclass(frozen=True)
class Profile:
    """Sensitivity of `seeds` random networks of one family on {±1}^d."""

    family: str
    d: int
    profiles: Float64[np.ndarray, "seeds d+1"]  # fraction of inputs with S(f, x) = s
    bias: Float64[np.ndarray, " seeds"]  # |E_x sign f(x)|: 1 for a constant function

    @property
    def sensitivity(self) -> Float64[np.ndarray, " seeds"]:
        """S(f) / d of each network."""
        return self.profiles @ np.arange(self.d + 1) / self.d

    @property
    def mean(self) -> float:
        """Mean over networks of S(f) / d."""
        return float(self.sensitivity.mean())

    @property
    def stderr(self) -> float:
        """Standard error of `mean` over seeds; nan for one seed."""
        seeds = len(self.profiles)
        return float(self.sensitivity.std(ddof=1) / seeds**0.5) if seeds > 1 else float("nan")

    @property
    def mean_profile(self) -> Float64[np.ndarray, " d+1"]:
        """Profile averaged over networks."""
        return self.profiles.mean(0)

    @property
    def stderr_profile(self) -> Float64[np.ndarray, " d+1"]:
        """Standard error over seeds of each entry of `mean_profile`; nan for one seed."""
        seeds = len(self.profiles)
        if seeds == 1:
            return np.full(self.d + 1, np.nan)
        return self.profiles.std(0, ddof=1) / seeds**0.5


def sensitivity_profile(
    family: str,
    d: int,
    *,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    readout: str = "last",
    seeds: int = 32,
    points: int = 1024,
    centred: bool = False,
    key: Array,
) -> Profile:
    """Profile of `seeds` random networks; about seeds x points x (d+1) forward passes.

    `heads` (of width `width` / `heads`) and `readout` ("mean" or "last") concern transformers.
    `centred` decides at each network's median output instead of at 0: every function is balanced,
    and what remains is how it varies, not how large its constant part is.
    Raises ValueError for an unknown family, for sizes that do not fit, and where outputs are NaN.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}: expected one of {', '.join(FAMILIES)}")
    for name, value in {"d": d, "width": width, "depth": depth, "heads": heads}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if seeds < 1 or points < 1:
        raise ValueError(f"seeds and points must be at least 1, got {seeds} and {points}")
    if width % heads:
        raise ValueError(f"heads must divide width, got heads = {heads}, width = {width}")
    x_key, key = jax.random.split(key)
    if 2**d <= points:
        x = boolean.cube(d)
    else:
        x = jax.random.rademacher(x_key, (points, d), jnp.float32)
    sizes = (family, width, depth, heads, readout)
    counts, signs = _sensitivities(sizes, centred, x, jax.random.split(key, seeds))
    counts = np.asarray(counts)
    if (counts < 0).any():
        raise ValueError(f"outputs of the {family} networks are NaN: lower the width or the depth")
    profiles = np.stack([np.bincount(row, minlength=d + 1) for row in counts]) / len(x)
    return Profile(family, d, profiles, np.abs(np.asarray(signs, np.float64).mean(1)))


@partial(jax.jit, static_argnums=0)
def _sensitivities(
    sizes: tuple[str, int, int, int, str],
    centred: bool | Bool[Array, ""],
    x: Float[Array, "N d"],
    keys: Key[Array, " seeds"],
) -> tuple[Int[Array, "seeds N"], Int[Array, "seeds N"]]:
    """S(f, x), -1 where outputs are NaN, and sign f(x), one draw of the network after another."""

    def draw(key: Key[Array, ""]) -> tuple[Int[Array, " N"], Int[Array, " N"]]:
        network = _network(sizes, x.shape[1], nnx.Rngs(key))
        threshold = jnp.where(centred, jnp.median(network(x)), 0.0)
        counts, above = sensitivity_counts(lambda points: network(points) - threshold, x)
        return counts, jnp.where(above, 1, -1)

    return jax.lax.map(draw, keys)


def _network(sizes: tuple[str, int, int, int, str], d: int, rngs: nnx.Rngs) -> nnx.Module:
    family, width, depth, heads, readout = sizes
    if family.startswith("lstm"):
        return LSTM(width, depth, uniform=family == "lstm-uniform", rngs=rngs)
    if family == "mlp":
        return Network(Architecture(attention="none", mlp="gelu", depth=depth), d, width, rngs=rngs)
    transformer = Architecture(
        tokens=d,
        depth=depth,
        mlp="gelu",
        positions=1.0,
        residual=True,
        layer_norm="pre",
        readout=readout,
    )
    softmax = family == "softmax-transformer"
    return Network(
        transformer, d, width, heads=heads, head_width=width // heads, softmax=softmax, rngs=rngs
    )
