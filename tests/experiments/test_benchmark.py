"""The benchmarks: contenders count what they say, errors are one line, the record is whole."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.benchmark import corruptions, models, sensitivity, timing
from experiments.run.cli import UserError


def command(*args):
    return subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", *args], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("args", "fragment"),
    [
        (("nothing",), "nothing"),
        (("sensitivity", "--rounds", "0"), "--rounds must be at least 1, got 0"),
        (("sensitivity", "--out", "pyproject.toml"), "pyproject.toml exists"),
        (("models", "--arch", "vit", "lstm"), "--arch must be among vit, vit-simple, "),
        (("models", "--batch-size", "0"), "--batch-size must be at least 1, got 0"),
        (("corruptions", "--images", "0"), "--images must be at least 1, got 0"),
        (("theory", "--d", "1"), "--d must lie between 2 and 4096, got 1"),
    ],
)
def test_errors_are_one_line(args, fragment):
    run = command(*args)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert fragment in run.stderr


def test_rates_take_turns_and_leave_the_first_call_out():
    calls = []
    contenders = {
        name: timing.Contender(lambda name=name: calls.append(name), passes=10) for name in "ab"
    }
    measured = timing.rates(contenders, rounds=4)
    assert calls == list("ab" + "ab" + "ba" + "ab" + "ba")
    assert {name: len(times) for name, times in measured.items()} == {"a": 4, "b": 4}


def test_ratios_are_taken_round_by_round():
    measured = {"a": [1.0, 10.0, 4.0], "b": [2.0, 20.0, 2.0]}
    assert timing.against(measured, "a", "b") == 0.5
    assert timing.beside(measured, "a") == [["a", "4.0", "1.00"], ["b", "2.0", "0.50"]]


def test_every_contender_measures_the_same_network():
    """The loops are other estimators of the same number."""
    import jax
    from flax import nnx

    import jaxsens
    from jaxsens import Gaussian, Patches

    model = jaxsens.models.create(
        "mlp", rngs=nnx.Rngs(0), patch_size=7, hidden=(100,), **sensitivity.IMAGE
    )  # fmt: skip
    images = np.random.default_rng(0).normal(size=(150, 28, 28, 1)).astype(np.float32)
    torch_loop = sensitivity._torch(model, "mlp", {"hidden": (100,)}, images, 64, 4)
    est = jaxsens.sensitivity(
        model, images, key=jax.random.key(0), tokens=Patches(7), noise=Gaussian(1.0), repeats=4
    )
    forward = jax.jit(lambda model, images: model(images))
    loops = [sensitivity._loop(forward, model, images, 64, 4)]
    loops += [torch_loop()] if torch_loop else []
    for value in loops:  # the same images, so the noise alone differs
        assert abs(value - est.value) < 5 * np.sqrt(2 * est.value / (150 * 16 * 4))


@pytest.mark.slow
def test_smoke(tmp_path):
    out = tmp_path / "record.json"
    run = command("sensitivity", "--smoke", "--out", str(out))
    assert run.returncode == 0, run.stderr
    assert "plain forward passes" in run.stdout
    record = json.loads(out.read_text())
    assert record["import_seconds_beyond_jax_and_flax"] > 0
    assert {n["network"] for n in record["networks"]} == set(sensitivity.NETWORKS)
    for network in record["networks"]:
        assert network["forward_passes"] == 64 * 17
        assert all(rate > 0 for rate in network["passes_per_second"].values())


def small(name, batches=2, batch=3):
    """A network of the table, and random data for it."""
    import jax
    from flax import nnx

    from jaxsens.data.split import Split
    from jaxsens.models import create

    architecture, settings = models.NETWORKS[name]
    size = settings["image_size"]
    images = jax.random.normal(jax.random.key(0), (batches * batch, size, size, 3))
    images = np.asarray(images[..., : settings["channels"]])
    data = Split(images, np.arange(len(images), dtype=np.int32) % 10)
    return create(architecture, rngs=nnx.Rngs(0), **settings), data


def test_the_networks_are_those_of_the_papers_tables():
    assert list(models.NETWORKS) == [
        "vit", "vit-simple", "convmixer", "resnet18", "densenet121",
        "fashion-vit", "fashion-cnn", "fashion-mlp", "fashion-mlp-sigmoid",
    ]  # fmt: skip
    assert {model for model, _ in models.NETWORKS.values()} == set(models.STATEMENTS)


@pytest.mark.parametrize("name", ["convmixer", "fashion-vit", "fashion-mlp-sigmoid"])
def test_both_sides_of_a_comparison_are_one_network(name):
    """As many parameters; in PyTorch as many forward passes, and steps that move the weights."""
    import jax
    from flax import nnx

    torch = pytest.importorskip("torch")
    model, data = small(name)
    architecture, settings = models.NETWORKS[name]
    passes, weights = [], []

    def look(module, inputs):
        if type(module).__name__ == models.STATEMENTS[architecture][1]:
            passes.append((module.training, tuple(inputs[0].shape)))
            weights.append([p.detach().clone() for p in module.parameters()])

    theirs = models.in_torch(architecture, settings, data, 3)
    handle = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        theirs["inference"]()
        theirs["training"]()
    finally:
        handle.remove()
    shape = (3, settings["channels"], *data.inputs.shape[1:3])
    assert passes == [(False, shape)] * 2 + [(True, shape)] * 2
    expected = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert [sum(p.numel() for p in part) for part in weights] == [expected] * 4
    assert all((a != b).any() for a, b in zip(*weights[2:], strict=True))


def test_training_here_makes_an_epoch_of_steps_a_call(monkeypatch):
    model, data = small("fashion-mlp", batches=3)
    states = []
    epochs = models.Trainer.epochs
    monkeypatch.setattr(
        models.Trainer, "epochs", lambda *args: states.append(epochs(*args)) or states[-1]
    )
    run = models.training(model, data, 3)
    run()
    run()
    assert [int(state.step[0]) for state, _ in states[1:]] == [6]
    assert [losses.shape for _, losses in states] == [(1, 1, 3)] * 2


def test_the_arithmetic_of_a_pass_is_counted():
    """Against the matrix products of an MLP by hand, and PyTorch's count for a convolution."""
    model, data = small("fashion-mlp")
    by_hand = 2 * (784 * 512 + 512 * 128 + 128 * 10)
    assert models.flops_per_image(model, data.inputs) == pytest.approx(by_hand, rel=0.01)
    flop_counter = pytest.importorskip("torch.utils.flop_counter")
    model, data = small("fashion-cnn", batches=1)
    theirs = models.in_torch(*models.NETWORKS["fashion-cnn"], data, 3)["inference"]
    with flop_counter.FlopCounterMode(display=False) as counter:
        theirs()
    ours = models.flops_per_image(model, data.inputs)
    assert ours == pytest.approx(counter.get_total_flops() / 3, rel=0.03)


