"""What the tests of the experiments share: images, weights, and a finished run of each."""

import pytest
from witnesses import small_runs
from witnesses.commands import execute
from witnesses.small_imagenet import shrink, write_weights


@pytest.fixture
def small(monkeypatch):
    """A network of one block for 32 pixels, and three images a batch: the same code, less to do."""
    shrink(monkeypatch)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.npz")


@pytest.fixture(scope="session")
def grey(tmp_path_factory):
    return small_runs.write_images(tmp_path_factory.mktemp("data") / "grey.npz", 28, 1)


@pytest.fixture(scope="session")
def colour(tmp_path_factory):
    return small_runs.write_images(tmp_path_factory.mktemp("data") / "colour.npz", 32, 3)


@pytest.fixture(scope="session")
def mrpc(tmp_path_factory):
    return small_runs.write_pairs(tmp_path_factory.mktemp("data") / "mrpc")


@pytest.fixture(scope="session")
def command(grey, weights, mrpc):
    """The small run of an experiment, by name: ``command(name, *more)`` is its exit status."""

    def command(name, *more):
        words = small_runs.arguments(name, grey=grey, weights=weights, mrpc=mrpc)
        with small_runs.surroundings(name):
            return execute(small_runs.MODULES[name], *words, *more)

    return command


@pytest.fixture(scope="session")
def finished(command, tmp_path_factory):
    """The directory of a finished small run of an experiment, by name."""
    done = {}

    def finished(name):
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name) / "run"
            assert command(name, "--out", done[name]) == 0
        return done[name]

    return finished
