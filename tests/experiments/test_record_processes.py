"""Two processes of one run (`jax.distributed`): one record, one writer, and both go on from it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from witnesses import exact_training
from witnesses.devices import flags

from experiments.run import record
from experiments.run.record import RunRecord

ROOT = Path(record.__file__).parents[2]
PROCESS = """
import sys
from pathlib import Path
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
address, number, out = sys.argv[1:4]
jax.distributed.initialize(address, num_processes=2, process_id=int(number))
from experiments.run.record import RunRecord

mesh = Mesh(jax.devices(), ("seeds",))
def spread(values):
    sharding = NamedSharding(mesh, PartitionSpec("seeds"))
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])
def local(array):
    return [np.asarray(shard.data).tolist() for shard in array.addressable_shards]

like = {"w": spread(np.zeros((2, 3), np.float32)), "n": spread(np.zeros(2, np.int32))}
for resume in (False, True, True):
    run = RunRecord.create("task", {"a": 1}, out=Path(out), resume=resume, data=np.arange(3))
    found = run.restore("net", like)
    step = 0 if found is None else found[0]
    if found is not None:
        assert local(found[1]["n"]) == [[step * 10 + int(number)]], local(found[1]["n"])
    step += 1
    state = {"w": spread(np.full((2, 3), step, np.float32)),
             "n": spread(np.array([step * 10, step * 10 + 1], np.int32))}
    run.save("net", [{"model": "net", "seed": 0, "epoch": step}], state, step=step)
    del run
run = RunRecord.create("task", {"a": 1}, out=Path(out), resume=True, data=np.arange(3))
run.finish({"writer": run.writer}, seconds=0)
jax.experimental.multihost_utils.sync_global_devices("end")
"""


TRAINING = """
import sys
from pathlib import Path
import jax
address, number, out = sys.argv[1:4]
jax.distributed.initialize(address, num_processes=2, process_id=int(number))
from witnesses.exact_training import train

mesh = jax.make_mesh((jax.device_count(),), ("all",))
assert (jax.device_count(), jax.local_device_count()) == (4, 2)

def stop(step, models):
    if step == 3:
        raise KeyboardInterrupt

try:
    train(Path(out), (0, 1), mesh, observe=stop)
except KeyboardInterrupt as stopped:
    assert "saved up to step 2" in str(stopped), stopped
train(Path(out), (0, 1), mesh, resume=True)
jax.experimental.multihost_utils.sync_global_devices("end")
"""


def in_two_processes(code, out, devices=1):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    settings = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags(devices),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, address, str(number), str(out)],
            env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        ended = [(process.communicate(timeout=100)[1], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [code for _, code in ended] == [0, 0], ended
    return RunRecord(out)


@pytest.mark.slow
def test_two_processes_write_one_record(tmp_path):
    run = in_two_processes(PROCESS, tmp_path / "run")
    assert [line["epoch"] for line in run.read_metrics()] == [1, 2, 3]
    assert run.read("result.json")["writer"] is True
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints" / "net").iterdir())
    assert names == ["2", "3"]


@pytest.mark.slow
def test_two_processes_train_as_one_device_does(tmp_path):
    """Stopped, and gone on with: the lines of one process, bit for bit."""
    run = in_two_processes(TRAINING, tmp_path / "run", devices=2)
    alone = exact_training.train(tmp_path / "alone", (0, 1))
    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in run.read_metrics()]
    assert lines == alone
    assert len(lines) == 2 * (exact_training.STEPS + 1)
    assert run.read("result.json")["writer"] is True
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints" / "exact").iterdir())
    assert names == ["3", "4"]
