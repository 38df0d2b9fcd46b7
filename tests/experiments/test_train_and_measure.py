"""The loop of every experiment: lines, checkpoints, and resumption to the same numbers."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from witnesses.small_loop import SEEDS, TEST, TRAINER, train, without_time

from command import stops
from experiments.run.cli import UserError
from experiments.run.record import RunRecord
from experiments.run.training import Schedule
from jaxsens import checkpoints


def assert_same_state(a, b):
    steps = [checkpoints.latest(path / "checkpoints" / "net") for path in (a, b)]
    assert steps[0] == steps[1]
    states = [
        checkpoints.restore(path / "checkpoints" / "net", TRAINER.initial, step=steps[0])
        for path in (a, b)
    ]
    for x, y in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def through(tmp_path_factory):
    """An uninterrupted run."""
    return train(tmp_path_factory.mktemp("through") / "run")


def test_a_run_leaves_a_line_for_each_seed_and_evaluation(through):
    record, models = through
    lines = record.read_metrics()
    assert [(line["epoch"], line["seed"]) for line in lines] == [
        (epoch, seed) for epoch in (0, 2, 4, 6, 7) for seed in SEEDS
    ]
    assert [line["step"] for line in lines[::2]] == [0, 8, 16, 24, 28]
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    for seed, model in enumerate(models):  # the last line is of the model that is returned
        logits = np.asarray(model(jnp.asarray(TEST.inputs)))
        line = lines[-2 + seed]
        assert line["test_accuracy"] == pytest.approx((logits.argmax(1) == TEST.labels).mean())
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(17), TEST.labels]
        assert line["test_loss"] == pytest.approx(losses.mean(), rel=1e-4)
        assert 0 <= line["sensitivity"] <= 1
        assert line["sensitivity_stderr"] >= 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("stop", [0, 4])
def test_a_resumed_run_continues_to_the_same_numbers(through, tmp_path, stop, error):
    def observe(step, models):
        if step == 4 * stop:
            raise error

    with pytest.raises(error) as stopped:
        train(tmp_path / "run", observe=observe)
    if error is KeyboardInterrupt:
        saved = max(stop - 2, 0)
        assert str(stopped.value) == (
            f"interrupted; saved up to epoch {saved} of net: go on with --resume --out "
            f"{tmp_path / 'run'}"
        )
    record, _ = train(tmp_path / "run", resume=True)
    assert without_time(record) == without_time(through[0])
    assert_same_state(tmp_path / "run", through[0].directory)


@pytest.mark.parametrize("lost", ["checkpoint", "lines"])
def test_a_crash_between_lines_and_checkpoint_is_made_good(through, tmp_path, monkeypatch, lost):
    calls = []

    def crash(original):
        def call(*args, **settings):
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError
            return original(*args, **settings)

        return call

    target, name = {"checkpoint": (checkpoints, "save"), "lines": (RunRecord, "add")}[lost]
    with monkeypatch.context() as patch:
        patch.setattr(target, name, crash(getattr(target, name)))
        with pytest.raises(RuntimeError):
            train(tmp_path / "run")
    record, _ = train(tmp_path / "run", resume=True)
    assert without_time(record) == without_time(through[0])


def test_saving_less_often_changes_no_number(through, tmp_path):
    def observe(step, models):
        if step == 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="saved up to epoch 4 of net"):
        train(tmp_path / "run", save_every=4, observe=observe)
    record, _ = train(tmp_path / "run", resume=True, save_every=4)
    assert without_time(record) == without_time(through[0])
    assert_same_state(tmp_path / "run", through[0].directory)


def test_resuming_a_finished_run_trains_no_more(through, tmp_path, capsys):
    record, first = train(tmp_path / "run")
    before = record.read_metrics()
    capsys.readouterr()
    record, models = train(tmp_path / "run", resume=True)
    assert record.read_metrics() == before
    assert "net 7/7 epochs" in capsys.readouterr().err
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(models), strict=True):
        np.testing.assert_array_equal(a, b)


def test_ctrl_c_during_a_save_waits_for_its_end(through, tmp_path, monkeypatch):
    def save(directory, state, *, step, **settings):
        if step == 16:
            signal.raise_signal(signal.SIGINT)
        original(directory, state, step=step, **settings)

    original, before = checkpoints.save, signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch, stops.raised():
        patch.setattr(checkpoints, "save", save)
        with pytest.raises(KeyboardInterrupt, match="saved up to epoch 4 of net"):
            train(tmp_path / "run")
    signal.signal(signal.SIGINT, before)  # a shell may have told the process to ignore it
    assert checkpoints.latest(tmp_path / "run" / "checkpoints" / "net") == 16
    record, _ = train(tmp_path / "run", resume=True)
    assert without_time(record) == without_time(through[0])


def test_until_ends_a_run_and_its_resumption(through, tmp_path):
    def until(lines):
        assert len(lines) == len(SEEDS)
        return asked.append(1) or len(asked) == 3

    asked = []
    record, _ = train(tmp_path / "run", until=until)
    expected = [line for line in without_time(through[0]) if line["epoch"] <= 4]
    assert without_time(record) == expected
    asked = [1, 1]
    record, _ = train(tmp_path / "run", resume=True, until=until)
    assert without_time(record) == expected


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    def observe(step, models):
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", observe=observe)
    (tmp_path / "run" / "checkpoints" / "net" / "0" / "manifest.json").unlink()
    with pytest.raises(checkpoints.CheckpointError, match="no whole checkpoint"):
        train(tmp_path / "run", resume=True)


def test_a_run_that_exists_is_left_alone(through):
    before = without_time(through[0])
    with pytest.raises(UserError, match="exists"):
        train(through[0].directory)
    assert without_time(through[0]) == before


def test_a_checkpoint_without_its_lines_is_not_gone_on_with(tmp_path):
    def observe(step, models):
        if step == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", observe=observe)
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(
        UserError,
        match=r"metrics\.jsonl is not what the checkpoint .* \(4 lines of net, 2 are there\)",
    ):
        train(tmp_path / "run", resume=True)


def test_evaluations_within_an_epoch_resume_to_the_same_numbers(tmp_path):
    schedule = Schedule(10, 3, 4)
    assert (schedule.unit, schedule.epoch(3), schedule.epoch(8)) == ("step", 0.75, 2)

    def observe(step, models):
        if step == 6:
            raise KeyboardInterrupt

    whole, _ = train(tmp_path / "whole", schedule=schedule)
    lines = without_time(whole)
    assert [line["step"] for line in lines[::2]] == [0, 3, 6, 9, 10]
    assert [line["epoch"] for line in lines[::2]] == [0, 0.75, 1.5, 2.25, 2.5]
    with pytest.raises(KeyboardInterrupt, match="saved up to step 3 of net"):
        train(tmp_path / "run", schedule=schedule, observe=observe)
    resumed, _ = train(tmp_path / "run", schedule=schedule, resume=True)
    assert without_time(resumed) == lines
    steps, values = whole.curve("sensitivity", at="step", model="net")
    np.testing.assert_array_equal(steps, [0, 3, 6, 9, 10])
    assert values.shape == (2, 5)
