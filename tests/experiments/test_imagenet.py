"""python -m experiments.imagenet: exact totals over a stream, resumption, and every error."""

import io
import json
import shutil
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import jaxsens
from experiments import imagenet, redraw
from experiments.common import cli, imagenet_report, report
from jaxsens import models
from jaxsens.data.imagenet import open_images, square
from jaxsens.models import hub
from jaxsens.models.pretrained import load_pretrained

FILES = {"config.json", "metrics.jsonl", "result.json", "imagenet.png"}
TINY = hub.Published("vit-ti16", 32, "timm/none", 1.0, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 0.875)
WIDTHS = {"depth": 1, "heads": 2, "dim": 24, "mlp_dim": 32}
RUN = ("--arch", "vit-ti16", "--data", "embedded", "--examples", "8", "--repeats", "3",
       "--batch-size", "16", "--variance", "15", "60")  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A network of one block for 32 pixels, and three images a batch: the same code, less to do."""
    shrink(monkeypatch)


def shrink(patch):
    patch.setattr(hub, "PUBLISHED", (TINY,))
    patch.setitem(models._ARCHITECTURES, "vit-ti16", (models.ViT, WIDTHS))
    patch.setattr(imagenet, "IMAGES", 3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small ViT for 32 pixels in timm's layout, whose decisions change now and then."""
    dim, mlp, rng = WIDTHS["dim"], WIDTHS["mlp_dim"], np.random.default_rng(0)
    arrays = {
        "cls_token": rng.normal(size=(1, 1, dim)),
        "pos_embed": rng.normal(size=(1, 5, dim)),
        "patch_embed.proj.weight": rng.normal(size=(dim, 3, 16, 16)) / 28,
        "patch_embed.proj.bias": rng.normal(size=dim),
        "head.weight": rng.normal(size=(1000, dim)) / dim**0.5,
        "head.bias": rng.normal(size=1000) / 10,
    }
    for norm in ("blocks.0.norm1", "blocks.0.norm2", "norm"):
        arrays[f"{norm}.weight"] = 1 + 0.1 * rng.normal(size=dim)
        arrays[f"{norm}.bias"] = 0.1 * rng.normal(size=dim)
    for layer, shape in {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim),
                         "mlp.fc1": (mlp, dim), "mlp.fc2": (dim, mlp)}.items():  # fmt: skip
        arrays[f"blocks.0.{layer}.weight"] = rng.normal(size=shape) / shape[1] ** 0.5
        arrays[f"blocks.0.{layer}.bias"] = 0.1 * rng.normal(size=shape[0])
    path = tmp_path_factory.mktemp("weights") / "tiny.npz"
    np.savez(path, **{name: array.astype(np.float32) for name, array in arrays.items()})
    return path


def execute(module, *args):
    """Exit status of a command, run in this process."""
    argv, sys.argv = sys.argv, ["prog", *map(str, args)]
    try:
        cli.run(module.main, module.Config, prog=module.__name__)
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = argv
    return 0


def read(directory):
    result = json.loads((directory / "result.json").read_text())
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return result, lines


