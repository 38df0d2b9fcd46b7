"""What the two files of tests for ImageNet share."""

import pytest
from witnesses.small_imagenet import shrink, write_weights


@pytest.fixture
def small(monkeypatch):
    """A network of one block for 32 pixels, and three images a batch: the same code, less to do."""
    shrink(monkeypatch)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.npz")
