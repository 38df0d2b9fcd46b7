"""Checkpoints come back bit for bit, survive interruptions, and refuse what is not theirs."""

import json
import resource
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxsens import checkpoints
from jaxsens.checkpoints import CheckpointError
from jaxsens.training import Trainer


class Net(nnx.Module):
    """Parameters in two precisions, BatchNorm statistics, and a random stream of its own."""

    def __init__(self, *, rngs, width=4):
        self.dense = nnx.Linear(3, width, rngs=rngs, param_dtype=jnp.bfloat16)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)


def state(width=4, optimizer=None):
    models = [Net(rngs=nnx.Rngs(seed), width=width) for seed in range(2)]
    return Trainer(models, optimizer or optax.adam(0.1), batch_size=1).initial


def bits(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes()


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape, bits(x)) == (y.dtype, y.shape, bits(y))


ODD = {
    "bfloat16": jnp.array([1.7, -0.0, jnp.nan, jnp.inf], jnp.bfloat16),
    "key": jax.random.split(jax.random.key(3), (2, 2)),
    "other key": jax.random.key(3, impl="rbg"),
    "nan": np.array([np.uint32(0x7FC12345)]).view(np.float32),
    "bool": jnp.array([True, False]),
    "scalar": jnp.int32(-7),
    "bytes": jnp.arange(256, dtype=jnp.uint8),
}


def test_round_trip_bit_for_bit(tmp_path):
    full = {"training": state(), **ODD}
    checkpoints.save(tmp_path, full, step=12)
    like = {"training": state(), **jax.tree.map(lambda leaf: leaf, ODD)}
    assert checkpoints.latest(tmp_path) == 12
    assert_same(checkpoints.restore(tmp_path, like, step=12), full)
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(full)}
    assert {"bfloat16", "float32", "key<fry>", "uint32", "int32"} <= kinds


