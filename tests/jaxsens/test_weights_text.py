"""RoBERTa and GPT-2 files as they are published give the logits of PyTorch; others are one line."""

import json

import numpy as np
import pytest
from flax import nnx
from witnesses.language_cases import text
from witnesses.references import manifest, reference, weights
from witnesses.small_weights import safetensors

from jaxsens.weights import WeightsError
from jaxsens.weights.text import GPT, HEADS, ROBERTA, load_text

LAYERS = {"roberta": {**ROBERTA, **HEADS["roberta"]}, "gpt2": {**GPT, **HEADS["gpt2"]}}


def published(name, prefix):
    """The arrays of the PyTorch statement under the names, and in the form, of the published."""
    found = {}
    for key, array in weights(manifest(name)).items():
        for ours, theirs in LAYERS[name].items():
            for block in ("0", "1"):
                layer = ours.replace("#", block)
                own = "" if ours in HEADS[name] else prefix
                if key == layer:
                    found[own + theirs] = array
                elif key.rsplit(".", 1)[0] == layer and key.rsplit(".", 1)[1] in ("weight", "bias"):
                    matrix = name == "gpt2" and array.ndim == 2 and ours != "head"
                    place = f"{own}{theirs.format(block)}.{key.rsplit('.', 1)[1]}"
                    found[place] = np.ascontiguousarray(array.T) if matrix else array
    assert len(found) == len(manifest(name))
    return found


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("roberta", "roberta."), ("roberta", ""), ("gpt2", "transformer."), ("gpt2", "")],
)
def test_a_published_layout_gives_the_logits_of_pytorch(tmp_path, name, prefix):
    arrays = published(name, prefix)
    beside = {
        "roberta": {"lm_head.bias": 11, f"{prefix}pooler.dense.bias": 8},
        "gpt2": {f"{prefix}h.0.attn.bias": 4, "lm_head.weight": 8},
    }[name]
    arrays |= {key: np.zeros(size, np.float32) for key, size in beside.items()}
    path = safetensors(tmp_path / "model.safetensors", arrays)
    kind, model = load_text(path, heads=2, rngs=nnx.Rngs(0))
    assert kind == name
    logits = nnx.view(model, deterministic=True)(text())
    expected = reference(f"{name}/logits")
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=2e-6 * np.abs(expected).max())


def test_a_language_model_gets_a_head_of_its_own_and_the_heads_of_its_config(tmp_path):
    arrays = published("roberta", "roberta.")
    arrays = {key: value for key, value in arrays.items() if not key.startswith("classifier.")}
    arrays["roberta.embeddings.LayerNorm.gamma"] = arrays.pop("roberta.embeddings.LayerNorm.weight")
    path = safetensors(tmp_path / "model.safetensors", arrays)
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 4}))
    (_, one), (_, two) = (load_text(path, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    assert one.blocks[0].attention.heads == 4
    assert one.head.kernel[...].shape == (8, 2)
    assert not np.array_equal(one.head.kernel[...], two.head.kernel[...])
    np.testing.assert_array_equal(one.words[...], two.words[...])
    np.testing.assert_array_equal(one.norm.scale[...], arrays["roberta.embeddings.LayerNorm.gamma"])


def test_other_files_are_one_line(tmp_path):
    arrays = published("roberta", "roberta.")
    file = tmp_path / "model.safetensors"
    layer = "roberta.encoder.layer.1.output.dense.weight"
    for change, said in (
        ({layer: None}, f"lacks the array '{layer}'"),
        ({layer: np.zeros((8, 11), np.float32)}, r"of shape \(8, 11\): expected \(8, 12\)"),
        ({layer: np.full((8, 12), np.nan, np.float32)}, "has NaN or inf"),
        ({"roberta.extra": np.zeros(2, np.float32)}, "an array 'roberta.extra' that a RoBERTa"),
        ({"roberta.encoder.layer.0.intermediate.dense.weight": None}, r"has the blocks \[1\]"),
        ({"roberta.embeddings.word_embeddings.weight": None}, "holds no RoBERTa and no GPT-2"),
    ):
        held = {key: value for key, value in {**arrays, **change}.items() if value is not None}
        safetensors(file, held)
        with pytest.raises(WeightsError, match=said) as caught:
            load_text(file, heads=2, rngs=nnx.Rngs(0))
        assert "\n" not in str(caught.value)
    safetensors(file, arrays)
    with pytest.raises(WeightsError, match="8 wide, which does not divide into 3 heads"):
        load_text(file, heads=3, rngs=nnx.Rngs(0))
