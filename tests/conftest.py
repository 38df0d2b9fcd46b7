"""Settings shared by every test: two devices, rank promotion an error, hypothesis in no haste."""

import importlib.metadata
import os
import shutil
import signal
import tempfile

# A shell without job control starts what runs in the background with these ignored, and the
# processes that tests start and stop would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# Before jax starts its backend: two devices, as fake as they come, in every run; and programs, of
# which most run once, that compile several times as fast. What users compile by default:
# XLA_FLAGS="--xla_backend_optimization_level=3 --xla_llvm_disable_expensive_passes=false
# --xla_cpu_use_fusion_emitters=true" (the last for jax 0.10 alone; later ones have no such flag).
FLAGS = [
    "--xla_force_host_platform_device_count=2",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
given = os.environ.get("XLA_FLAGS", "")
for flag in FLAGS:
    if flag.split("=")[0] not in given:
        given += f" {flag}"
os.environ["XLA_FLAGS"] = given.strip()
# What one test has compiled the others take from here, in every worker and every process that a
# test starts. Of this run alone, unless the variable names a directory.
COMPILED = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    COMPILED = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxsens-tests-")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
import witnesses.shapes  # noqa: E402

witnesses.shapes.check_annotations()  # before jaxsens is imported

jax.config.update("jax_numpy_rank_promotion", "raise")
# The first example of a property compiles; a deadline would time the compiler.
hypothesis.settings.register_profile("jaxsens", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("jaxsens")


@pytest.fixture(autouse=True, scope="module")
def programs():
    """What a file has compiled goes with it: a process may map 65,530 pieces of memory, and the
    programs of all tests are more."""
    yield
    jax.clear_caches()


def pytest_unconfigure():
    if COMPILED:  # in a worker the variable was set already
        shutil.rmtree(COMPILED, ignore_errors=True)
