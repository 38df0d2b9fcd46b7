"""A path may be a string wherever it may be a Path: every public function that takes one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from witnesses import small_runs
from witnesses.small_imagenet import WIDTHS, write_weights

from jaxsens import checkpoints, corruptions, data, models
from jaxsens.data import imagenet, text
from jaxsens.weights import files
from jaxsens.weights.pretrained import load_pretrained

STATE = {"w": jnp.arange(3.0)}
IMAGES = np.zeros((1, 8, 8, 3), np.uint8)
MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\ta b\ta c\n0\t9\t10\td e\tf g\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Something to read of every kind."""
    root = tmp_path_factory.mktemp("paths")
    small_runs.write_images(root / "grey.npz", 28, 1)
    write_weights(root / "weights.npz")
    for name in ("train.tsv", "dev.tsv"):
        (root / name).write_text(MRPC)
    tokenizer = text.Tokenizer.train(["a b c d"] * 5, vocabulary=300)
    (root / "tokenizer.json").write_text(tokenizer.to_json())
    for label in ("cat", "dog"):
        (root / "tree" / "train" / label).mkdir(parents=True)
        Image.fromarray(IMAGES[0]).save(root / "tree" / "train" / label / "a.png")
    Image.fromarray(np.full((50, 50, 3), 200, np.uint8)).save(root / "frost.png")
    checkpoints.save(root / "saved", STATE, step=1)
    return root


def saved(path):
    checkpoints.save(path, STATE, step=1)
    checkpoints.tidy(path)
    found = checkpoints.restore_newest(path, STATE)
    return (checkpoints.steps(path), checkpoints.latest(path), found.step, found.state)


# name: the file or folder, and what is read of it
READERS = {
    "checkpoints.save": ("saved", saved),
    "checkpoints.restore": ("saved", lambda path: checkpoints.restore(path, STATE, step=1)),
    "data.load": ("grey.npz", lambda path: data.load("fashion-mnist", path).train.inputs.sum()),
    "data.ImageTree": ("tree", lambda path: data.ImageTree(path, "train").names),
    "data.ImageTree.find": ("tree", lambda path: data.ImageTree.find(path, "train")),
    "data.text.load": (".", lambda path: repr(text.load("mrpc", path))),
    "data.text.Tokenizer": ("tokenizer.json", lambda path: text.Tokenizer.read(path).to_json()),
    "corruptions.corrupt": (
        ".",
        lambda path: corruptions.corrupt(
            IMAGES, "frost", 3, key=jax.random.key(0), frost_images=path
        ),
    ),
    "weights.files": (
        "weights.npz",
        lambda path: (files.weight_files(path), sorted(files.open_weights(path))),
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_a_string_is_a_path(folder, name):
    file, read = READERS[name]
    one, other = read(folder / file), read(str(folder / file))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert jax.tree.structure(one) == jax.tree.structure(other)


@pytest.mark.parametrize("call", [load_pretrained, models.load_pretrained])
def test_weights_by_a_string(folder, call):
    sizes = {"image_size": 32, "patch_size": 16, "channels": 3, "classes": 1000, **WIDTHS}
    shapes = nnx.eval_shape(lambda: models.create("vit-ti16", rngs=nnx.Rngs(0), **sizes))
    file = folder / "weights.npz"
    one, other = (nnx.state(call(shapes, path)) for path in (file, str(file)))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_photographs_by_a_string(tmp_path):
    for path in (tmp_path / "nothing", str(tmp_path / "nothing")):
        with pytest.raises(data.DataError, match="nothing"):
            imagenet.open_images(path, "val")
