"""What is measured of a language network: where the noise goes, and how it is read."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from jax import Array

import jaxsens
from experiments.run.measure import Measure
from experiments.text.data import Texts
from experiments.text.estimate import KEPT, PAIRED, measure
from jaxsens.models.roberta import RoBERTa

WHOLE = 0.5  # variance of the noise on the whole sentence (Table 4)
TINY = 1e-12  # for the padding, whose vectors may all be 0


def embed(net: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What sensitivity perturbs, beside the mask."""
    return {"vectors": net.embed(inputs), "mask": inputs["mask"]}


def logits(net: Any, given: Mapping[str, Array]) -> Array:
    """The rest of the network."""
    return net.from_embeddings(given["vectors"], given["mask"])


def embed_with_size(net: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The same with the standard deviation over the width that `renormalised` brings u back to."""
    given = embed(net, inputs)
    return {**given, "size": _standard(net, given["vectors"]).std(-1, keepdims=True)}


def renormalised(net: Any, given: Mapping[str, Array]) -> Array:
    """The rest of the network behind one more normalisation of what the noise has changed.

    ::

        e = g u + b,   e + xi = g v + b   ->   g s (v - mean(v)) / std(v) + b,   s = std(u)

    g and b are the scale and bias of the LayerNorm that made e. Vectors without noise pass as they
    are; those with noise come back to the size that they had.
    """
    norm, v = embedding_norm(net), _standard(net, given["vectors"])
    v = v - v.mean(-1, keepdims=True)
    v = v * given["size"] * jax.lax.rsqrt(v.var(-1, keepdims=True) + TINY)
    vectors = v * norm.scale[...][None, None] + norm.bias[...][None, None]
    return net.from_embeddings(vectors, given["mask"])


def _standard(net: Any, vectors: Array) -> Array:
    """Embeddings before the scale and the bias of their LayerNorm."""
    norm = embedding_norm(net)
    return (vectors - norm.bias[...][None, None]) / norm.scale[...][None, None]


def embedding_norm(net: Any) -> Any:
    """The LayerNorm whose result the noise is added to; None for a GPT-2 without one."""
    return net.embedding_norm if hasattr(net, "embedding_norm") else net.norm


def during(config: Any, texts: Texts) -> list[Measure]:
    """Sensitivity in training: a few random tokens of each sentence, drawn once."""
    compute = functools.partial(
        _sensitivity,
        parts=texts.curve,
        tokens=jaxsens.Positions(mask="mask"),
        noise=jaxsens.Gaussian(config.sigma2[0]),
        repeats=1,
        tokens_per_example=config.curve_tokens,
    )
    return [Measure("sensitivity", compute)]


def final(config: Any, texts: Texts, net: nnx.Module) -> list[Measure]:
    """The paper's protocol, and what else the noise may be and go through."""
    noise = jaxsens.Gaussian(config.sigma2[0])
    protocol: dict[str, Any] = {
        "tokens": jaxsens.Positions(mask="mask"),
        "noise": noise,
        "repeats": config.draws,
        "tokens_per_example": config.tokens,
    }
    train = {"parts": texts.measured["train"]}
    ways: dict[str, dict[str, Any]] = {
        "sensitivity": {**train, **protocol},
        "sensitivity_validation": {**protocol, "parts": texts.measured["validation"]},
        "sensitivity_whole": {
            **train,
            "tokens": jaxsens.Whole(mask="mask"),
            "noise": jaxsens.Gaussian(WHOLE),
            "repeats": config.draws,
        },
    }
    for variance in config.sigma2[1:]:
        ways[f"sensitivity_variance_{variance:g}"] = {
            **train,
            **protocol,
            "noise": jaxsens.Gaussian(variance),
        }
    if embedding_norm(net) is not None and _plain(net):
        ways["sensitivity_renormalised"] = {
            **train,
            **protocol,
            "read": renormalised,
            "embed": embed_with_size,
        }
    if isinstance(net, RoBERTa) and _plain(net):
        for where in ("words", "block"):
            ways[f"sensitivity_{where}"] = {**train, **protocol, "perturbed": where}
    kept = dict.fromkeys(("sensitivity", "sensitivity_validation"), KEPT + PAIRED)
    return [
        Measure(name, functools.partial(_sensitivity, **settings), kept.get(name, PAIRED))
        for name, settings in ways.items()
    ]


def _plain(net: Any) -> bool:
    """Whether the noise enters where the paper's text has it."""
    return getattr(net, "perturbed", "normalised") == "normalised"


def _sensitivity(
    model: Any,
    key: Array,
    *,
    read: Any = logits,
    embed: Any = embed,
    perturbed: str | None = None,
    **settings: Any,
) -> Any:
    if perturbed is not None:
        model = nnx.clone(model)
        model.perturbed = perturbed
    return measure(model, key=key, read=read, embed=embed, **settings)
