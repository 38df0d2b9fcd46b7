"""Synthetic tokens from the command to the record; alignment and attention against slow counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import synthetic
from experiments.reports import synthetic as synthetic_report
from experiments.run.record import RunRecord
from jaxsens.data.synthetic import SparseFrequent
from jaxsens.models.single_head import SingleHead


def test_a_run_goes_by_the_sparse_token_and_keeps_its_record(finished):
    record = RunRecord(finished("synthetic"))
    result = record.read("result.json")
    for line in result["final"]:
        assert line["train_accuracy"] > 0.99
        assert line["test_accuracy"] < 0.01  # the sparse token decides
        assert line["alignment_sparse"] > 0.5 > line["alignment_frequent"]
        assert sum(line[f"attention_{kind}"] for kind in synthetic.KINDS) == pytest.approx(1)
    for one in (result["ideal"]["3,1,5,16"][kind] for kind in ("sparse", "frequent")):
        assert abs(one["measured"] - one["exact"]) <= 4 * one["stderr"]
    assert "0.2878" in synthetic_report.summary(record)
    assert synthetic_report.KINDS == synthetic.KINDS


def test_cues_are_cosines_and_shares_of_attention():
    data = SparseFrequent(1, 1, 3, 4, vocabulary=12, length=6)
    model = SingleHead(vocabulary=12, length=6, dim=4, scale=1.0, rngs=nnx.Rngs(0))
    tokens = data.sample(5, key=jax.random.key(0)).inputs
    alignment = synthetic.alignment(model, jax.random.key(0), data=data)
    attended = synthetic.attention(model, jax.random.key(0), data=data, tokens=tokens)
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
        assert alignment[kind] == pytest.approx(np.mean(cosines))
        mass = [
            sum(attention[n, i, j] for j in range(6) if kinds[tokens[n, j]] == number)
            for n in range(5)
            for i in range(6)
        ]
        assert attended[kind] == pytest.approx(np.mean(mass), abs=1e-6)
