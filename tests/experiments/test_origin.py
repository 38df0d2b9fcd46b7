"""A run is taken up again with the data, code and versions it was begun with, or says what not."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.run import origin
from experiments.run.cli import UserError
from experiments.run.record import RunRecord
from jaxsens import checkpoints
from jaxsens.checkpoints import CheckpointError

DATA = {"x": np.arange(6.0).reshape(2, 3), "y": np.array([0, 1])}


def create(out, resume=False, data=DATA, accept=False):
    config = {"rate": 0.1, "out": str(out), "resume": resume, "accept_changes": accept}
    return RunRecord.create("task", config, out=out, resume=resume, data=data)


def refused(message, *args, **options):
    with pytest.raises((UserError, CheckpointError), match=message) as error:
        create(*args, resume=True, **options)
    assert "\n" not in str(error.value)


@given(st.integers(0, 5), st.floats(allow_nan=False))
def test_one_number_more_or_less_is_another_fingerprint(place, value):
    changed = {**DATA, "x": DATA["x"].copy()}
    changed["x"].flat[place] = value
    same = np.signbit(value) == np.signbit(DATA["x"].flat[place]) and value == DATA["x"].flat[place]
    assert (origin.of_data(changed) == origin.of_data(DATA)) == same


def test_a_fingerprint_sees_shape_type_and_structure():
    x = np.arange(6, dtype=np.float32)
    others = [x, x.reshape(2, 3), x.view(np.int32), x.astype(">f4"), [x], {"x": x}, (x, None)]
    others += [x[:5], "text", 3, jnp.arange(6, dtype=jnp.bfloat16)]
    assert len({origin.of_data(other) for other in others}) == len(others)
    assert origin.of_data(jnp.asarray(x)) == origin.of_data(x) == origin.of_data(x[::-1][::-1])


def test_of_a_huge_array_first_last_and_pieces_between_count(monkeypatch):
    monkeypatch.setattr(origin, "WHOLE", 2**17)
    monkeypatch.setattr(origin, "PIECES", 3)
    x = np.zeros(2**18, np.uint8)
    seen = {origin.of_data(x)}
    for place in (0, 2**17, 2**18 - 1):
        changed = x.copy()
        changed[place] = 1
        seen.add(origin.of_data(changed))
    assert len(seen) == 4


def test_the_code_counts(monkeypatch, tmp_path):
    for package in ("jaxsens", "experiments"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("x = 1")
    monkeypatch.setattr(origin, "ROOT", tmp_path)
    before = origin.of_code.__wrapped__()
    (tmp_path / "experiments" / "notes.txt").write_text("")
    assert origin.of_code.__wrapped__() == before
    (tmp_path / "experiments" / "a.py").write_text("x = 2")
    assert origin.of_code.__wrapped__() != before


def test_other_data_are_refused(tmp_path):
    create(tmp_path / "run")
    refused("the data are not those that", tmp_path / "run", data={**DATA, "y": np.array([1, 0])})
    refused("the data are not those that", tmp_path / "run", data=None, accept=True)
    create(tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("of_code", lambda: "other", r"the code of jaxsens/ and experiments/ \(.*, now "),
        ("versions", lambda: {**VERSIONS, "jax": "0.0.1"}, r"jax \(.*, now 0\.0\.1\)"),
    ],
)
def test_other_code_or_versions_need_a_word(tmp_path, monkeypatch, name, changed, message, capsys):
    create(tmp_path / "run")
    create(tmp_path / "run", resume=True)
    monkeypatch.setattr(origin, name, changed)
    refused(f"{message}.*go on all the same with --accept-changes", tmp_path / "run")
    run = create(tmp_path / "run", resume=True, accept=True)
    assert "going on although this changed: " in capsys.readouterr().err
    run.finish({}, seconds=1)
    (said,) = run.read("result.json")["changes"]
    assert said in capsys.readouterr().err or name == "of_code" or "jax (" in said
    create(tmp_path / "run", resume=True)  # what was accepted once is what counts from then on
    monkeypatch.undo()
    refused("was begun with something else", tmp_path / "run")


VERSIONS = origin.versions()


def test_another_commit_of_the_same_code_is_the_same(tmp_path, monkeypatch):
    create(tmp_path / "run")
    monkeypatch.setattr(origin, "commit", lambda: "0123456789ab")
    create(tmp_path / "run", resume=True)


def test_a_record_that_says_nothing_of_its_origin_is_refused(tmp_path):
    create(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    del config["made_of"]
    path.write_text(json.dumps(config))
    refused("does not say what code and data it was made of", tmp_path / "run")


def lines(model, *epochs):
    return [{"model": model, "seed": 0, "epoch": epoch, "x": epoch / 3} for epoch in epochs]


LIKE = {"w": jnp.zeros(3)}


@pytest.fixture
def trained(tmp_path):
    """Two models with two checkpoints each, and evaluations that no checkpoint saw."""
    run = create(tmp_path / "run")
    for model in "ab":
        for step in (2, 4):
            run.save(
                model, lines(model, step - 1, step), {"w": jnp.full(3, float(step))}, step=step
            )
    run.add(lines("b", 5))
    return tmp_path / "run"


def test_a_checkpoint_brings_its_own_lines(trained):
    run = create(trained, resume=True)
    for model in "ab":
        step, state = run.restore(model, LIKE)
        assert (step, state["w"][0]) == (4, 4)
    assert run.lines == [*lines("a", 1, 2, 3, 4), *lines("b", 1, 2, 3, 4)]
    assert run.restore("c", LIKE) is None


@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_newest_checkpoint_costs_its_own_part_alone(trained, capsys, whole):
    (trained / "checkpoints" / "a" / "4" / checkpoints.MANIFEST).unlink()
    run = create(trained, resume=True)
    assert run.restore("a", LIKE)[0] == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith(f"going on from {trained / 'checkpoints' / 'a' / '2'}")
    assert "start afresh" not in said
    if whole:  # the part is done again: the lines stand where they stood, and the other's are whole
        run.save("a", lines("a", 3, 4), {"w": jnp.full(3, float(4))}, step=4)
    run = create(trained, resume=True)
    assert run.restore("a", LIKE)[0] == (4 if whole else 2)
    assert run.restore("b", LIKE)[0] == 4
    if whole:
        assert run.lines == [*lines("a", 1, 2, 3, 4), *lines("b", 1, 2, 3, 4)]


def cut(path):
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))


def alter(path):
    path.write_text(path.read_text().replace('"epoch": 1', '"epoch": 0', 1))


def swap(path):
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([second, first, *rest]))


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), cut, alter, swap])
def test_lines_that_are_not_the_checkpoints_are_refused(trained, damage):
    damage(trained / "metrics.jsonl")
    run = create(trained, resume=True)
    with pytest.raises(UserError, match=r"metrics\.jsonl is not what the checkpoint .* \(4 lines"):
        run.restore("a", LIKE)


def test_a_checkpoint_that_was_put_elsewhere_is_refused(trained, tmp_path):
    shutil.rmtree(trained / "checkpoints" / "b")
    (trained / "checkpoints" / "a").rename(trained / "checkpoints" / "b")
    run = create(trained, resume=True)
    with pytest.raises(UserError, match="saved by another run or for another model"):
        run.restore("b", LIKE)
    other = create(tmp_path / "other", data=None)  # of other data, and so another run
    shutil.copytree(trained / "checkpoints" / "b", other.directory / "checkpoints" / "a")
    with pytest.raises(UserError, match="saved by another run or for another model"):
        other.restore("a", LIKE)


def test_what_killed_processes_left_goes_at_the_next_start(trained):
    for name in ("checkpoints/a/6.partial", "checkpoints/a/4.old", "checkpoints/b/1"):
        (trained / name).mkdir()
    for name in (".metrics.jsonl.7.partial", "weights/.1.npy.7.partial"):
        (trained / name).parent.mkdir(exist_ok=True)
        (trained / name).write_text("")
    create(trained, resume=True)
    assert not [path for path in trained.rglob("*") if "partial" in path.name or "old" in path.name]
    assert {path.name for path in (trained / "checkpoints" / "b").iterdir()} == {"2", "4"}


@pytest.mark.parametrize("number", range(1, 5))
def test_a_write_that_fails_is_told_and_loses_nothing(trained, monkeypatch, number):
    """The n-th fsync of a save: metrics, then the manifest of the checkpoint; and each rename."""
    import os
    from pathlib import Path

    target, name, call = {
        1: (os, "fsync", 1), 2: (os, "fsync", 2), 3: (Path, "replace", 1), 4: (Path, "rename", 1)
    }[number]  # fmt: skip
    original, calls = getattr(target, name), []

    def fail(*args):
        calls.append(args)
        if len(calls) == call:
            raise OSError(28, "No space left on device")
        return original(*args)

    run = create(trained, resume=True)
    run.restore("b", LIKE)
    with monkeypatch.context() as patch:
        patch.setattr(target, name, fail)
        with pytest.raises((OSError, CheckpointError), match="No space left on device"):
            run.save("b", lines("b", 5, 6), {"w": jnp.full(3, float(6))}, step=6)
    again = create(trained, resume=True)
    assert again.restore("b", LIKE)[0] == 4
    assert again.of_model("b") == lines("b", 1, 2, 3, 4)
    again.save("b", lines("b", 5, 6), {"w": jnp.full(3, float(6))}, step=6)
    assert create(trained, resume=True).restore("b", LIKE)[0] == 6
