"""Robustness, flatness, targets of known sensitivity: what their records hold, held to others."""

import itertools
import json
import shutil

import jax
import numpy as np
import pytest
from witnesses.commands import execute, one_line, read

from experiments import known_sensitivity, robustness
from experiments.reports import robustness as report
from experiments.robust import analysis
from jaxsens import boolean
from jaxsens.corruptions import corrupt
from jaxsens.data import load
from jaxsens.data.dataset import as_bytes


def test_the_means_of_a_record_are_those_of_its_accuracies(finished, grey):
    result, lines = read(finished("robustness"))
    names = [line["model"] for line in result["final"]]
    assert names == [f"mlp regularisation {p}" for p in ("0", "0.9")]
    assert [line["level"] for line in result["final"]] == [0.0, 0.9]
    assert result["data"]["corrupted"] == 40
    for line in result["final"]:
        last = [x for x in lines if x["model"] == line["model"]][-1]
        assert line["test_accuracy"] == last["test_accuracy"]
        assert line["clean"] == pytest.approx(last["test_accuracy"])  # all test images
        noise, contrast = line["accuracy"]["gaussian_noise"], line["accuracy"]["contrast"]
        assert len(noise) == len(contrast) == len(result["severities"]) == 2
        assert line["noise_accuracy"] == pytest.approx(np.mean(noise))
        assert line["other_accuracy"] == pytest.approx(np.mean(contrast))
        assert line["corruption_accuracy"] == pytest.approx(np.mean([*noise, *contrast]))
        assert line["mce"] == pytest.approx(1 - line["corruption_accuracy"])
        assert {"sensitivity", "sensitivity_size7", "shop", "shpred_stderr"} <= set(line)
    assert result["associations"]["noise_accuracy"]["networks"] == 2
    assert result["sweeps"] == {}  # of two strengths


def test_networks_of_a_finished_run_are_the_same_networks(finished, grey, tmp_path, capsys):
    before, _ = read(finished("robustness"))
    out = tmp_path / "again"
    few = ("--flat-draws", "2", "--sensitivity-examples", "4")
    words = ("--runs", finished("robustness"), "--severity", "1", "5", "--corruptions", "contrast")
    assert execute(robustness, *words, "--repeats", "1", *few, "--out", out) == 0
    assert "measuring 2 networks of 1 runs on fashion-mnist" in capsys.readouterr().out
    after = json.loads((out / "result.json").read_text())
    for one, other in zip(before["final"], after["final"], strict=True):
        for field in ("model", "seed", "clean", "train_accuracy", "sensitivity"):
            assert one[field] == other[field]
        assert other["accuracy"] == {"contrast": one["accuracy"]["contrast"]}
    copy = shutil.copytree(finished("robustness"), tmp_path / "copy")
    assert "two runs have the network mlp" in one_line(
        robustness, "--runs", finished("robustness"), copy, capsys=capsys
    )
    (copy / "result.json").unlink()
    assert "has not finished; go on with it by --resume" in one_line(
        robustness, "--runs", copy, capsys=capsys
    )
    assert "is a run of 'synthetic'; expected one of cifar" in one_line(
        robustness, "--runs", finished("synthetic"), capsys=capsys
    )


def test_the_published_layout_gives_what_the_library_makes(colour, tmp_path, capsys):
    test = load("cifar10", str(colour)).test
    images, folder = as_bytes(test.inputs), tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.tile(test.labels, 5))
    made = [corrupt(images, "contrast", s, key=jax.random.key(0)) for s in (1, 2, 3, 4, 5)]
    np.save(folder / "contrast.npy", np.concatenate(made))
    config = {"data": str(colour), "batch_size": 20, "published": folder, "arch": ("vit",)}
    settings = robustness.Config(**config, sensitivity_examples=4, published_block=40)
    subject, _ = robustness.load(settings)
    for one, expected in itertools.zip_longest(subject.sets(), made):
        np.testing.assert_array_equal(one.images, expected)
    words = ("--data", colour, "--batch-size", "20", "--arch", "vit", "--published", folder)
    assert "expected whole numbers of shape (50000,)" in one_line(
        robustness, *words, "--sensitivity-examples", "4", capsys=capsys
    )


