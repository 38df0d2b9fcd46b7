"""What is done in training against sensitivity, with noise on one embedded sub-word (A, 7)."""

import dataclasses
from typing import Any

from flax import nnx
from jax import Array
from jaxtyping import Float

import jaxsens
from experiments.text.measures import embed
from jaxsens.losses import Loss, cross_entropy, plain
from jaxsens.regularised import Regularised

NAMES = ("none", "regularised", "augmented")


def loss(config: Any, name: str) -> Loss:
    """The loss of an intervention; the noise is that of the curves, the first of --sigma2."""
    if name == "none":
        return plain(cross_entropy)
    penalised = Regularised(
        tokens=jaxsens.Positions(mask="mask"),
        noise=jaxsens.Gaussian(config.sigma2[0]),
        strength=config.strength,
        perturb="vectors",
        embed=embed,
        apply=_logits,
    )
    return penalised if name == "regularised" else Augmented(penalised)


@dataclasses.dataclass(frozen=True)
class Augmented:
    """(L(f(x), y) + L(f(x with one token replaced), y)) / 2: each pair with a noisy copy of it."""

    noisy: Regularised  # of which the noise is taken, not the penalty

    def __call__(
        self, model: Any, inputs: Any, labels: Array, rngs: nnx.Rngs
    ) -> Float[Array, " B"]:
        given = embed(model, inputs)
        clean = cross_entropy(_logits(model, given, rngs), labels)
        changed = self.noisy.perturbed(given, inputs, rngs.noise())
        return (clean + cross_entropy(_logits(model, changed, rngs), labels)) / 2


def _logits(net: Any, given: Any, rngs: nnx.Rngs) -> Array:
    return net.from_embeddings(given["vectors"], given["mask"], rngs=rngs)
