"""Published RoBERTa and GPT-2 weights in the models of this package: `load_text`."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsens.models.gpt2 import GPT2
from jaxsens.models.roberta import RoBERTa
from jaxsens.weights import WeightsError
from jaxsens.weights.files import Stored, open_weights, shown
from jaxsens.weights.foreign import looks_like

# Where a layer of ours lies in a file, behind the prefix: braces take the number of the block.
ROBERTA = {
    "words": "embeddings.word_embeddings.weight",
    "positions": "embeddings.position_embeddings.weight",
    "kinds": "embeddings.token_type_embeddings.weight",
    "norm": "embeddings.LayerNorm",
    "blocks.#.attention.query": "encoder.layer.{}.attention.self.query",
    "blocks.#.attention.key": "encoder.layer.{}.attention.self.key",
    "blocks.#.attention.value": "encoder.layer.{}.attention.self.value",
    "blocks.#.attention.out": "encoder.layer.{}.attention.output.dense",
    "blocks.#.attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "blocks.#.up": "encoder.layer.{}.intermediate.dense",
    "blocks.#.down": "encoder.layer.{}.output.dense",
    "blocks.#.mlp_norm": "encoder.layer.{}.output.LayerNorm",
}
GPT = {
    "words": "wte.weight",
    "positions": "wpe.weight",
    "blocks.#.attention_norm": "h.{}.ln_1",
    "blocks.#.attention.qkv": "h.{}.attn.c_attn",
    "blocks.#.attention.out": "h.{}.attn.c_proj",
    "blocks.#.mlp_norm": "h.{}.ln_2",
    "blocks.#.up": "h.{}.mlp.c_fc",
    "blocks.#.down": "h.{}.mlp.c_proj",
    "norm": "ln_f",
}
# The layers of a classifier, which have no prefix and which the published language models lack.
HEADS = {
    "roberta": {"dense": "classifier.dense", "head": "classifier.out_proj"},
    "gpt2": {"head": "score"},
}
LAYOUTS = {"roberta": ("roberta.", ROBERTA), "gpt2": ("transformer.", GPT)}
# What a file may hold besides: other heads, and masks that are no weights.
BESIDE = re.compile(
    r"(roberta\.)?(pooler\.|embeddings\.position_ids$)|lm_head\.|"
    r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias$"
)
NUMBER = re.compile(r"\b\d+\b")
HEAD_DIM = 64  # of every published size of both, where no config.json lies beside the file
MAX_CONFIG = 2**20


def load_text(path: str | Path, *, rngs: nnx.Rngs, heads: int | None = None) -> tuple[str, Any]:
    """ "roberta" or "gpt2", and the model of a published safetensors file as Hugging Face lays it.

    Depth and widths are those of the arrays. ``heads`` is by default that of the ``config.json``
    beside the file, else one for every 64 of the width. A classifier's own last layers are read
    where the file has them; without (``roberta-base`` and ``gpt2`` are language models) they are
    drawn by ``rngs``, for two classes. GPT-2 is the published one, ``perturbed="raw"``, without a
    LayerNorm on its embedding. Float16 and bfloat16 become float32. Raises WeightsError, one line,
    for a file of another model or one that lacks an array, has another shape, NaN or too much.
    """
    path = Path(path)
    arrays = {
        re.sub(r"(LayerNorm)\.(gamma|beta)$", _modern, name): stored
        for name, stored in open_weights(path).items()
    }
    name, prefix, layout = _layout(path, arrays)
    model, routes = _create(path, arrays, name, prefix, layout, heads, rngs)
    head = HEADS[name]
    has_head = all(f"{target}.weight" in arrays for target in head.values())
    graph, state = nnx.split(model)
    filled = []
    for route, variable in nnx.to_flat_state(state):
        if route[0] in head and not has_head:
            filled.append((route, variable))
            continue
        key = routes(route)
        if key not in arrays:
            raise WeightsError(f"{path} lacks the array {key!r}; it is of another model")
        filled.append((route, variable.replace(_array(path, key, arrays.pop(key), variable, name))))
    left = [key for key in arrays if not BESIDE.match(key)]
    if left:
        raise WeightsError(
            f"{path} has an array {shown(min(left))} that a {type(model).__name__} does not have "
            f"({len(left)} such arrays in all); it is of another model"
        )
    return name, nnx.merge(graph, nnx.from_flat_state(filled))


def _modern(match: re.Match[str]) -> str:
    return f"{match[1]}.{'weight' if match[2] == 'gamma' else 'bias'}"


def _layout(path: Path, arrays: Mapping[str, Stored]) -> tuple[str, str, Mapping[str, str]]:
    for name, (full, layout) in LAYOUTS.items():
        for prefix in (full, ""):
            if f"{prefix}{layout['words']}" in arrays:
                return name, prefix, layout
    expected = " or ".join(repr(layout["words"]) for _, layout in LAYOUTS.values())
    raise WeightsError(
        f"{path} holds no RoBERTa and no GPT-2{looks_like(arrays, ours=True)}; expected {expected} "
        f"among its arrays, got {shown(', '.join(sorted(arrays)))}"
    )


def _create(
    path: Path,
    arrays: Mapping[str, Stored],
    name: str,
    prefix: str,
    layout: Mapping[str, str],
    heads: int | None,
    rngs: nnx.Rngs,
) -> tuple[Any, Any]:
    """A model of the file's sizes, and the name in the file of a parameter of it."""
    up = layout["blocks.#.up"]
    block = re.compile(re.escape(f"{prefix}{up}.weight").replace(r"\{\}", r"(\d+)"))
    numbers = {int(found[1]) for key in arrays if (found := block.fullmatch(key))}

    def shape(key: str, axes: int = 2) -> tuple[int, ...]:
        found = arrays.get(key)
        if found is None or len(found.shape) != axes:
            got = "is missing" if found is None else f"has shape {found.shape}"
            raise WeightsError(f"{path}: {key!r} {got}; expected {axes} axes")
        return found.shape

    if numbers != set(range(len(numbers))) or not numbers:
        raise WeightsError(f"{path} has the blocks {sorted(numbers)[:9]}; expected 0, 1, 2, ...")
    vocabulary, dim = shape(f"{prefix}{layout['words']}")
    wide = shape(f"{prefix}{up.format(0)}.weight")
    heads = heads or _heads(path, dim)
    if dim % heads:
        raise WeightsError(f"{path} is {dim} wide, which does not divide into {heads} heads")
    last = f"{HEADS[name]['head']}.weight"
    sizes: dict[str, Any] = {
        "vocabulary": vocabulary,
        "dim": dim,
        "depth": len(numbers),
        "heads": heads,
        "mlp_dim": wide[0] if name == "roberta" else wide[1],
        "positions": shape(f"{prefix}{layout['positions']}")[0],
        "classes": shape(last)[0] if last in arrays else 2,
    }
    if name == "roberta":
        model: Any = RoBERTa(rngs=rngs, **sizes)
    else:
        model = GPT2(rngs=rngs, perturbed="raw", **sizes)

    def routes(route: tuple[Any, ...]) -> str:
        dotted = ".".join(map(str, route))
        if dotted in layout:
            return f"{prefix}{layout[dotted]}"
        parent, leaf = dotted.rsplit(".", 1)
        ending = "bias" if leaf == "bias" else "weight"
        if parent in HEADS[name]:
            return f"{HEADS[name][parent]}.{ending}"
        target = layout[NUMBER.sub("#", parent)].format(*NUMBER.findall(parent))
        return f"{prefix}{target}.{ending}"

    return model, routes


