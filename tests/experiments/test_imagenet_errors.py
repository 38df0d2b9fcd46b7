"""python -m experiments.imagenet: what cannot be is one line, exit 2, and nothing written."""

import numpy as np
import pytest
from huggingface_hub import constants
from witnesses.commands import execute
from witnesses.small_imagenet import RUN, tree

from experiments import imagenet

pytestmark = pytest.mark.usefixtures("small")


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
    place = "http://127.0.0.1:9"  # where nothing listens
    monkeypatch.setattr(constants, "ENDPOINT", place)
    template = place + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert execute(imagenet, *RUN) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "fetching timm/none, unless it was before"
    assert "model.safetensors of timm/none (main) cannot be fetched from the hub" in err
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
