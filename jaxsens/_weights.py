"""The weights inside a model, noise on them, and the error of a mean over draws and examples."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Shaped

Kind = Literal["std", "relative", "norm", "sphere"]
# where(path, array) -> is this array one of the weights to be nudged?
Where = Callable[[str, Array], bool]


class Weights:
    """A model apart from those of its arrays that are nudged.

    These are the floating-point arrays for which ``where(path, array)`` is true; of a flax module
    only parameters, never the running statistics of a normalisation layer (the collection
    ``batch_stats`` in linen). ``path`` joins names by dots, as in ``layers.0.kernel``.
    Raises ValueError where there are none.
    """

    def __init__(self, model: Any, where: Where | None = None) -> None:
        is_variable = lambda node: isinstance(node, nnx.Variable)  # noqa: E731
        nodes, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=is_variable)
        chosen: list[bool] = []
        self.paths: list[str] = []
        for path, node in nodes:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            for leaf in jax.tree.leaves(node):
                found = (
                    isinstance(leaf, jax.Array | np.ndarray)
                    and jnp.issubdtype(leaf.dtype, jnp.floating)
                    and (not is_variable(node) or isinstance(node, nnx.Param))
                    and "batch_stats" not in name.split(".")
                    and (where is None or bool(where(name, jnp.asarray(leaf))))
                )
                chosen.append(found)
                self.paths += [name] if found else []
        self.chosen, self._model = tuple(chosen), model
        leaves = zip(jax.tree.leaves(model), chosen, strict=True)
        self.arrays = [jnp.asarray(leaf) for leaf, is_one in leaves if is_one]
        if not self.arrays:
            raise ValueError(
                "the model has no weights to nudge: pass a pytree that shows them, such as a flax "
                "or equinox module or jax.tree_util.Partial(module.apply, variables), and a "
                "`where` that some of them meet"
            )

    @property
    def count(self) -> int:
        """How many numbers the weights are."""
        return sum(array.size for array in self.arrays)

    def model(self, arrays: list[Array]) -> Any:
        """The model with these arrays in place of its own."""
        return with_weights(self._model, self.chosen, arrays)


def with_weights(model: Any, chosen: tuple[bool, ...], arrays: list[Array]) -> Any:
    """The model with these arrays in the place of its leaves that are chosen."""
    leaves, treedef = jax.tree.flatten(model)
    given = iter(arrays)
    return jax.tree.unflatten(
        treedef, [next(given) if c else leaf for leaf, c in zip(leaves, chosen, strict=True)]
    )


def nudge(arrays: list[Array], key: Array, *, size: float, kind: Kind) -> list[Array]:
    """Noise of the weights' shapes.

    ``std``: N(0, size^2) for every number. ``relative``: the standard deviation is ``size`` times
    the root mean square of the tensor. ``norm``: it is size / sqrt(P), P the count of all numbers,
    so that the noise has norm ``size`` on average (in the square). ``sphere``: uniform on the
    sphere of radius ``size``.
    """
    keys = jax.random.split(key, len(arrays))
    noise = [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, arrays, strict=True)]
    total = sum(a.size for a in arrays)
    if kind == "std":
        scales: list[Any] = [size] * len(arrays)
    elif kind == "relative":
        scales = [size * jnp.sqrt(jnp.mean(jnp.square(a))) for a in arrays]
    elif kind == "norm":
        scales = [size / total**0.5] * len(arrays)
    else:
        length = jnp.sqrt(sum(jnp.sum(jnp.square(n.astype(jnp.float32))) for n in noise))
        scales = [size / length] * len(arrays)
    return [(n * s).astype(n.dtype) for n, s in zip(noise, scales, strict=True)]


def check_kind(kind: str) -> None:
    """Raise ValueError for a kind that does not exist."""
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")


def crossed(values: Shaped[np.ndarray, "R N"]) -> tuple[float, float]:
    """Mean and standard error of a value for each of R draws and N examples, both random.

    Draws are shared by all examples and examples by all draws, so neither R N values nor N are
    independent: value = mean + draw + example + rest, and ::

        Var(mean) = (MS_draws + MS_examples - MS_rest) / (R N)

    with the mean squares of the two-way analysis of variance, never less than MS_rest alone says.
    NaN with one draw or one example.
    """
    values = np.asarray(values, np.float64)
    draws, examples = values.shape
    mean = float(values.mean())
    if draws < 2 or examples < 2:
        return mean, float("nan")
    rows, columns = values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    by_draw = examples * rows.var(ddof=1)
    by_example = draws * columns.var(ddof=1)
    rest = np.square(values - rows - columns + mean).sum() / ((draws - 1) * (examples - 1))
    return mean, float(np.sqrt(max(by_draw + by_example - rest, rest) / values.size))
