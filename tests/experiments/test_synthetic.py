"""Synthetic tokens from the command to the record; alignment and attention against slow counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import synthetic
from experiments.run.cli import UserError, parse
from experiments.run.record import RunRecord
from jaxsens.data import DataError
from jaxsens.data.synthetic import SparseFrequent
from jaxsens.models.single_head import SingleHead


def test_a_run_goes_by_the_sparse_token_and_keeps_its_record(tmp_path, capsys):
    config = synthetic.Config(
        setting=("3,1,5,16",), seeds=2, epochs=20, every=10, repeats=1, out=tmp_path / "run"
    )
    synthetic.main(config)
    record = RunRecord(config.out)
    result = record.read("result.json")
    for line in result["final"]:
        assert line["train_accuracy"] > 0.99
        assert line["test_accuracy"] < 0.01  # the sparse token decides
        assert line["alignment_sparse"] > 0.5 > line["alignment_frequent"]
        assert sum(line[f"attention_{kind}"] for kind in synthetic.KINDS) == pytest.approx(1)
    for one in (result["ideal"]["3,1,5,16"][kind] for kind in ("sparse", "frequent")):
        assert abs(one["measured"] - one["exact"]) <= 4 * one["stderr"]
    assert "0.2878" in capsys.readouterr().out
    before = (config.out / "curves.png").read_bytes()
    synthetic.draw(record)
    assert (config.out / "curves.png").read_bytes() == before
    synthetic.main(dataclasses.replace(config, resume=True))
    assert record.read("result.json")["final"] == result["final"]


def test_cues_are_cosines_and_shares_of_attention():
    data = SparseFrequent(1, 1, 3, 4, vocabulary=12, length=6)
    model = SingleHead(vocabulary=12, length=6, dim=4, scale=1.0, rngs=nnx.Rngs(0))
    tokens = data.sample(5, key=jax.random.key(0)).inputs
    found = synthetic.cues(model, jax.random.key(0), data=data, tokens=tokens)
    rows = np.asarray(model.directions(), float)
    kinds = [0, 0] + [1] * 8 + [2, 2]
    vectors = {
        "sparse": [1, -1] + [0] * 10,
        "frequent": [0, 0, 1, -1, 1, -1, 1, -1, 1, -1, 0, 0],
        "irrelevant": [0] * 10 + [1, 1],
    }
    attention = np.asarray(model.attention(jnp.asarray(tokens)))
    for number, (kind, vector) in enumerate(vectors.items()):
        cosines = [np.dot(r, vector) / np.linalg.norm(r) / np.linalg.norm(vector) for r in rows]
        assert found[f"alignment_{kind}"] == pytest.approx(np.mean(cosines))
        mass = [
            sum(attention[n, i, j] for j in range(6) if kinds[tokens[n, j]] == number)
            for n in range(5)
            for i in range(6)
        ]
        assert found[f"attention_{kind}"] == pytest.approx(np.mean(mass), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"setting": ("3,1,5",)}, "four integers"),
        ({"setting": ()}, "at least one setting"),
        ({"setting": ("3,1,5,16", "3,1,5,16")}, "each of them once"),
        ({"setting": ("4,1,3,6",)}, "n_s <= n_f"),
        ({"vocabulary": 10}, "at least 2m"),
        ({"learning_rate": 0.0}, "--learning-rate must be greater than 0"),
        ({"curve_tokens": 51}, "--curve-tokens must be at most 50"),
        ({"examples": 50}, "--examples must be at least 2 and --batch-size"),
        ({"seeds": 0}, "--seeds must be at least 1"),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises((UserError, DataError), match=message) as caught:
        synthetic.main(synthetic.Config(**options))
    assert "\n" not in str(caught.value)


def test_generated_data_have_no_source(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(synthetic.Config, prog="experiments.synthetic", args=["--data", "tfds"])
    assert stop.value.code == 2
    assert "--data" in capsys.readouterr().err
