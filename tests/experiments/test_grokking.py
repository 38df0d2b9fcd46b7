"""Grokking from the command to the record; a resumed run repeats the uninterrupted one."""

import dataclasses

import numpy as np
import pytest

from experiments import grokking
from experiments.run.cli import UserError
from experiments.run.record import RunRecord

SMALL = grokking.Config(
    seeds=2, epochs=12, every=2, save_every=4, snapshot_every=4, modulus=7, train_fraction=0.6
)


def run(config, capsys):
    grokking.main(config)
    return RunRecord(config.out), capsys.readouterr().out


def without_time(lines):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_a_run_leaves_its_record_and_a_resumed_one_the_same(tmp_path, capsys, monkeypatch):
    whole, out = run(dataclasses.replace(SMALL, out=tmp_path / "whole"), capsys)
    lines = whole.read_metrics()
    assert [line["epoch"] for line in lines if line["seed"] == 43] == list(range(0, 13, 2))
    assert {"sensitivity", "sensitivity_one", "sensitivity_one_stderr"} <= set(lines[0])
    assert {"sensitivity_stderr", "weight_norm", "test_loss"} <= set(lines[0])
    progress = whole.read("result.json")["progress"]
    assert [line["epoch"] for line in progress if line["seed"] == 42] == [0, 4, 8, 12]
    assert "lead" in out
    figure = tmp_path / "whole" / "curves.png"
    before = figure.read_bytes()
    figure.unlink()
    grokking.draw(whole)  # from the record alone
    assert figure.read_bytes() == before

    # Stop a second run between two checkpoints, as a keyboard interrupt would.
    keep = grokking.keep_weights

    def stop(epoch, models, **where):
        keep(epoch, models, **where)
        if epoch == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(grokking, "keep_weights", stop)
    broken = dataclasses.replace(SMALL, out=tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt, match="saved up to epoch 8"):
        grokking.main(broken)
    monkeypatch.setattr(grokking, "keep_weights", keep)
    resumed, _ = run(dataclasses.replace(broken, resume=True), capsys)
    assert without_time(resumed.read_metrics()) == without_time(lines)
    assert resumed.read("result.json")["progress"] == progress


def test_kept_weights_are_the_networks(tmp_path, capsys):
    config = dataclasses.replace(SMALL, epochs=4, seeds=1, out=tmp_path / "run")
    record, _ = run(config, capsys)
    start = np.load(tmp_path / "run" / "weights" / "000000.npy")
    first, last = (
        np.load(tmp_path / "run" / "weights" / f"{epoch:06d}.npy").astype(float) for epoch in (0, 4)
    )
    assert start.shape[0] == 1
    lines = {line["epoch"]: line for line in record.read_metrics()}
    assert np.linalg.norm(first) == pytest.approx(lines[0]["weight_norm"], rel=1e-5)
    assert np.linalg.norm(last) == pytest.approx(lines[4]["weight_norm"], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modulus": 112}, "odd prime .* 112 = 2 \\* 56"),
        ({"modulus": 2}, "odd prime"),
        ({"save_every": 15}, "--save-every must be a multiple of --every"),
        ({"snapshot_every": 0}, "--snapshot-every must be a multiple"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"weight_decay": -1.0}, "--weight-decay must be 0 or more"),
        ({"variance": 0.0}, "--variance must be greater than 0"),
        ({"beta2": 1.0}, "--beta2 must lie between"),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        grokking.main(grokking.Config(**options))
    assert "\n" not in str(caught.value)
