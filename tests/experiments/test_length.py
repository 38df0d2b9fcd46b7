"""The experiments of paper B from the command to the record."""

import json

import numpy as np
import pytest
from witnesses import small_runs
from witnesses.commands import execute, one_line

from experiments.length import __main__ as command
from experiments.length import generalisation, memorisation, scaling
from experiments.length.networks import trainer_of
from experiments.length.targets import targets
from experiments.length.tradeoff import drawn
from experiments.reports.length import dynamics as dynamics_report
from experiments.reports.length import scaling as scaling_report
from experiments.reports.length.lines import hardly_changes, mean_and_error, slope
from experiments.run.record import RunRecord
from experiments.run.reports import report_of
from jaxsens import boolean
from jaxsens.data.bit_functions import majority


def test_every_network_has_all_measures_and_the_inequality_holds(finished):
    record = RunRecord(finished("length_scaling"))
    result = record.read("result.json")
    assert [(line["function"], line["bits"], line["seed"]) for line in result["final"]] == [
        (function, 3, seed) for function in ("parity", "first") for seed in (0, 1)
    ]
    for line in result["final"]:
        assert line["sharpness_slack"] > -1e-6
        assert line["sharpness_bound"] <= line["sharpness_change"] + 1e-6
        assert line["average_sensitivity_exact"] is True
        assert line["average_sensitivity_stderr"] == 0
        layers = [line[f"blowup_layer_{i}"] for i in range(2)]
        assert line["blowup"] > 0
        assert min(layers) > 0
        assert line["norm"] > 1
        assert line["fitted"] is (line["test_loss"] < 1e-3)
    assert [line["average_sensitivity"] for line in result["reference"]] == [3.0, 1.0]
    assert "0 of 2" in scaling_report.summary(record)
    assert {e.claim.place for e in scaling_report.evidence(record)} <= {"Theorem 6", "Theorem 4"}


def test_every_run_of_the_tradeoff_has_its_decay_and_rate(finished):
    final = RunRecord(finished("length_tradeoff")).read("result.json")["final"]
    assert len({line["weight_decay"] for line in final}) == len(final) / 2  # the same in both
    for line in final:
        assert 0 <= line["weight_decay"] <= 0.4
        assert 1e-4 <= line["learning_rate"] <= 5e-4


def test_hyperparameters_are_those_of_each_network():
    config = small_runs.MODULES["length_tradeoff"].Config(lengths=(3,), seeds=3, width=8)
    (target,) = targets(["parity"], [3], seed=0)
    given = drawn(config, target)
    kept = trainer_of(config, 3, range(3), given).initial.optimizer.hyperparams
    for name, values in given.items():
        np.testing.assert_allclose(kept[name], np.float32(values))


def test_dynamics_measures_all_along(finished):
    record = RunRecord(finished("length_dynamics"))
    assert record.read("result.json")["decays"] == {"0": 0.0, "1": 0.3}
    lines = record.read_metrics()
    assert [line["step"] for line in lines if line["seed"] == 1] == [0, 4, 8, 12]
    assert all({"sharpness", "blowup", "norm", "sharpness_slack"} <= set(line) for line in lines)
    assert "least E(f-g)" in dynamics_report.summary(record)


def test_where_the_fall_of_a_loss_begins_and_ends():
    loss = np.array([0.25, 0.26, 0.24, 0.25, 0.2, 0.1, 0.009, 0.02])
    curve = {"test_loss": loss}
    end = dynamics_report.learned_at(curve)
    assert (end, dynamics_report.begun_at(curve, end)) == (6, 3)
    assert dynamics_report.learned_at({"test_loss": loss[:6]}) is None


def test_a_slope_and_its_error_are_those_of_least_squares():
    x, y = np.array([4.0, 4, 6, 8, 10]), np.array([1.0, 1.2, 2.1, 2.9, 4.2])
    design = np.stack([np.ones(5), x], axis=1)
    best, rest, *_ = np.linalg.lstsq(design, y, rcond=None)
    error = np.sqrt(rest[0] / 3 * np.linalg.inv(design.T @ design)[1, 1])
    assert slope(x, y) == pytest.approx((best[1], error))
    assert np.isnan(slope(x[:2], y[:2])[0])


