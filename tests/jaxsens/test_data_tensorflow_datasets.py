"""A data set written by tensorflow-datasets itself is read back, without TensorFlow."""

import os
import subprocess
import sys
import textwrap

import pytest

from jaxsens.data import DataError, load
from jaxsens.data.tensorflow_datasets import load_images

# What the subprocesses share: TensorFlow cannot be found, whether it is installed or not.
HIDE = """
import sys
from importlib.machinery import PathFinder

class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.split(".")[0] in {hidden}
        return None if hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden
"""
# Images go in as PNG files: tensorflow-datasets compresses arrays with TensorFlow.
WRITE = """
import io, sys
import numpy as np, PIL.Image
import tensorflow_datasets as tfds

def png(image):
    file = io.BytesIO()
    PIL.Image.fromarray(image[..., 0]).save(file, format="PNG")
    file.seek(0)
    return file

with tfds.core.registered.skip_registration():
    class Mnist(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("3.0.1")
        name = "mnist"
        pkg_dir_path = "."

        def _info(self):
            features = tfds.features.FeaturesDict({
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            })
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples(30), "test": self._generate_examples(12)}

        def _generate_examples(self, count):
            images = np.random.default_rng(count).integers(0, 256, (count, 28, 28, 1), np.uint8)
            for i, image in enumerate(images):
                yield i, {"image": png(image), "label": i % 10}

Mnist(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
"""
READ = """
import numpy as np
from jaxsens.data import load
from jaxsens.data.tensorflow_datasets import load_images

data = load("mnist", "tfds")
for part, count in ((data.train, 30), (data.test, 12)):
    written = np.random.default_rng(count).integers(0, 256, (count, 28, 28, 1), np.uint8)
    assert part.inputs.shape == (count, 28, 28, 1)
    assert part.inputs.dtype == np.float32 and part.labels.dtype == np.int32
    pixels = (part.inputs + 1) * 127.5
    assert np.abs(pixels - np.rint(pixels)).max() < 1e-3
    images = np.rint(pixels).astype(np.uint8)
    got = {image.tobytes(): label for image, label in zip(images, part.labels)}
    assert got == {image.tobytes(): i % 10 for i, image in enumerate(written)}
assert sys.modules.get("tensorflow") is None
"""
MISSING = """
from jaxsens.data import DataError, load
try:
    load("mnist", "tfds")
except DataError as error:
    print(error)
"""


def python(*code, data_dir, argv=(), hidden=("tensorflow",)):
    environment = {**os.environ, "TFDS_DATA_DIR": str(data_dir), "PYTHONWARNINGS": "ignore"}
    script = HIDE.replace("{hidden}", repr(hidden)) + "".join(map(textwrap.dedent, code))
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, argv)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    pytest.importorskip("importlib_resources")
    directory = tmp_path_factory.mktemp("tfds")
    written = python(WRITE, data_dir=directory, argv=[directory])
    assert written.returncode == 0, written.stderr
    assert list(directory.glob("mnist/3.0.1/*array_record*"))
    return directory


@pytest.mark.parametrize("hidden", [("tensorflow",), ()])
def test_what_was_written_is_read_without_tensorflow(prepared, hidden):
    read = python(READ, data_dir=prepared, hidden=hidden)
    assert read.returncode == 0, read.stderr


def test_unprepared_data_without_tensorflow_is_one_line_at_once(tmp_path):
    outcome = python(MISSING, data_dir=tmp_path)
    (line,) = outcome.stdout.splitlines()
    assert line.startswith("tensorflow-datasets could not provide 'mnist' (")
    assert "it needs TensorFlow (pip install tensorflow) and a network on first use" in line


def test_a_missing_package_is_one_line(tmp_path):
    outcome = python(MISSING, data_dir=tmp_path, hidden=("tensorflow", "tensorflow_datasets"))
    (line,) = outcome.stdout.splitlines()
    assert line.startswith("--data tfds needs tensorflow-datasets (")
    assert line.endswith('run: pip install -e ".[data]"')


def test_failures_inside_the_package_are_one_line(monkeypatch):
    import types

    def data_source(name, **_):
        raise ConnectionError("no route to host\nand much more")

    package = types.SimpleNamespace(data_source=data_source)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", package)
    with pytest.raises(DataError, match="network") as error:
        load("mnist", "tfds")
    assert "(no route to host)" in str(error.value)
    assert "\n" not in str(error.value)
    package.data_source = lambda name, **_: []
    with pytest.raises(DataError, match="could not provide 'mnist'"):
        load_images("mnist", "train")
