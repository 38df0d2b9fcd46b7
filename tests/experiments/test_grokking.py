"""Grokking from the command to the record; a resumed run repeats the uninterrupted one."""

import dataclasses

import numpy as np
import pytest

from experiments import grokking
from experiments.reports import grokking as grokking_report
from experiments.reports.grokking_evidence import bump
from experiments.run.record import RunRecord

SMALL = grokking.Config(
    seeds=2, epochs=12, every=2, save_every=4, snapshot_every=4, modulus=7, train_fraction=0.6
)


def test_a_run_records_both_noises_and_what_the_weights_compute(finished):
    record = RunRecord(finished("grokking"))
    lines = record.read_metrics()
    assert [line["epoch"] for line in lines if line["seed"] == 43] == list(range(0, 13, 2))
    assert {"sensitivity", "sensitivity_one", "sensitivity_one_stderr"} <= set(lines[0])
    assert {"sensitivity_stderr", "weight_norm", "test_loss"} <= set(lines[0])
    progress = record.read("result.json")["progress"]
    assert [line["epoch"] for line in progress if line["seed"] == 42] == [0, 4, 8, 12]
    assert all(np.isfinite(line["sharpness"]) for line in progress)
    assert "lead" in grokking_report.summary(record)


def test_kept_weights_are_the_networks(tmp_path):
    config = dataclasses.replace(SMALL, epochs=4, seeds=1, out=tmp_path / "run")
    grokking.main(config)
    record = RunRecord(config.out)
    start = np.load(tmp_path / "run" / "weights" / "000000.npy")
    first, last = (
        np.load(tmp_path / "run" / "weights" / f"{epoch:06d}.npy").astype(float) for epoch in (0, 4)
    )
    assert start.shape[0] == 1
    lines = {line["epoch"]: line for line in record.read_metrics()}
    assert np.linalg.norm(first) == pytest.approx(lines[0]["weight_norm"], rel=1e-5)
    assert np.linalg.norm(last) == pytest.approx(lines[4]["weight_norm"], rel=1e-5)


def test_the_clearest_bump_is_no_rise_at_the_end():
    assert bump(np.array([4.0, 2.0, 3.0, 1.0, 5.0])) == (1.5, 3.0)  # the 3; the 5 has no decline
    assert bump(np.array([1.0, 8.0])) == (1.0, 1.0)
    assert bump(np.array([8.0, 4.0, 2.0])) == (1.0, 4.0)  # falls alone
    values = np.random.default_rng(0).gamma(1.0, size=40)
    each = [(v / values[: i + 1].min(), v / values[i:].min()) for i, v in enumerate(values)]
    np.testing.assert_allclose(bump(values), max(each, key=min))
