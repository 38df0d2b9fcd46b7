"""The vision experiments: whole small runs, their resumption, figures, tables, and every error."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from witnesses.commands import execute, read

import jaxsens
from experiments import cifar, fashion_mnist, svhn
from experiments.run.record import RunRecord
from experiments.vision import options as vision_options
from experiments.vision import report as vision_report
from experiments.vision import run as vision
from jaxsens import checkpoints, models
from jaxsens.data import load


@pytest.fixture
def mlps(finished):
    return finished("fashion_mnist")


def test_the_record_of_a_run(mlps, grey):
    result, lines = read(mlps)
    assert [(line["epoch"], line["seed"]) for line in lines] == [
        (epoch, seed) for epoch in (0, 1, 2) for seed in (0, 1)
    ]
    assert result["data"] == {
        "name": "fashion-mnist", "source": str(grey), "train": 40, "test": 40, "measured": 4,
        "classes": 10,
    }  # fmt: skip
    for final in result["final"]:
        assert [point["sigma2"] for point in final["sweep"]] == [5.0, 0.5]
        assert final["paper"] == 0.0559
        for point in final["sweep"]:
            assert len(point["per_token"]) == 49
            assert np.mean(point["per_token"]) == pytest.approx(point["sensitivity"], abs=1e-6)


def test_the_final_measurement_is_the_library_s(mlps, grey):
    result, _ = read(mlps)
    pair = [
        models.create(
            "mlp", rngs=nnx.Rngs(seed), image_size=28, patch_size=4, channels=1, classes=10
        )
        for seed in (0, 1)
    ]
    trainer = vision.Trainer(
        pair, vision.optimizer("sgd", None, 0.1, halved_after=16), batch_size=20
    )
    state = checkpoints.restore(mlps / "checkpoints" / "mlp", trainer.initial, step=4)
    split = load("fashion-mnist", str(grey)).train
    for option in (40, 4):
        split = vision.subset(split, option, "")
    for seed, model in enumerate(trainer.models(state)):
        estimate = jaxsens.sensitivity(
            model,
            split.inputs,
            key=jax.random.key(seed),
            tokens=jaxsens.Patches(4),
            noise=jaxsens.Gaussian(0.5),
            repeats=1,
        )
        assert estimate.value == result["final"][seed]["sweep"][1]["sensitivity"]


def test_random_pixels_beside_patches_and_paired_differences(grey, tmp_path, capsys):
    out = tmp_path / "run"
    words = ("--smoke", "--arch", "mlp", "mlp-sigmoid", "--tokens", "scatter", "--seeds", "2")
    assert execute(fashion_mnist, *words, "--data", grey, "--out", out) == 0
    result, lines = read(out)
    assert {"sensitivity", "sensitivity_scatter", "sensitivity_scatter_stderr"} <= set(lines[0])
    for final in result["final"]:
        (pixels,) = final["scatter"]
        assert (pixels["sigma2"], pixels["variance"]) == (5.0, 25.0)
        assert np.mean(pixels["per_token"]) == pytest.approx(pixels["sensitivity"], abs=1e-6)
    by_seed = {(line["field"], line["seed"]): line for line in result["paired"]}
    assert set(by_seed) == {(f, s) for f in ("sensitivity", "sensitivity_scatter") for s in (0, 1)}
    for (field, seed), line in by_seed.items():
        kind = "sweep" if field == "sensitivity" else "scatter"
        sigmoid, relu = (
            next(f for f in result["final"] if (f["model"], f["seed"]) == (name, seed))
            for name in ("mlp-sigmoid", "mlp")
        )
        assert line["difference"] == pytest.approx(
            sigmoid[kind][0]["sensitivity"] - relu[kind][0]["sensitivity"], abs=1e-9
        )
        assert line["stderr"] >= 0
    table = capsys.readouterr().out
    assert "of variance 25 on as many random pixels" in table
    assert table.count("paired: MLP, sigmoid minus MLP, LeakyReLU") == 2


@pytest.mark.slow
def test_both_optimizers_whole_images_augmentation_and_bfloat16(colour, tmp_path, capsys):
    out = tmp_path / "run"
    nets = ("--arch", "vit", "--depth", "1", "--heads", "1", "--optimizer", "sgd", "adam")
    options = ("--whole-input", "--smoke", "--augmentation", "crop-flip", "--dtype", "bfloat16")
    assert execute(cifar, *nets, *options, "--data", colour, "--out", out) == 0
    result, lines = read(out)
    names = list(dict.fromkeys(line["model"] for line in lines))
    assert names == ["vit depth 1 heads 1", "vit depth 1 heads 1 Adam"]
    assert [final["whole"]["sigma2"] for final in result["final"]] == [0.025] * 2
    assert [final["whole"]["paper"] for final in result["final"]] == [None] * 2  # another depth
    assert [final["paper"] for final in result["final"]] == [None] * 2
    *rows, patches, whole = capsys.readouterr().out.splitlines()[-4:]
    assert patches.startswith("sensitivity, paired: ViT-small, depth 1, heads 1, Adam minus ")
    assert whole.startswith("sensitivity whole, paired: ")
    assert [row.split("  ")[0] for row in rows] == [
        "ViT-small, depth 1, heads 1", "ViT-small, depth 1, heads 1, Adam"
    ]  # fmt: skip


def test_options_multiply_into_networks():
    config = cifar.Config(optimizer=("sgd", "adam"))
    assert len(vision_options.variants(config, cifar.TASK)) == 10
    config = cifar.Config(arch=("vit",), depth=(2, 8), heads=(4, 32), optimizer=("adam",))
    chosen = vision_options.variants(config, cifar.TASK)
    assert [dict(variant.widths) for variant in chosen] == [
        {"depth": depth, "heads": heads} for depth in (2, 8) for heads in (4, 32)
    ]
    assert len({variant.name for variant in chosen}) == 4


def test_it_ends_at_the_training_accuracy_that_was_asked_for(grey, tmp_path):
    out = tmp_path / "run"
    options = ("--arch", "mlp", "--every", "1", "--batch-size", "20", "--until", "0.9")
    assert execute(fashion_mnist, *options, "--data", grey, "--out", out) == 0
    _, lines = read(out)
    assert lines[-1]["train_accuracy"] >= 0.9
    assert all(line["train_accuracy"] < 0.9 for line in lines[:-1])
    assert lines[-1]["epoch"] < 100


@pytest.mark.parametrize("task", [cifar.TASK, fashion_mnist.TASK, svhn.TASK])
def test_every_network_of_every_table_can_be_built(task):
    size, channels = (28, 1) if task is fashion_mnist.TASK else (32, 3)
    for architecture in task.architectures.values():

        def build(architecture=architecture):
            return models.create(
                architecture.model,
                rngs=nnx.Rngs(0),
                image_size=size,
                patch_size=task.patch_size,
                channels=channels,
                classes=10,
                **architecture.widths,
            )

        assert jax.tree.leaves(nnx.eval_shape(build))


def test_adam_halves_its_rate_every_eight_epochs():
    steps, params = 3, jnp.zeros(1)
    adam = vision.optimizer("adam", None, 0.1, halved_after=8 * steps)
    state, rates = adam.init(params), []
    for _ in range(20 * steps):
        _, state = adam.update(jnp.ones(1), state, params)
        rates.append(float(optax.tree_utils.tree_get_all_with_path(
            state, "learning_rate", filtering=lambda _, value: isinstance(value, jax.Array)
        )[0][1]))  # fmt: skip
    expected = [0.002 * 0.5 ** (step // steps // 8) for step in range(20 * steps)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_sensitivity_at_equal_accuracy_is_read_between_two_evaluations():
    def lines(seed, accuracies, values):
        return [
            {"seed": seed, "train_accuracy": a, "sensitivity": v, "sensitivity_stderr": v / 10}
            for a, v in zip(accuracies, values, strict=True)
        ]

    first = lines(0, [0.1, 0.6, 0.8, 0.9], [0, 0.1, 0.3, 0.2])
    first += lines(1, [0.7, 0.6, 0.8, 0.95], [0.5, 0, 0, 0])
    second = lines(0, [0.2, 0.7, 0.65], [0, 0.5, 0.6])
    assert vision_report.common_accuracy({"a": first, "b": second}) == 0.7
    at = vision_report.at_accuracy(first, 0.7)
    assert [point["sensitivity"] for point in at] == pytest.approx([0.2, 0.5])
    assert [point["sensitivity_stderr"] for point in at] == pytest.approx([0.02, 0.05])
    assert vision_report.at_accuracy(second, 0.7)[0]["sensitivity"] == 0.5


def test_the_table_names_the_data_and_the_paper(mlps):
    text = vision_report.summary(RunRecord(mlps))
    first, header, _, row = text.splitlines()
    assert first.startswith("fashion-mnist: 40 training and 40 test images; sensitivity on 4")
    assert header.split("  ")[-1] == "paper"
    assert row.endswith("0.0559")
    assert json.loads((mlps / "config.json").read_text())["experiment"] == "fashion_mnist"
