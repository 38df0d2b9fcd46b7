"""Published weights: fetched whole or not at all, one commit for ever, in the units they expect.

The hub is a server on this machine; the client is the real one.
"""

import hashlib
import http.server
import re
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from huggingface_hub import constants

from jaxsens import models
from jaxsens.weights import WeightsError
from jaxsens.weights.hub import PUBLISHED, fetch, on_pixels, published

BODY = np.random.default_rng(0).bytes(2**18 + 5)
SHA = hashlib.sha256(BODY).hexdigest()
COMMITS = ("a" * 40, "b" * 40)
WEIGHTS = published("vit-ti16")


class Server(http.server.ThreadingHTTPServer):
    """A hub of one file: it names commit, size and hash, and sends the file from another place."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked, self.tokens = [], set()
        self.body, self.status, self.sha, self.size, self.commit = BODY, 200, SHA, None, COMMITS[0]


class Answer(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        hub = self.server
        if self.path.endswith("/model.safetensors"):  # the client asks for more than files
            hub.asked.append(f"{self.command} {self.path}")
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.status != 200:
            self.send_response(hub.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = len(hub.body) if hub.size is None else hub.size
        self.send_response(200)
        for name, value in {
            "X-Repo-Commit": hub.commit, "X-Linked-Size": size, "X-Linked-Etag": f'"{hub.sha}"',
            "ETag": f'"{hub.sha}"', "Content-Length": len(hub.body),
        }.items():  # fmt: skip
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(hub.body)

    do_GET = do_HEAD

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    reach(monkeypatch, tmp_path, address)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def reach(monkeypatch, tmp_path, address):
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def note(tmp_path):
    return tmp_path / "jaxsens" / "revisions" / WEIGHTS.repository.replace("/", "--")


def test_a_file_is_fetched_once_and_its_commit_kept(server, tmp_path, monkeypatch):
    path = fetch(WEIGHTS)
    assert path.read_bytes() == BODY
    assert path.parent.name == COMMITS[0]
    assert note(tmp_path).read_text() == f"{COMMITS[0]}\n"
    place = f"{WEIGHTS.repository}/resolve"
    assert server.asked[0] == f"HEAD /{place}/main/model.safetensors"
    assert server.asked[-1] == f"GET /{place}/{COMMITS[0]}/model.safetensors"
    before = len(server.asked)
    server.commit = COMMITS[1]  # the branch moves on
    assert fetch(WEIGHTS) == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(WEIGHTS) == path
    assert len(server.asked) == before
    assert server.tokens == {None}


def test_the_noted_commit_is_fetched_where_the_cache_is_gone(server, tmp_path):
    note(tmp_path).parent.mkdir(parents=True)
    note(tmp_path).write_text(COMMITS[1])
    server.commit = COMMITS[1]
    assert fetch(WEIGHTS).parent.name == COMMITS[1]
    assert all(f"/resolve/{COMMITS[1]}/" in line for line in server.asked)


def test_a_revision_that_is_known_needs_no_note(server, tmp_path):
    server.commit = COMMITS[1]
    entry = WEIGHTS.__class__(**{**vars(WEIGHTS), "revision": COMMITS[1]})
    assert fetch(entry).parent.name == COMMITS[1]
    assert f"/resolve/{COMMITS[1]}/" in server.asked[0]
    assert not note(tmp_path).exists()


def test_the_token_of_the_client_is_used(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(WEIGHTS)
    assert "Bearer hf_secret" in server.tokens


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"status": 404}, r"cannot be fetched from the hub \(.*404"),
        ({"status": 401}, r"cannot be fetched from the hub \(.*401"),
        ({"status": 500}, r"cannot be fetched from the hub \(.*500"),
        ({"sha": "0" * 64}, f"sent a file of SHA-256 {SHA}, expected {'0' * 64}; try again"),
        ({"size": 10**7}, "cannot be fetched from the hub .*; fetch it where there is a network"),
        ({"size": 2**31 + 1}, "holds 2147483649 bytes, more than 2147483648; not fetched"),
        ({"size": "many"}, "holds None bytes, more than"),
    ],
)
def test_what_is_not_whole_leaves_nothing(server, tmp_path, answer, message):
    vars(server).update(answer)
    with pytest.raises(WeightsError, match=message) as error:
        fetch(WEIGHTS)
    assert str(error.value).isprintable()
    assert not note(tmp_path).exists()
    assert not list((tmp_path / "hub").rglob("model.safetensors"))


def test_no_network_is_one_line(monkeypatch, tmp_path):
    reach(monkeypatch, tmp_path, "http://127.0.0.1:9")  # where nothing listens
    with pytest.raises(WeightsError, match=r"cannot be fetched .* pass the path of") as error:
        fetch(WEIGHTS)
    assert str(error.value).isprintable()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"cannot be fetched .*[Oo]ffline"):
        fetch(WEIGHTS)


def test_a_damaged_note_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    note(tmp_path).parent.mkdir(parents=True)
    for content in (b"", b"main\n", b"\xff" * 99, b"../" * 99):
        note(tmp_path).write_bytes(content)
        with pytest.raises(WeightsError, match=r"holds '.*', expected a commit; remove it"):
            fetch(WEIGHTS)


def test_without_the_client_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"come through huggingface_hub .*; run: pip install"):
        fetch(WEIGHTS)


def test_no_network_client_is_imported_before_it_is_needed():
    clients = "{'huggingface_hub', 'safetensors', 'requests', 'httpx', 'httpx2', 'urllib3'}"
    code = f"import sys, jaxsens.weights.hub, jaxsens.data; print({clients} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_the_published_weights_are_those_of_models_that_exist():
    names = {entry.arch for entry in PUBLISHED}
    assert names <= set(models.names())
    assert len({(entry.arch, entry.image_size) for entry in PUBLISHED}) == len(PUBLISHED)
    assert (published("vit-l16").image_size, published("vit-l16").accuracy) == (224, 85.8)
    assert published("convnextv2-tiny").accuracy == 85.1
    assert published("convnextv2-tiny", 224).accuracy == 83.9
    for entry in PUBLISHED:
        assert re.fullmatch(r"timm/[a-z0-9_.]+", entry.repository)
        assert entry.image_size % 32 == 0
    with pytest.raises(ValueError, match=r"of 'mlp' are known .*: expected one of vit-l16, conv"):
        published("mlp")
    with pytest.raises(ValueError, match="vit-l16 are published for images of 224 or 384, not 288"):
        published("vit-l16", 288)


def pixel_sum(images):
    """A model that shows what it was given."""
    return images.mean(axis=(1, 2))


@pytest.mark.parametrize("entry", [published("vit-l16"), published("convnextv2-tiny")])
def test_images_enter_the_network_as_it_was_trained(entry):
    bytes_ = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    got = on_pixels(pixel_sum, entry)(jnp.asarray(bytes_ / 127.5 - 1, jnp.float32))
    wanted = ((bytes_ / 255 - np.array(entry.mean)) / np.array(entry.std)).mean(axis=(1, 2))
    np.testing.assert_allclose(got, wanted, atol=1e-5)
