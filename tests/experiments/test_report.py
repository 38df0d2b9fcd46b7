"""Tables, pooled errors and curves over seeds."""

import numpy as np
import pytest

from experiments.run import report


def test_pooled_error_joins_both_sources():
    value, error = report.pooled([0.1, 0.2, 0.6], [0.03, 0.04, 0.05])
    assert value == pytest.approx(0.3)
    within, between = np.mean([0.0009, 0.0016, 0.0025]), np.var([0.1, 0.2, 0.6], ddof=1) / 3
    assert error == pytest.approx(np.sqrt(within + between))
    assert report.pooled([0.4], [0.02]) == (0.4, pytest.approx(0.02))


def test_table_aligns_columns():
    text = report.table(["model", "x"], [["a", "long cell"], ["much longer", "1"]])
    assert text.splitlines() == [
        "model        x",
        "-----------  ---------",
        "a            long cell",
        "much longer  1",
    ]


def test_curve_takes_the_epochs_that_every_seed_has():
    lines = [
        {"model": model, "seed": seed, "epoch": epoch, "loss": 10 * seed + epoch}
        for model in ("vit", "mlp")
        for seed in (7, 3)
        for epoch in (0, 2, 4)
        if (model, seed, epoch) != ("vit", 7, 4)
    ]
    lines[0]["loss"] = None
    epochs, values = report.curve(lines, "loss", model="vit")
    np.testing.assert_array_equal(epochs, [0, 2])
    np.testing.assert_array_equal(values, [[30, 32], [np.nan, 72]])
    np.testing.assert_array_equal(report.curve(lines, "loss", model="mlp")[0], [0, 2, 4])


def test_a_figure_is_saved_whole_with_mean_and_band(tmp_path):
    figure, panel = report.figure(3, 2)
    values = np.array([[1.0, 2.0], [3.0, 6.0]])
    report.draw_band(panel, np.array([0, 5]), values, color="C1", label="both")
    np.testing.assert_array_equal(panel.lines[0].get_ydata(), [2, 4])
    (band,) = panel.collections
    assert {tuple(point) for point in band.get_paths()[0].vertices} == {
        (0, 1),
        (0, 3),
        (5, 2),
        (5, 6),
    }
    assert not panel.legend().get_frame_on()
    report.save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