def test_the_newest_two_are_kept_and_nothing_foreign_is_touched(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "007").mkdir()
    for step in (5, 10, 20):
        checkpoints.save(tmp_path, {"x": jnp.full(3, step)}, step=step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["007", "10", "20", "notes"]
    checkpoints.save(tmp_path, {"x": jnp.full(3, 15)}, step=15)  # 20 was of another line of work
    checkpoints.save(tmp_path, {"x": jnp.full(3, 70)}, step=15)  # over itself
    assert sorted(path.name for path in tmp_path.iterdir()) == ["007", "10", "15", "notes"]
    assert checkpoints.restore(tmp_path, {"x": jnp.zeros(3, jnp.int32)}, step=15)["x"][0] == 70
    assert checkpoints.steps(tmp_path) == [10, 15]


def test_what_killed_processes_left_is_cleared_away(tmp_path):
    for name in ("3", "7", "8", "9", "9.old", "10.partial", "x.partial", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    checkpoints.tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["8", "9", "notes", "x.partial"]
    checkpoints.tidy(tmp_path / "nowhere")


def test_what_is_said_of_a_checkpoint_comes_back(tmp_path):
    tree = {"x": jnp.arange(3.0)}
    assert checkpoints.restore_newest(tmp_path, tree) is None
    checkpoints.save(tmp_path, tree, step=4, about={"lines": 3, "of": "ü"})
    found = checkpoints.restore_newest(str(tmp_path), tree)
    assert found is not None
    assert (found.step, found.about, found.damaged) == (4, {"lines": 3, "of": "ü"}, ())
    assert_same(found.state, tree)


@pytest.mark.parametrize("name", ["manifest.json", "state/manifest.ocdbt"])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path, name):
    tree = {"x": jnp.arange(3.0)}
    for step in (1, 2):
        checkpoints.save(tmp_path, {"x": tree["x"] + step}, step=step, about={"at": step})
    flip(tmp_path / "2" / name)
    found = checkpoints.restore_newest(tmp_path, tree)
    assert found is not None
    assert (found.step, found.about, found.state["x"][0]) == (1, {"at": 1}, 1)
    (line,) = found.damaged
    assert str(tmp_path / "2") in line
    flip(tmp_path / "1" / name)
    with pytest.raises(CheckpointError, match=f"{tmp_path / '2'}"):
        checkpoints.restore_newest(tmp_path, tree)


def test_one_of_another_model_is_no_damage(tmp_path):
    for step in (1, 2):
        checkpoints.save(tmp_path, {"x": jnp.zeros(step + 2)}, step=step)
    with pytest.raises(CheckpointError, match="of another model"):
        checkpoints.restore_newest(tmp_path, {"x": jnp.zeros(3)})


def test_a_renamed_checkpoint_is_told(tmp_path):
    checkpoints.save(tmp_path, {"x": jnp.zeros(3)}, step=4)
    (tmp_path / "4").rename(tmp_path / "6")
    with pytest.raises(CheckpointError, match="is that of step 4: it was renamed"):
        checkpoints.restore(tmp_path, {"x": jnp.zeros(3)}, step=6)


def test_a_full_disk_is_one_line(tmp_path, capfd, monkeypatch):
    """By the limit on the size of a file, which tensorstore's threads meet too."""
    tree = {"x": jnp.arange(30000.0)}
    checkpoints.save(tmp_path, tree, step=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"2 cannot be written: File too large$"):
            checkpoints.save(tmp_path, {"x": jnp.sin(tree["x"])}, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    checkpoints.save(tmp_path, tree, step=2)


@pytest.mark.parametrize("what", ["mkdir", "rename", "fsync"])
def test_a_failing_file_system_is_one_line(tmp_path, monkeypatch, capfd, what):
    checkpoints.save(tmp_path, {"x": jnp.zeros(3)}, step=1)

    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os if what == "fsync" else Path, what, fail)
        with pytest.raises(CheckpointError, match="cannot be written: Permission denied"):
            checkpoints.save(tmp_path, {"x": jnp.ones(3)}, step=2)
    assert checkpoints.steps(tmp_path) == [1]
    assert capfd.readouterr() == ("", "")


def test_latest_of_nothing(tmp_path):
    assert checkpoints.latest(tmp_path) is None
    assert checkpoints.latest(tmp_path / "nowhere") is None


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("stage", ["write", "hash", "sync"])
def test_an_interrupted_write_leaves_the_previous_checkpoint(tmp_path, monkeypatch, stage, step):
    import orbax.checkpoint as ocp

    tree = {"x": jnp.arange(3.0)}
    checkpoints.save(tmp_path, tree, step=1)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    target, name = {
        "write": (ocp.StandardCheckpointer, "save"),
        "hash": (checkpoints, "_hashes"),
        "sync": (checkpoints.os, "fsync"),
    }[stage]
    with monkeypatch.context() as patch:
        patch.setattr(target, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(tmp_path, {"x": jnp.zeros(3)}, step=step)
    assert checkpoints.latest(tmp_path) == 1
    assert_same(checkpoints.restore(tmp_path, tree, step=1), tree)
    checkpoints.save(tmp_path, {"x": jnp.ones(3)}, step=step)  # and what it left is no obstacle
    assert {path.name for path in tmp_path.iterdir()} == {"1", str(step)}


def delete(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [delete, empty, flip])
def test_damage_to_any_file_is_one_line(tmp_path, damage, capfd):
    tree = {"x": jnp.arange(300.0).reshape(3, 100), "k": jax.random.key(1)}
    checkpoints.save(tmp_path / "good", tree, step=4)
    names = [p.relative_to(tmp_path / "good") for p in (tmp_path / "good").rglob("*")]
    files = [name for name in names if (tmp_path / "good" / name).is_file()]
    assert len(files) > 5
    for name in files:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        damage(tmp_path / "bad" / name)
        with pytest.raises(CheckpointError, match=r"whole checkpoint|is damaged") as error:
            checkpoints.restore(tmp_path / "bad", tree, step=4)
        assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""  # orbax reports from other threads
    assert_same(checkpoints.restore(tmp_path / "good", tree, step=4), tree)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": jnp.zeros((3, 5)), "b": jnp.zeros(2)}, r"array 0 is float32\[3, 4\] there and"),
        ({"a": jnp.zeros((3, 4), jnp.bfloat16), "b": jnp.zeros(2)}, r"bfloat16\[3, 4\] here"),
        ({"a": jnp.zeros((3, 4))}, "it has 2 arrays and this one 1"),
        ({"a": jnp.zeros((3, 4)), "b": jnp.zeros(2), "c": jnp.zeros(1)}, "and this one 3"),
    ],
)
def test_another_model_is_one_line(tmp_path, like, message):
    checkpoints.save(tmp_path, {"a": jnp.zeros((3, 4)), "b": jnp.zeros(2)}, step=1)
    with pytest.raises(CheckpointError, match=message) as error:
        checkpoints.restore(tmp_path, like, step=1)
    assert "\n" not in str(error.value)


def test_another_width_or_optimizer_of_a_real_state_is_refused(tmp_path):
    checkpoints.save(tmp_path, state(), step=1)
    for other in (state(width=5), state(optimizer=optax.sgd(0.1))):
        with pytest.raises(CheckpointError, match="of another model"):
            checkpoints.restore(tmp_path, other, step=1)


@pytest.mark.parametrize("content", [None, "directory", "file", "[1, 2]", '{"leaves": 3}'])
def test_missing_or_foreign_is_one_line(tmp_path, content):
    path = tmp_path / "3"
    if content == "file":
        path.write_text("text")
    elif content is not None:
        path.mkdir()
        if content != "directory":
            json.loads(content)
            (path / checkpoints.MANIFEST).write_text(content)
    with pytest.raises(CheckpointError, match="there is no whole checkpoint in") as error:
        checkpoints.restore(tmp_path, {"x": jnp.zeros(3)}, step=3)
    assert "\n" not in str(error.value)


def test_precision_that_jax_would_drop_is_refused(tmp_path):
    with pytest.raises(TypeError, match="array 0 is float64, which JAX keeps as float32 only"):
        checkpoints.save(tmp_path, {"x": np.zeros(3)}, step=1)
