"""One process at a time writes a record: others get one line, the dead are in nobody's way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.run import lock, record
from experiments.run.cli import UserError
from experiments.run.record import RunRecord

ROOT = Path(record.__file__).parents[2]
# Does what it is told, a line each, and says how it went; it keeps a record until it is told more.
RACER = """
import os, sys
from pathlib import Path
import jax
from experiments.run.cli import UserError
from experiments.run.record import RunRecord
jax.devices()
print("ready", flush=True)
for line in sys.stdin:
    run = None
    cwd, out, how, number = line.split()
    os.chdir(cwd)
    try:
        run = RunRecord.create("task", {"a": int(number)}, out=None if out == "none" else Path(out),
                               resume=how == "resume")
        run.add([{"epoch": 0, "a": int(number)}])
        print("won", run.directory, flush=True)
    except UserError as error:
        print("lost", error, flush=True)
"""


@pytest.fixture(scope="module")
def racers():
    """Two processes that have imported all they need."""
    made = [
        subprocess.Popen(
            [sys.executable, "-c", RACER], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in made:
        assert process.stdout.readline() == "ready\n"
    yield made
    for process in made:
        process.kill()
        process.communicate()


def tell(processes, *lines):
    """Each its line, and then the answers of all: what became of it, and the rest."""
    for process, line in zip(processes, lines, strict=True):
        process.stdin.write(" ".join(map(str, line)) + "\n")
        process.stdin.flush()
    return [process.stdout.readline().split(maxsplit=1) for process in processes]


@pytest.mark.parametrize("number", range(12))
def test_of_two_that_start_at_once_one_has_the_record(racers, tmp_path, number):
    out = tmp_path / "run"
    if number == 11:  # the default name is that of the second
        time.sleep(1 - time.time() % 1)
        out = "none"
    said = tell(racers, *[(tmp_path, out, "start", racer) for racer in range(2)])
    assert sorted(word for word, _ in said) == ["lost", "won"]
    (lost,) = (text for word, text in said if word == "lost")
    assert "exists; choose another --out" in lost
    (winner,) = (racer for racer, (word, _) in enumerate(said) if word == "won")
    (made,) = [path.parent for path in tmp_path.rglob("config.json")]
    record = RunRecord(made)
    assert record.read("config.json")["a"] == record.read_metrics()[0]["a"] == winner
    assert sorted(path.name for path in made.iterdir()) == ["config.json", "metrics.jsonl"]
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_resuming_beside_a_running_process_is_one_line_until_that_is_killed(racers, tmp_path):
    out = tmp_path / "run"
    owner, other = racers
    ((word, _),) = tell([owner], (tmp_path, out, "start", 0))
    assert word == "won"
    with pytest.raises(UserError, match="is being written by another process; wait until") as error:
        RunRecord.create("task", {"a": 0}, out=out, resume=True)
    assert "\n" not in str(error.value)
    ((word, said),) = tell([other], (tmp_path, out, "resume", 0))
    assert (word, "is being written by another" in said) == ("lost", True)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    resumed = RunRecord.create("task", {"a": 0}, out=out, resume=True)
    assert resumed.lines == [{"epoch": 0, "a": 0}]
    assert tell([other], (tmp_path, out, "resume", 0))[0][0] == "lost"  # now this process has it
    del resumed
    assert tell([other], (tmp_path, out, "resume", 0))[0][0] == "won"


def test_a_process_shares_its_own_lock_and_gives_it_back(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    first, second = lock.hold(path, name=path), lock.hold(path, name=path)
    assert first is second
    other = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", other, str(path)]
    assert subprocess.run(command, capture_output=True).returncode
    del first, second
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    run = RunRecord.create("task", {}, out=tmp_path / "run", resume=False)
    run.add([{"epoch": 0}])
    assert RunRecord.create("task", {}, out=tmp_path / "run", resume=True).lines == [{"epoch": 0}]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_directory_that_goes_away_ends_the_run(tmp_path, replaced):
    run = RunRecord.create("task", {}, out=tmp_path / "run", resume=False)
    run.add([{"epoch": 0}])
    (tmp_path / "run").rename(tmp_path / "moved")
    if replaced:
        RunRecord.create("task", {}, out=tmp_path / "run", resume=False)
    with pytest.raises(FileNotFoundError, match="was removed or replaced while the run went on"):
        run.add([{"epoch": 1}])
    assert (tmp_path / "run").exists() == replaced
    assert RunRecord(tmp_path / "moved").read_metrics() == [{"epoch": 0}]


def test_what_a_birth_cut_short_left_is_cleared_away(tmp_path):
    for name in (".20250101-000000.new-run", ".other.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    RunRecord.create("task", {}, out=tmp_path / "run", resume=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.partial", "run"]
