"""A data set written by tensorflow-datasets itself is read back, without TensorFlow."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import types

import pytest

from jaxsens.data import DataError, load
from jaxsens.data.files.budget import Budget
from jaxsens.data.images.tensorflow_datasets import _reach, load_images

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
from jaxsens.data.images.tensorflow_datasets import load_images

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


def python(*code, data_dir, argv=(), hidden=("tensorflow",), timeout=300):
    environment = {**os.environ, "TFDS_DATA_DIR": str(data_dir), "PYTHONWARNINGS": "ignore"}
    script = HIDE.replace("{hidden}", repr(hidden)) + "".join(map(textwrap.dedent, code))
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, argv)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
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
    assert 'run: pip install -e ".[data]"; --data PATH (its files) and --data embedded' in line


OFFLINE = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: name if name == "tensorflow" else found(name)
"""


@pytest.mark.parametrize("name", ["mnist", "svhn"])
def test_no_network_is_one_line_in_seconds(tmp_path, monkeypatch, name):
    """The package alone would go on asking for more than three minutes."""
    for protocol in ("http", "https"):
        for spelling in (f"{protocol}_proxy", f"{protocol}_PROXY".upper()):
            monkeypatch.setenv(spelling, "http://127.0.0.1:9")  # where nothing listens
    outcome = python(OFFLINE, MISSING.replace("mnist", name), data_dir=tmp_path, timeout=60)
    (line,) = outcome.stdout.splitlines()
    assert re.search(r"\(\S+\.\S+ cannot be reached\); it needs a network on first use", line)
    assert "; --data PATH (its files) and --data embedded do without" in line


def builder(data_dir, prepared=False):
    urls = {"http://host.invalid/some.gz": None}
    return types.SimpleNamespace(
        data_dir=f"{data_dir}/name/1.0.0", is_prepared=lambda: prepared, url_infos=urls
    )


def test_the_network_is_asked_through_the_proxy_and_any_answer_will_do(tmp_path, monkeypatch):
    asked = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(403)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        _reach(builder(tmp_path))
        server.shutdown()
        thread.join()
    assert asked == ["http://host.invalid/some.gz"]
    with pytest.raises(OSError, match=r"^host\.invalid cannot be reached$"):
        _reach(builder(tmp_path))  # the proxy is gone
    _reach(builder(tmp_path, prepared=True))
    (tmp_path / "downloads" / "some").mkdir(parents=True)
    (tmp_path / "downloads" / "some" / "file.gz").write_bytes(b"")
    _reach(builder(tmp_path))  # what is here already may be enough


def test_a_prepared_directory_is_a_path(prepared, tmp_path):
    outcome = python(READ.replace('"tfds")', f"{str(prepared)!r})"), data_dir=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert not list(tmp_path.iterdir())


def test_a_damaged_prepared_directory_is_one_line(prepared, tmp_path):
    """And is not downloaded anew."""
    shutil.copytree(prepared, tmp_path / "copy")
    (version,) = (tmp_path / "copy" / "mnist").iterdir()
    for path in version.glob("*array_record*"):
        path.write_bytes(path.read_bytes()[:100])
    code = MISSING.replace('"tfds"', repr(str(tmp_path / "copy")))
    (line,) = python(code, data_dir=tmp_path / "none").stdout.splitlines()
    assert f"{tmp_path}/copy holds no 'mnist' that tensorflow-datasets prepared" in line
    (version / "dataset_info.json").write_text("{")
    (line,) = python(code, data_dir=tmp_path / "none").stdout.splitlines()
    assert f"{tmp_path}/copy holds no 'mnist' that tensorflow-datasets prepared" in line
    assert not (tmp_path / "none").exists()


def test_failures_inside_the_package_are_one_line(monkeypatch):
    def data_source(name, **_):
        raise ConnectionError("no route to host\nand much more")

    package = types.SimpleNamespace(data_source=data_source, builder=data_source)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", package)
    with pytest.raises(DataError, match="network") as error:
        load("mnist", "tfds")
    assert "(no route to host)" in str(error.value)
    assert "\n" not in str(error.value)
    package.data_source = lambda name, **_: []
    with pytest.raises(DataError, match="could not provide 'mnist'"):
        load_images("mnist", "train", Budget())