def test_sharpness_is_flat_to_a_tenth_or_two_errors():
    assert hardly_changes(-0.009, 0.0, 10)
    assert not hardly_changes(0.011, 0.0, 10)
    assert hardly_changes(0.015, 0.01, 10)
    assert mean_and_error([1.0, 2.0, 6.0]) == pytest.approx((3.0, 7**0.5 / 3**0.5))
    assert mean_and_error([4.0]) == (4.0, None)


def test_functions_come_from_tables_and_from_python(tmp_path, capsys):
    np.save(tmp_path / "table.npy", np.asarray(majority(boolean.cube(3)), np.int8))
    words = [str(tmp_path / "table.npy"), "jaxsens.data.bit_functions:majority", "random"]
    table, imported, random = targets(words, [3], seed=4)
    points = boolean.cube(3)
    for target in (table, imported):
        np.testing.assert_array_equal(target.labels(points), majority(points))
        assert target.average_sensitivity is None
    assert set(np.asarray(random.labels(points))) <= {0.0, 1.0}
    again = targets(["random"], [3], seed=4)[0]
    np.testing.assert_array_equal(random.table, again.table)
    wrong = tmp_path / "wrong.npy"
    np.save(wrong, np.zeros(9))
    assert "(2^3,) = (8,)" in one_line(
        scaling, "--functions", wrong, "--lengths", 3, "--out", tmp_path / "run", capsys=capsys
    )
    assert not (tmp_path / "run").exists()


def test_strings_seen_are_the_first_of_the_order():
    config = generalisation.Config(bits=4, strings=(4, 16), complete=(4,), seeds=3)
    task, _ = generalisation.load(config)
    seen = task.seen(4)
    assert seen.sum(axis=1).tolist() == [4, 4, 4]
    assert all(seen[i][task.orders[i, :4]].all() for i in range(3))
    random = generalisation.random_completions(config, task, 4)
    np.testing.assert_array_equal(random[seen], task.tables[seen])
    assert np.any(random != task.tables)
    assert len({tuple(table) for table in task.tables}) == 3


@pytest.mark.parametrize(("bits", "strings"), [(5, 32), (5, 9), (12, 300)])
def test_strings_of_random_labels_are_different(bits, strings):
    config = memorisation.Config(bits=bits, strings=strings, seeds=2)
    seen, _ = memorisation.load(config)
    assert seen.inputs.shape == (2, strings, bits)
    assert set(np.unique(seen.inputs)) == {-1.0, 1.0}
    assert all(len(np.unique(points, axis=0)) == strings for points in seen.inputs)
    assert set(np.unique(seen.labels)) == {-1.0, 1.0}
    assert np.any(seen.labels[0] != seen.labels[1])
    again, _ = memorisation.load(memorisation.Config(bits=bits, strings=strings, seed=1))
    np.testing.assert_array_equal(again.inputs[0], seen.inputs[1])


def test_every_subcommand_is_an_experiment_with_a_report():
    for name, module in command.SUBCOMMANDS.items():
        assert small_runs.MODULES[f"length_{name}"] is module
        report = report_of(f"length_{name}")
        assert {"draw", "summary", "evidence"} <= set(dir(report))


@pytest.mark.slow
@pytest.mark.parametrize("name", command.SUBCOMMANDS)
def test_smoke(tmp_path, name):
    module, out = command.SUBCOMMANDS[name], tmp_path / "run"
    assert execute(module, "--smoke", "--out", out) == 0
    report = report_of(f"length_{name}")
    record = RunRecord(out)
    assert report.summary(record)
    assert isinstance(report.evidence(record), list)
    assert json.loads((out / "config.json").read_text())["smoke"] is True


@pytest.mark.slow
def test_the_benchmark_counts_its_steps(tmp_path, capsys):
    from experiments.benchmark import length

    length.main(length.Config(smoke=True, out=tmp_path / "record.json"))
    assert "ten seeds in total are" in capsys.readouterr().out
    rates = json.loads((tmp_path / "record.json").read_text())["rates"]
    assert {"jaxsens, 1 seed", "jaxsens, 10 seeds"} <= set(rates)
    assert all(rate > 0 for found in rates.values() for rate in found)
