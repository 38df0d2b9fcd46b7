"""python -m experiments.imagenet: what cannot be is one line, exit 2, and nothing written."""

import numpy as np
import pytest
from huggingface_hub import constants
from witnesses.commands import execute
from witnesses.small_imagenet import RUN, tree

from experiments import imagenet

pytestmark = pytest.mark.usefixtures("small")


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