def test_the_arithmetic_of_a_measurement(monkeypatch):
    begun = time.perf_counter()
    found = models.in_bfloat16("fashion-mlp", 1e6, rounds=1, examples=10)
    # One call of the two that were made: every one of 49 patches five times, and the images.
    assert found["passes_per_second"] > 10 * (49 * 5 + 1) / (time.perf_counter() - begun)
    assert found["flop_per_second"] == found["passes_per_second"] * 1e6
    assert found["share_of_rated"] is None  # a CPU is not on the list
    monkeypatch.setitem(models.RATED, "cpu", 1e9)
    found = models.in_bfloat16("fashion-mlp", 1e6, rounds=1, examples=10)
    assert found["share_of_rated"] == found["flop_per_second"] / 1e9


def test_the_report_of_the_models():
    result = {
        "network": "net", "gflop_per_image": 0.5, "against_pytorch": {"inference": 2.0},
        "images_per_second": {"inference": 100.0, "inference, PyTorch": 50.0, "training": 10.0},
        "compile_seconds": {"inference": 1.0, "training": 3.0},
        "sensitivity": {
            "passes_per_second": 4000.0, "flop_per_second": 2e12, "share_of_rated": 0.25
        },
    }  # fmt: skip
    *_, inference, training, measurement = models._report([result]).splitlines()
    assert inference.split() == ["net", "inference", "100", "50", "2.00", "50", "1.0"]
    assert training.split() == ["net", "training", "10", "15", "3.0"]
    assert measurement == (
        "net: sensitivity in bfloat16 takes 4,000 passes/s, 2.0 TFLOP/s, 25.0% of rated"
    )


@pytest.mark.slow
def test_smoke_of_the_models(tmp_path):
    out = tmp_path / "record.json"
    run = command("models", "--smoke", "--out", str(out))
    assert run.returncode == 0, run.stderr
    record = json.loads(out.read_text())
    assert [n["network"] for n in record["networks"]] == ["fashion-cnn", "fashion-mlp"]
    for network in record["networks"]:
        assert {"inference", "training"} <= set(network["images_per_second"])
        assert all(rate > 0 for rate in network["images_per_second"].values())
        assert (network["sensitivity"] is None) == ("PyTorch" in str(network))


def test_corruptions_stand_beside_those_of_another_interpreter(tmp_path):
    package = tmp_path / "imagecorruptions.py"
    package.write_text(
        "import time\n"
        "def corrupt(image, corruption_name, severity):\n"
        "    if corruption_name == 'fog':\n"
        "        raise ValueError('expect 224')\n"
        "    time.sleep(0.0002)\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    images = np.zeros((2, 32, 32, 3), np.uint8)
    found = corruptions.of_peer(python, images)
    assert found.pop("fog") == "ValueError: expect 224"
    assert set(found) == set(corruptions.NAMES) - {"fog"}
    assert all(0.0008 < seconds < 0.1 for seconds in found.values())  # five severities
    package.unlink()
    assert corruptions.of_peer(python, images) == {}
    with pytest.raises(UserError, match="is no file; expected a Python that has"):
        corruptions.of_peer(tmp_path / "none", images)
    assert corruptions.extra_bytes(images, "fog") > 0


@pytest.mark.slow
def test_the_benchmark_of_corruptions():
    run = command("corruptions", "--smoke")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1].startswith(("imagecorruptions, image by", "no imagecorr"))
