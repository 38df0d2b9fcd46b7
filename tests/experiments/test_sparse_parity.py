"""Sparse parity from the command to the record; the exact sensitivity beside the sampled one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import sparse_parity
from experiments.run.cli import UserError
from experiments.run.record import RunRecord

SMALL = sparse_parity.Config(
    setting=("300,50,8,1e-2,0", "300,50,8,1e-2,1"),
    bits=6,
    relevant=2,
    bits_per_token=2,
    epochs=30,
    every=5,
    save_every=10,
    test=200,
    samples=500,
    final_samples=200,
)


def test_a_run_learns_and_its_sample_agrees_with_the_whole_cube(tmp_path, capsys):
    config = dataclasses.replace(SMALL, out=tmp_path / "run")
    sparse_parity.main(config)
    record = RunRecord(config.out)
    finals = record.read("result.json")["final"]
    assert [line["seed"] for line in finals] == [0, 1]
    assert max(line["test_accuracy"] for line in finals) == 1.0
    for line in finals:
        assert abs(line["sensitivity"] - line["sensitivity_exact"]) <= 4 * max(
            line["sensitivity_stderr"], 1e-9
        )
        if line["test_accuracy"] == 1.0:
            assert line["sensitivity_exact"] == 2 / 6
            assert line["fourier_weight_exact"] == line["fourier_weight"] == 1.0
    assert "exact" in capsys.readouterr().out
    before = (config.out / "curves.png").read_bytes()
    sparse_parity.draw(record)
    assert (config.out / "curves.png").read_bytes() == before

    # A finished run that is taken up again trains no further and ends the same.
    sparse_parity.main(dataclasses.replace(config, resume=True))
    assert record.read("result.json")["final"] == finals


def test_the_parity_itself_measures_p_over_d_and_weight_one():
    points = np.asarray(jax.random.rademacher(jax.random.key(0), (64, 40)), np.float32)
    places = (3, 8, 20, 39)
    mask = jnp.isin(jnp.arange(40), jnp.array(places))
    compute = jax.tree_util.Partial(lambda mask, x: jnp.where(mask[None], x, 1.0).prod(1), mask)
    found = sparse_parity.measure(
        compute, jax.random.key(1), points=points, places=places, tokens=None
    )
    assert found["sensitivity"] == pytest.approx(0.1, rel=1e-15)
    assert found["fourier_weight"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relevant": 40}, r"--relevant must be at least 1 and below --bits \(40\), got 40"),
        ({"setting": ("1,2",)}, "--setting takes training points"),
        ({"setting": ("10,20,32,1e-3,0",)}, "needs 1 <= batch"),
        ({"setting": ("10,5,30,1e-3,0",)}, "4 heads"),
        ({"setting": ("10,5,32,0,0",)}, "learning rate greater than 0"),
        ({"setting": ("10,5,32,1,0", "10,5,32,1,0")}, "twice"),
        ({"setting": ()}, "at least one"),
        ({"bits_per_token": 3}, "--bits-per-token must divide"),
        ({"readout": "last"}, "--readout must be cls or mean"),
        ({"dropout": 1.0}, r"--dropout must be in \[0, 1\), got 1"),
        ({"gain": -1.0}, "--gain must be finite and greater than 0"),
        ({"samples": 1}, "--samples must be at least 2"),
        ({"save_every": 3, "every": 2}, "--save-every must be a multiple"),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        sparse_parity.main(sparse_parity.Config(**options))
    assert "\n" not in str(caught.value)
