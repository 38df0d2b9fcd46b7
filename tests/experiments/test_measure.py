"""Measures: what they are called in a record, final ones, and numbers that are not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from witnesses.small_loop import MEASURE, SEEDS, TRAINER, train

from experiments.run.measure import Measure, fields
from experiments.run.training import Schedule, finals


def test_measures_are_named_once_and_may_be_arrays():
    estimate = MEASURE.compute(TRAINER.models(TRAINER.initial)[0], jax.random.key(0))
    assert fields("s", estimate, ("per_token",)).keys() == {"s", "s_stderr", "s_per_token"}
    assert fields("s", {"": estimate, "one": 2.0}).keys() == {"s", "s_stderr", "s_one"}
    assert fields("s", {"at": {"x": 1}}) == {"s_at": {"x": 1}}
    assert fields("s", 3.5) == {"s": 3.5}


def test_final_measures_take_the_place_of_the_last_line(tmp_path):
    record, models = train(tmp_path / "run", schedule=Schedule(1, 1, 4))
    norm = Measure("norm", lambda model, key: {"layers": np.array([1.0, 2.0]), "": key})
    lines = finals("net", models, seeds=SEEDS, measures=[MEASURE, norm], record=record)
    for seed, line, last in zip(SEEDS, lines, record.read_metrics()[-2:], strict=True):
        assert line["seed"] == last["seed"] == seed
        assert line["test_loss"] == last["test_loss"]
        assert line["norm"] == jax.random.key(seed)  # whatever the model is called
        np.testing.assert_array_equal(line["norm_layers"], [1, 2])


@pytest.mark.parametrize("what", ["evaluation", "measure"])
def test_numbers_that_are_not_finite_end_the_run_before_they_are_recorded(
    tmp_path, monkeypatch, what
):
    """As after a last update that was too large: the parameters are finite, their loss is not."""
    original = type(TRAINER).evaluate

    def evaluate(self, state, data, **settings):
        found = original(self, state, data, **settings)
        late = int(state.step[0]) == 28 and what == "evaluation"
        return {k: v * (jnp.inf if late else 1) for k, v in found.items()}

    def compute(model, key):
        if what == "measure":
            raise ValueError("the model returned NaN in 3 of 8 examples")
        return 1.0

    monkeypatch.setattr(type(TRAINER), "evaluate", evaluate)
    message = {
        "evaluation": "train_(loss|accuracy) is inf after step 28, seed number 0; lower",
        "measure": "odd cannot be measured: the model returned NaN",
    }[what]
    with pytest.raises(FloatingPointError, match=message):
        train(tmp_path / "run", measures=[Measure("odd", compute)])
    path = tmp_path / "run" / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    assert "null" not in text
    assert ("NaN" in text, '"step": 28' in text) == (False, False)