def _heads(path: Path, dim: int) -> int:
    """By the config.json beside the file; where there is none, by the published size of a head."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    if file.is_file() and file.stat().st_size <= MAX_CONFIG:
        try:
            told = json.loads(file.read_bytes())
        except ValueError as error:
            raise WeightsError(f"{file} is no JSON: {error}") from None
        for key in ("num_attention_heads", "n_head"):
            if isinstance(told, dict) and isinstance(told.get(key), int) and told[key] > 0:
                return told[key]
    return max(1, dim // HEAD_DIM)


def _array(path: Path, key: str, stored: Stored, variable: Any, name: str) -> jnp.ndarray:
    # GPT-2 keeps its matrices as inputs by outputs; its last layer is PyTorch's.
    turned = len(stored.shape) == 2 and (name == "roberta" or key == "score.weight")
    is_table = key.endswith(("embeddings.weight", "wte.weight", "wpe.weight"))
    turned = turned and not is_table
    wanted = variable.shape[::-1] if turned else variable.shape
    if stored.shape != wanted:
        raise WeightsError(f"{path} has {key!r} of shape {stored.shape}: expected {wanted}")
    array = stored.read()
    if not np.isfinite(array).all():
        raise WeightsError(f"{path} has NaN or inf in {key!r}; copy it again")
    return jnp.asarray(array.T if turned else array)
