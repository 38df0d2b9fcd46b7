"""The benchmarks: contenders count what they say, errors are one line, the record is whole."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments.benchmark import sensitivity, timing


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


def test_every_contender_measures_the_same_network():
    """The loops are other estimators of the same number."""
    import jax
    from flax import nnx

    import jaxsens
    from jaxsens import Gaussian, Patches, models

    model = models.create(
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