def line(model, level, x, noise, clean=0.9):
    return {
        "model": model, "arch": "vit", "intervention": "regularisation", "level": level,
        "sensitivity": x, "clean": clean, "corruption_accuracy": noise, "noise_accuracy": noise,
        "other_accuracy": None,
    }  # fmt: skip


def test_the_answer_of_a_sweep_is_its_slope():
    lines = [
        line(f"vit {level}", level, x + 0.001 * seed, 0.9 - 4 * (x + 0.001 * seed))
        for level, x in ((0.0, 0.1), (0.2, 0.06), (0.5, 0.03), (0.9, 0.01))
        for seed in (0, 1)
    ]
    found = analysis.sweeps(lines)["vit"]["sensitivity"]
    assert found["noise_accuracy"]["value"] == pytest.approx(-4)
    assert "other_accuracy" not in found
    assert report.verdict(found["noise_accuracy"]) == "helps"
    assert report.verdict(found["clean"]) in ("undecided", "too few to tell")
    text = "\n".join(report.sweep_lines({"sweeps": analysis.sweeps(lines)}))
    assert "0.01 less of it gives, in points of accuracy" in text
    assert (
        "sensitivity from 0.0100 to 0.1010 (set by it: rho of strength and sensitivity -0.9" in text
    )
    assert "noise-like corruptions: +4.00 [+4.00, +4.00] (helps)" in text
    assert not analysis.sweeps(lines[:4])
    whole = analysis.associations(lines)
    assert whole["noise_accuracy"]["rho"]["value"] == pytest.approx(-1)


def test_flatness_has_both_variants_and_every_measure(finished):
    (final,) = read(finished("flatness"))[0]["final"]
    names = ("shop", "shpred", "shop_code", "shpred_code", "direction", "worst", "eigenvalue")
    assert all(np.isfinite(final[name]) for name in names)
    assert final["shop_code"] > 10 * final["shop"] > 0  # ten times the noise, ten logits


def test_what_is_known_of_a_target_is_what_counting_says():
    target = np.asarray(known_sensitivity.table("majority", 4), np.int8)
    decided = np.asarray(boolean.random(4, key=jax.random.key(0)), np.int8)
    cube, flip = np.asarray(boolean.cube(4)), 0.2
    weights = [flip ** (a != b).sum() * (1 - flip) ** (a == b).sum() for a in cube for b in cube]
    agree = np.array(weights).reshape(16, 16) * (target[:, None] == decided[None])
    found = known_sensitivity.judged(decided, target, flip)
    assert found["noise"] == pytest.approx(agree.sum() / 16)
    blocks = [{s} for s in range(4)]  # a third of 4 bits, rounded down
    index = {tuple(x): i for i, x in enumerate(cube)}
    right = [
        decided[index[tuple(-v if 3 - i in b else v for i, v in enumerate(x))]] == t
        for b in blocks
        for x, t in zip(cube, target, strict=True)
    ]
    assert found["block"] == pytest.approx(np.mean(right))
    assert found["clean"] == (decided == target).mean()
    best = known_sensitivity.known(target, flip)["best"]["noise"]
    rng = np.random.default_rng(0)
    others = np.where(rng.random((50, 16)) < 0.2, -target, target)  # near the target itself
    assert best >= max(known_sensitivity.judged(t, target, flip)["noise"] for t in others)
    assert known_sensitivity.known(target, 0.01)["best"]["clean"] == 1.0


def test_the_record_of_known_targets(finished):
    result, _ = read(finished("known_sensitivity"))
    assert len(result["final"]) == 2 * 2
    own = result["targets"]["majority"]["itself"]
    assert own["clean"] == 1.0
    assert own["sensitivity"] == pytest.approx(5 * (6 / 16) / 6)  # 5 of 6 bits, C(4, 2) / 2^4
    (contrast,) = result["targets"]["majority"]["contrasts"]
    noise = {(line["strength"], line["seed"]): line["noise"] for line in result["final"]}
    change = [noise[0.9, seed] - noise[0.0, seed] for seed in (0, 1)]
    assert contrast["noise"] == pytest.approx([np.mean(change), abs(np.diff(change)[0]) / 2])