def timeless(value):
    if isinstance(value, dict):
        return {
            k: timeless(v) for k, v in value.items() if k not in ("seconds", "command", "commit")
        }
    return [timeless(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module")
def measured(tmp_path_factory, weights):
    out = tmp_path_factory.mktemp("imagenet") / "run"
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        assert execute(imagenet, *RUN, "--weights", weights, "--out", out) == 0
    return out


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
    assert {path.name for path in measured.iterdir()} == FILES
    assert (measured / "imagenet.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_run_resumes_to_the_same_result(
    measured, weights, tmp_path, monkeypatch, capsys
):
    calls, original = [], jaxsens.sensitivity

    def interrupted(*args, **settings):
        calls.append(1)
        if len(calls) == 4:  # in the middle of the second batch
            raise KeyboardInterrupt
        return original(*args, **settings)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(jaxsens, "sensitivity", interrupted)
        assert execute(imagenet, *RUN, "--weights", weights, "--out", out) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"interrupted; 3 images of vit-ti16 are recorded: go on with --resume --out {out}"
    )
    other = tmp_path / "tiny.npz"
    arrays = dict(np.load(weights))
    np.savez(other, **{**arrays, "head.bias": arrays["head.bias"] + 1})
    again = (*RUN, "--out", out, "--resume")
    shutil.copy(weights, tmp_path / "aside.npz")
    shutil.move(other, weights)
    try:
        assert execute(imagenet, *again, "--weights", weights) == 2
    finally:
        shutil.move(tmp_path / "aside.npz", weights)
    assert "was measured with other weights or images" in capsys.readouterr().err
    assert execute(imagenet, *again, "--weights", weights) == 0
    assert timeless(read(out)) == timeless(read(measured))
    assert (out / "imagenet.png").read_bytes() == (measured / "imagenet.png").read_bytes()


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


def tree(path, count=1000, value=0):
    """A zip of 1000 classes of one coloured square each."""
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            image = io.BytesIO()
            Image.new("RGB", (8, 8), (i % 256, 3 * i % 256, value)).save(image, "PNG")
            archive.writestr(f"val/n{i:08d}/a.png", image.getvalue())
    return path


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
    args = ("--arch", "vit-ti16", "--data", path, "--split", "val", "--examples", "5",
            "--repeats", "1", "--batch-size", "16", "--variance", "15")  # fmt: skip
    out = ("--weights", tmp_path / "taught.npz", "--out", tmp_path / "run")
    assert execute(imagenet, *args, *out) == 0
    (final,) = read(tmp_path / "run")[0]["final"]
    right = (wanted[chosen] == chosen).mean()
    assert 0 < right < 1
    assert final["accuracy"] == right
    table = capsys.readouterr().out
    assert "val acc. %" in table
    assert f"{100 * right:.2f}" in table
    assert "taught.npz" in table


def test_figures_are_redrawn_from_the_record_alone(measured, tmp_path, monkeypatch, capsys):
    for name in ("config.json", "metrics.jsonl", "result.json"):
        shutil.copy(measured / name, tmp_path / name)
    monkeypatch.setattr(imagenet, "open_images", None)  # no data, no network
    monkeypatch.setattr(imagenet, "load_network", None)
    assert execute(redraw, tmp_path) == 0
    assert capsys.readouterr() == (f"redrew {tmp_path}\n", "")
    assert (tmp_path / "imagenet.png").read_bytes() == (measured / "imagenet.png").read_bytes()
    (tmp_path / "result.json").write_text("{}")
    assert execute(redraw, tmp_path) == 2
    assert "is damaged: it lacks 'final'" in capsys.readouterr().err


def texts(directory, monkeypatch):
    """Every text in the figure of a run."""
    drawn = []
    with monkeypatch.context() as patch:
        patch.setattr(report, "save", lambda figure, path: drawn.append(figure))
        imagenet_report.draw(imagenet.RunRecord(directory))
    (figure,) = drawn
    figure.canvas.draw()
    from matplotlib.text import Text

    return " | ".join(text.get_text() for text in figure.findobj(Text))


def test_random_weights_never_pass_for_pretrained_ones(measured, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(imagenet.PAPER, "vit-ti16", 0.1234)
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
    ("weights", "patch", "wanted"),
    [("w.npz", 16, [0.1234, None]), ("w.npz", 8, [None, None]), ("RANDOM", 16, [None, None])],
)
def test_the_papers_numbers_stand_beside_its_own_setting_only(
    measured, tmp_path, monkeypatch, weights, patch, wanted
):
    monkeypatch.setitem(imagenet.PAPER, "vit-ti16", 0.1234)
    record = imagenet.RunRecord(tmp_path)
    record.lines = imagenet.RunRecord(measured).read_metrics()
    config = imagenet.Config(variance=(15.0, 60.0), repeats=3, patch_size=patch)
    network = imagenet.Network("vit-ti16", TINY, None, weights, None)
    final = imagenet.totals(network, config, record)
    assert [line["paper"] for line in final] == wanted
    data = {"source": "embedded", "split": "train", "labelled": False}
    record.finish({"final": final, "data": data}, seconds=0.0)
    assert ("ViT-Ti/16, paper" in texts(tmp_path, monkeypatch)) == any(wanted)
    assert ("0.1234" in imagenet_report.summary(record)) == any(wanted)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--arch", "vit"], "--arch must be vit-l16, convnextv2-tiny, vit-ti16, convnextv2-atto"),
        (["--seeds", "2"], "--seeds must be 1, got 2: nothing is trained here"),
        (["--seed", "-1"], "--seed must lie between 0 and"),
        *(([f"--{name}", "0"], f"--{name} must be at least 1, got 0")
          for name in ("repeats", "patch-size", "batch-size", "tokens-per-example")),
        *((["--variance", value], "--variance must be finite and greater than 0, got")
          for value in ("0", "-1", "nan", "inf")),
        (["--variance", "1", "2", "1"], "--variance must be numbers that differ"),
        (["--variance"], "--variance"),
        (["--patch-size", "15"], "--patch-size must divide the 32 pixels of vit-ti16, got 15"),
        (["--tokens-per-example", "5"], "must be at most the 4 patches of an image for vit-ti16"),
        (["--image-size", "224"], "weights of vit-ti16 are published for images of 32, not 224"),
        (["--examples", "1"], "--examples must lie between 2 and 10, the number of images, got 1"),
        (["--examples", "11"], "--examples must lie between 2 and 10, the number of images, got"),
        (["--weights", "none.npz"], "there is no weights file none.npz"),
        (["--weights", "foreign/notes.txt"], "is no weights file: expected a name that ends in"),
        (["--weights", "w.pth"], "w.pth is a pickle, which may run any code"),
        (["--weights", "cut.npz"], "cut.npz is no whole .npz file"),
        (["--weights", "x.npz", "--arch", "all"], "--weights PATH is of one network: name it with"),
        (["--smoke", "--weights", "x.npz", "--arch", "vit-ti16"], "--smoke measures random"),
        (["--data", "nowhere"], "there is no file or directory nowhere"),
        (["--data", "few.zip", "--split", "val"], "few.zip has not all classes in val (3 folders)"),
        (["--data", "few.zip"], "few.zip holds no train/"),
        (["--dtype", "float16"], "--dtype"),
        (["--resume"], "--resume needs --out"),
        (["--resume", "--out", "foreign"], "foreign holds no run"),
        (["--out", "foreign"], "foreign exists; choose another --out, or --resume"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_writes_nothing(
    tmp_path, monkeypatch, capsys, args, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    (tmp_path / "w.pth").write_text("")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    tree(tmp_path / "few.zip", count=3)
    before = sorted(tmp_path.rglob("*"))
    if args[:1] in (["--resume"], ["--out"]):  # the record comes last; spare it the network
        monkeypatch.setattr(imagenet, "load_network", lambda entry, config: None)
    base = ("--arch", "vit-ti16", "--data", "embedded", "--examples", "5", "--weights", "random")
    if args[0] == "--smoke":
        base = ()
    assert execute(imagenet, *base, *args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before


def test_the_hub_without_a_network_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "HUB", "https://nowhere.invalid")
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nothing listens
    assert execute(imagenet, *RUN) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "fetching timm/none, unless it was before"
    assert "nowhere.invalid/timm/none/resolve/main/model.safetensors cannot be fetch" in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not (tmp_path / "runs").exists()


def test_a_network_that_overflows_is_one_line(weights, tmp_path, capsys):
    arrays = dict(np.load(weights))
    arrays["patch_embed.proj.weight"] = np.full_like(arrays["patch_embed.proj.weight"], 1e38)
    np.savez(tmp_path / "huge.npz", **arrays)
    huge = ("--weights", tmp_path / "huge.npz", "--out", tmp_path / "run")
    assert execute(imagenet, *RUN, *huge) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: vit-ti16 with the weights huge.npz: the model returned NaN")


def test_a_damaged_image_ends_the_run_in_one_line(weights, tmp_path, capsys):
    path = tree(tmp_path / "images.zip")
    content = bytearray(path.read_bytes())
    place = content.index(b"IDAT") + 8
    content[place : place + 4] = b"\0\0\0\0"  # the first image, which the checksums give away
    path.write_bytes(content)
    args = ("--data", path, "--split", "val", "--examples", "1000", "--tokens-per-example", "1",
            "--repeats", "1", "--weights", weights, "--arch", "vit-ti16")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagenet, "IMAGES", 1000)
        assert execute(imagenet, *args, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: n00000000/a.png in ")


@pytest.mark.slow
def test_the_smoke_run_at_full_size(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    assert execute(imagenet, "--smoke", "--out", tmp_path / "run") == 0
    result, lines = read(tmp_path / "run")
    assert [line["model"] for line in lines] == ["vit-ti16", "convnextv2-atto"]
    assert {final["image_size"] for final in result["final"]} == {224}
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
