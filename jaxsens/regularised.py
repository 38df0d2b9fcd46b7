"""Training for low sensitivity: a penalty on what noise on one token does to the outputs."""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxsens._check import checked_key, leaf_number
from jaxsens._perturb import replace_tokens
from jaxsens._plan import Rows
from jaxsens._pytree import pytree
from jaxsens._run import check_protocols
from jaxsens.losses import Metric, cross_entropy
from jaxsens.noise import Noise
from jaxsens.tokens import BoundNoise, Patches, Tokens


def apply_model(model: Any, given: Any, rngs: nnx.Rngs) -> Any:
    """The outputs of a model that is called as those of `jaxsens.models` are."""
    return model(given, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Regularised:
    """Sensitivity regularisation (paper A, Section 7), for any training loop in JAX.

    ::

        loss(x, y) = (1 - p) L(f(x), y) + p / C  sum_c (f_c(x) - f_c(x with token t replaced))^2

    Token t is uniform over the real tokens of each example, drawn with its noise afresh at every
    call. Gradients go through both passes, and dropout is drawn for each of them. The paper has
    p = 0.25, the cross-entropy L, and N(0, 1) noise on a patch of the image::

        Regularised(tokens=Patches(4), noise=Gaussian(1.0))

    Embedded tokens, with the masks of a batch, as for :func:`jaxsens.sensitivity` but for the
    model, which changes in training and is therefore an argument::

        def embed(net, batch):
            return {"tokens": net.embed(batch), "mask": batch["mask"]}
        def logits(net, given, rngs):
            return net.from_embeddings(given["tokens"], given["mask"], rngs=rngs)
        Regularised(tokens=Positions(mask="mask"), noise=Gaussian(15.0), perturb="tokens",
                    embed=embed, apply=logits)

    Args:
      tokens, noise, perturb: as for :func:`jaxsens.sensitivity`; a mask is named, not given, for
        batches differ. What a noise refuses by the values of inputs is not seen in training.
      strength: p, from 0 up to but not including 1. 0 is L alone, in one pass.
      embed: ``embed(model, inputs)``, what holds the tokens; None for the inputs themselves.
      apply: ``apply(model, given, rngs)``, the outputs (B, C) or (B,) for what ``embed`` returns,
        in training mode, with the random streams of the step.
      loss: L, a function of outputs and labels, one value for each example.

    Called as ``loss(model, inputs, labels, rngs)``; it draws from the stream ``rngs.noise``, and
    the clean pass is the first, so that its dropout is that of training without regularisation.
    Running statistics (BatchNorm) see both passes. Raises ValueError or TypeError for arguments
    that cannot be right.
    """

    tokens: Tokens
    noise: Noise
    strength: float = 0.25
    perturb: str | int | None = None
    embed: Callable[[Any, Any], Any] | None = None
    apply: Callable[[Any, Any, nnx.Rngs], Any] = apply_model
    loss: Metric = cross_entropy

    def __post_init__(self) -> None:
        check_protocols(self.tokens, self.noise)
        strength = self.strength
        if isinstance(strength, bool) or not isinstance(strength, int | float):
            raise TypeError(f"strength must be a number from 0 and below 1, got {strength!r}")
        if not 0 <= strength < 1:
            raise ValueError(f"strength must be at least 0 and below 1, got {strength!r}")
        if not isinstance(getattr(self.tokens, "mask", None), str | None):
            raise ValueError(
                "a mask of one batch is not that of the next; name the array of the inputs that "
                f'holds it, such as {type(self.tokens).__name__}(mask="mask")'
            )

    def __call__(
        self, model: Any, inputs: Any, labels: Array, rngs: nnx.Rngs
    ) -> Float[Array, " B"]:
        given = inputs if self.embed is None else self.embed(model, inputs)
        clean = self.apply(model, given, rngs)
        losses = self.loss(clean, labels)
        if self.strength == 0:
            return losses
        noisy = self.apply(model, self.perturbed(given, inputs, rngs.noise()), rngs)
        change = jnp.square(clean - noisy).reshape(len(labels), -1).mean(1)
        return (1 - self.strength) * losses + self.strength * change

    def perturbed(self, given: Any, inputs: Any, key: Array) -> Any:
        """What the model is given, with one token of each example replaced.

        ``inputs`` are those that ``given`` was made of, and hold the mask.
        """
        leaves, structure = jax.tree.flatten(given)
        number = leaf_number(given, self.perturb, "perturb", "what the model is given")
        examples = jnp.asarray(leaves[number])
        # In training a noise sees no values, and cannot check them.
        with contextlib.suppress(jax.errors.ConcretizationTypeError,
                                 jax.errors.TracerArrayConversionError):  # fmt: skip
            self.noise.check(cast(Any, examples))
        real, within = self._places(inputs, examples.shape)
        pick_key, noise_key = jax.random.split(key)
        which = jnp.arange(len(examples))
        picked = _pick(pick_key, real)
        rows = Rows(which, which, picked, jnp.zeros_like(picked))
        leaves[number] = replace_tokens(
            self.tokens, self.noise, examples, within, rows, checked_key(noise_key)
        )
        return jax.tree.unflatten(structure, leaves)

    def _places(
        self, inputs: Any, shape: tuple[int, ...]
    ) -> tuple[Bool[Array, "B T"], Bool[Array, "B ..."] | None]:
        """Which tokens are real, and where within the examples they may change anything."""
        every = jnp.ones((shape[0], self.tokens.count(shape)), bool)
        name = getattr(self.tokens, "mask", None)
        if name is None:
            real = self.tokens.valid(shape)
            within = self.tokens.within(shape) if hasattr(self.tokens, "within") else None
            return every if real is None else jnp.asarray(real), within
        mask = jnp.asarray(jax.tree.leaves(inputs)[leaf_number(inputs, name, "mask", "inputs")])
        if mask.shape != shape[:2]:
            raise ValueError(
                f"mask has shape {mask.shape}; inputs of shape {shape} need {shape[:2]}"
            )
        mask = mask.astype(bool)
        return (every, mask) if hasattr(self.tokens, "within") else (mask, None)


def _pick(key: Array, real: Bool[Array, "B T"]) -> Int[Array, " B"]:
    """A real token of each example, uniformly."""
    scores = jax.random.uniform(key, real.shape)
    return jnp.argmax(jnp.where(real, scores, -1.0), axis=1)


@pytree(meta=("size",))
@dataclasses.dataclass(frozen=True)
class Squares(Patches):
    """The size x size squares of an image at any corner: what the authors' code regularises.

    Inputs (N, H, W, C), T = (H - size) (W - size): corners run from 0 to H - size - 1 and
    W - size - 1, so that no square touches the last row or column, as in that code. Squares
    overlap; :class:`~jaxsens.Patches` is the grid of the text. Raises ValueError on another rank or
    when an image has no such square.
    """

    def count(self, shape: tuple[int, ...]) -> int:
        if len(shape) != 4 or min(shape[1:3]) <= self.size:
            raise ValueError(
                f"Squares({self.size}) needs images (N, H, W, C) with sides above {self.size}, got "
                f"shape {shape}"
            )
        return math.prod(side - self.size for side in shape[1:3])

    def replace(self, example: Array, token: Array, noise: BoundNoise, shared_key: Array) -> Array:
        row, column = jnp.divmod(token, example.shape[1] - self.size)
        corner = (row, column, jnp.zeros_like(row))
        patch = jax.lax.dynamic_slice(example, corner, (self.size, self.size, example.shape[2]))
        return jax.lax.dynamic_update_slice(example, noise(patch), corner)
