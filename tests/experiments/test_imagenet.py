"""python -m experiments.imagenet: exact totals over a stream, resumption, table and figure."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from witnesses.commands import execute, read
from witnesses.small_imagenet import RUN, TINY, tree

import jaxsens
from experiments import imagenet, paper
from experiments.run import report
from experiments.run.record import RunRecord
from experiments.vision import imagenet_report
from jaxsens import models
from jaxsens.data.images.imagenet import open_images, square
from jaxsens.weights.pretrained import load_pretrained

FILES = {"config.json", "metrics.jsonl", "result.json", "imagenet.png"}


pytestmark = [
    pytest.mark.usefixtures("small"),
    pytest.mark.filterwarnings("ignore:an interval from"),  # of a handful of images
]


@pytest.fixture
def measured(finished):
    return finished("imagenet")


def network(path):
    """The network of the run, loaded once more, and its view of pixels in [-1, 1], by hand."""
    sizes = {"image_size": 32, "patch_size": 16, "channels": 3, "classes": 1000}
    shapes = nnx.eval_shape(lambda: models.create("vit-ti16", rngs=nnx.Rngs(0), **sizes))
    model = load_pretrained(shapes, path)
    return jax.tree_util.Partial(by_hand, model)


def by_hand(model, pixels):
    mean, std = (jnp.array([[[v]]], jnp.float32) for v in (TINY.mean, TINY.std))
    return model(((pixels + 1) / 2 - mean) / std)


def test_the_totals_are_those_of_all_images_at_once(measured, weights):
    """The rates of every image in one table, with the standard error that is defined for them."""
    source = open_images("embedded", "train")
    order = np.random.default_rng(0).permutation(10)[:8]
    pixels = np.stack([np.asarray(square(source.read(i)[0], 32, 0.875)) for i in order])
    result, lines = read(measured)
    assert [(line["batch"], line["examples"]) for line in lines] == [(0, 3), (1, 3), (2, 2)]
    model = network(weights)
    for number, final in enumerate(result["final"]):
        rates = [
            jaxsens.sensitivity(
                model,
                (pixels[3 * b : 3 * b + 3] / 127.5 - 1).astype(np.float32),
                key=jax.random.fold_in(jax.random.key(0), b),
                tokens=jaxsens.Patches(16),
                noise=jaxsens.Gaussian([15.0, 60.0][number]),
                repeats=3,
            ).rates
            for b in range(3)
        ]
        whole = jaxsens.SensitivityEstimate(np.concatenate(rates), 8 * 13)
        assert 0.05 < whole.value < 0.95
        assert final["sensitivity"] == pytest.approx(whole.value, abs=1e-12)
        assert final["sensitivity_stderr"] == pytest.approx(whole.stderr, rel=1e-9)
        assert final["sensitivity_interval"] == pytest.approx(whole.interval(), rel=1e-9)
        np.testing.assert_allclose(final["sensitivity_per_token"], whole.per_token, atol=1e-12)
        assert (final["examples"], final["variance"]) == (8, [15.0, 60.0][number])
        assert final["forward_passes"] == 2 * 8 * 13
        assert final["accuracy"] is None


def test_a_run_is_resumed_with_its_own_weights_alone(measured, weights, tmp_path, capsys):
    other = tmp_path / "tiny.npz"
    arrays = dict(np.load(weights))
    np.savez(other, **{**arrays, "head.bias": arrays["head.bias"] + 1})
    again = (*RUN, "--out", measured, "--resume")
    shutil.copy(weights, tmp_path / "aside.npz")
    shutil.move(other, weights)
    try:
        assert execute(imagenet, *again, "--weights", weights) == 2
    finally:
        shutil.move(tmp_path / "aside.npz", weights)
    assert "was measured with other weights or images" in capsys.readouterr().err


def test_tokens_are_sampled_without_bias_in_the_counts(weights, tmp_path):
    args = ("--tokens-per-example", "2", "--variance", "60", "--weights", weights)
    assert execute(imagenet, *RUN[:-3], *args, "--out", tmp_path / "run") == 0
    result, lines = read(tmp_path / "run")
    (final,) = result["final"]
    draws = np.sum([line["token_draws"] for line in lines], axis=0)
    assert draws.sum() == 8 * 2 * 3
    flips = np.concatenate([line["flips"][0] for line in lines])
    assert final["sensitivity"] == pytest.approx(flips.mean() / 6)
    by_token = np.sum([line["token_flips"][0] for line in lines], axis=0)
    assert by_token.sum() == flips.sum() > 0
    np.testing.assert_allclose(final["sensitivity_per_token"], by_token / draws)
    assert final["forward_passes"] == 8 * 7


def test_accuracy_is_counted_where_there_are_labels(weights, tmp_path, capsys):
    path = tree(tmp_path / "images.zip")
    source = open_images(path, "val")
    shade = np.stack([np.asarray(square(source.read(i)[0], 32, 0.875)) for i in range(1000)])
    predict = jax.jit(lambda model: jnp.argmax(model(jnp.asarray(shade) / 127.5 - 1), 1))
    classes = np.asarray(predict(network(weights)))
    # Trade the places of classes in the head, so that some images that seed 0 chooses are right.
    chosen = np.random.default_rng(0).permutation(1000)[:5]
    taught = dict(np.load(weights))
    swap = np.arange(1000)
    for image in chosen[:2]:  # two of five images get the class that they are in
        a, b = swap[image], classes[image]
        place = int(np.flatnonzero(swap == b)[0])
        swap[image], swap[place] = b, a
    for name in ("head.weight", "head.bias"):
        taught[name] = taught[name][swap]
    np.savez(tmp_path / "taught.npz", **taught)
    wanted = np.asarray(predict(network(tmp_path / "taught.npz")))
    args = ("--data", path, "--split", "val", "--examples", "5")
    out = ("--weights", tmp_path / "taught.npz", "--out", tmp_path / "run")
    assert execute(imagenet, *RUN, *args, *out) == 0
    final, _ = read(tmp_path / "run")[0]["final"]
    right = (wanted[chosen] == chosen).mean()
    assert 0 < right < 1
    assert final["accuracy"] == right
    table = capsys.readouterr().out
    assert "val acc. %" in table
    assert f"{100 * right:.2f}" in table
    assert "taught.npz" in table


# A number that no paper prints, of the small network.
PRINTED = (paper.Claim("A", "Section 5", "ViT-Ti/16", "sensitivity", 0.1234, "none"),)


def texts(directory, monkeypatch):
    """Every text in the figure of a run."""
    drawn = []
    with monkeypatch.context() as patch:
        patch.setattr(report, "save", lambda figure, path: drawn.append(figure))
        imagenet_report.draw(RunRecord(directory))
    (figure,) = drawn
    figure.canvas.draw()
    from matplotlib.text import Text

    return " | ".join(text.get_text() for text in figure.findobj(Text))


def test_random_weights_never_pass_for_pretrained_ones(measured, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paper, "CLAIMS", PRINTED)
    out = tmp_path / "run"
    assert execute(imagenet, "--smoke", "--arch", "vit-ti16", "--out", out) == 0
    table = capsys.readouterr().out
    assert table.startswith("RANDOM WEIGHTS: ")
    assert table.rstrip().endswith("RANDOM WEIGHTS: not a result")
    assert "0.1234" not in table
    result, lines = read(out)
    assert json.loads((out / "config.json").read_text())["weights"] == "random"
    assert {line["weights"] for line in (*lines, *result["final"])} == {"RANDOM"}
    assert {line["paper"] for line in result["final"]} == {None}
    assert "RANDOM WEIGHTS: not a result" in texts(out, monkeypatch)
    assert "ViT-Ti/16, RANDOM weights" in texts(out, monkeypatch)
    assert "RANDOM" not in texts(measured, monkeypatch)


@pytest.mark.parametrize(
    ("name", "patch", "wanted"),
    [("w.npz", 16, [0.1234, None]), ("w.npz", 8, [None, None]), ("RANDOM", 16, [None, None])],
)
def test_the_papers_numbers_stand_beside_its_own_setting_only(
    measured, tmp_path, monkeypatch, name, patch, wanted
):
    monkeypatch.setattr(paper, "CLAIMS", PRINTED)
    record = RunRecord(tmp_path)
    record.lines = RunRecord(measured).read_metrics()
    config = imagenet.Config(variance=(15.0, 60.0), repeats=3, patch_size=patch)
    network = imagenet.Network("vit-ti16", TINY, None, name, None)
    final = imagenet.totals(network, config, record)
    assert [line["paper"] for line in final] == wanted
    data = {"source": "embedded", "split": "train", "labelled": False}
    record.finish({"final": final, "data": data}, seconds=0.0)
    assert ("ViT-Ti/16, paper" in texts(tmp_path, monkeypatch)) == any(wanted)
    assert ("0.1234" in imagenet_report.summary(record)) == any(wanted)


@pytest.mark.slow
def test_the_smoke_run_at_full_size(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    assert execute(imagenet, "--smoke", "--out", tmp_path / "run") == 0
    result, lines = read(tmp_path / "run")
    assert [line["model"] for line in lines] == ["vit-ti16", "convnextv2-atto"]
    assert {final["image_size"] for final in result["final"]} == {224}
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
