"""Layer-norm blow-up: how much LayerNorm magnifies what it is given (paper B, Section 3)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from jaxsens._inference import inference
from jaxsens.models.intermediates import with_intermediates

# read(name of the layer) -> which tokens of its input count, None for all
Rows = Callable[[str], slice | None]


@dataclasses.dataclass(frozen=True, eq=False)
class Blowup:
    """The blow-up of each LayerNorm by its name, at each of N inputs: the largest of its tokens."""

    layers: Mapping[str, Float[np.ndarray, " N"]]

    @property
    def product(self) -> Float[np.ndarray, " N"]:
        """The product over layers: what the authors' code records."""
        return np.prod(list(self.layers.values()), axis=0)

    @property
    def bound(self) -> Float[np.ndarray, " N"]:
        """prod (1 + blow-up of the layer), the quantity of Theorem 4, never below 1."""
        return np.prod([1 + values for values in self.layers.values()], axis=0)

    @property
    def value(self) -> float:
        """The mean product over the inputs."""
        return float(self.product.mean())

    @property
    def stderr(self) -> float:
        """Standard error of :attr:`value` over the inputs, NaN with one."""
        values = self.product
        return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def layer_norm_blowup(
    call: Any,
    inputs: Any,
    *,
    rows: Rows = lambda name: None,
    of: type[nnx.Module] = nnx.LayerNorm,
    batch_size: int = 512,
) -> Blowup:
    """1 / std of the input of every LayerNorm, the largest over tokens, at each of N inputs.

    ::

        B_l(x) = max_t 1 / std(y_t),   y_t the input of LayerNorm l at token t

    with the unbiased std over features (ddof 1), without epsilon, as the authors' code has it; inf
    where the features are all alike. ``call`` is a flax.nnx module, or a method of one, put into
    inference mode. ``rows(name)`` narrows the tokens that count: of the last layer's norms, paper B
    takes the position that is read alone (`LengthTransformer` computes no other).

    Raises TypeError or ValueError where there is no module, or no such layer in it, or one whose
    input has not a row for each of the inputs (a `BitTransformer`'s; its `by_token` has).
    """
    model, method = call, "__call__"
    if hasattr(call, "__func__"):
        model, method = call.__self__, call.__name__
    graphdef, state = nnx.split(inference(model))
    count = len(jax.tree.leaves(inputs)[0])
    parts = []
    for start in range(0, count, batch_size):
        # The last part starts early enough to be whole: one program, and repeats are cut off.
        first = max(0, min(start, count - batch_size))
        taken = jax.tree.map(lambda leaf, i=first: leaf[i : i + batch_size], inputs)
        found = _inverse_deviations(graphdef, method, of, state, taken)
        for name, values in found.items():
            if values.shape[:1] != (min(batch_size, count),):
                raise ValueError(
                    f"layer {name} is given {values.shape[0] if values.ndim else 1} rows for "
                    f"{min(batch_size, count)} inputs: its blow-up at each input is not known; "
                    "expected a layer whose first axis is the inputs'. Of a BitTransformer, pass "
                    "its method by_token"
                )
        parts.append({name: np.asarray(v)[start - first :] for name, v in found.items()})
    return Blowup({name: _largest(name, [part[name] for part in parts], rows) for name in parts[0]})


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _inverse_deviations(
    graphdef: Any, method: str, of: type[nnx.Module], state: Any, inputs: Any
) -> dict[str, Array]:
    model = nnx.merge(graphdef, state)
    call = model if method == "__call__" else getattr(model, method)
    _, found = with_intermediates(call, inputs, of=of)
    return {name: 1 / jnp.std(x.astype(jnp.float32), axis=-1, ddof=1) for name, x in found.items()}


def _largest(name: str, parts: Sequence[np.ndarray], rows: Rows) -> np.ndarray:
    values = np.concatenate(parts).astype(np.float64)
    if values.ndim == 1:
        return values
    chosen = rows(name)
    values = values if chosen is None else values[:, chosen]
    return values.reshape(len(values), -1).max(axis=1)
