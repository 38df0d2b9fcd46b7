"""Published weights: fetched whole or not at all, and images in the units that they expect."""

import hashlib
import http.server
import re
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import models
from jaxsens.checkpoints import CheckpointError
from jaxsens.weights import hub
from jaxsens.weights.hub import PUBLISHED, fetch, on_pixels, published

BODY = np.random.default_rng(0).bytes(3 * 2**20 + 5)
SHA = hashlib.sha256(BODY).hexdigest()
WEIGHTS = published("vit-ti16")


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Start a hub that answers the first request with a redirect, and the second with a body."""
    servers = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def start(*, body=BODY, status=200, length=None, etag=f'"{SHA}"', size=None, to="/cdn"):
        asked = []

        class Hub(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                if self.path.endswith("/resolve/main/model.safetensors"):
                    self.send_response(302)
                    self.send_header("Location", to)
                    self.send_header("X-Linked-Size", str(len(body) if size is None else size))
                    self.send_header("X-Linked-Etag", etag)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Hub)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        monkeypatch.setattr(hub, "HUB", f"http://127.0.0.1:{server.server_port}")
        return asked

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_file_is_fetched_once(serve, tmp_path):
    asked = serve()
    path = fetch(WEIGHTS)
    assert path.read_bytes() == BODY
    assert path.parent == tmp_path / "jaxsens"
    assert list(path.parent.iterdir()) == [path]
    assert asked == [f"/{WEIGHTS.repository}/resolve/main/model.safetensors", "/cdn"]
    assert fetch(WEIGHTS) == path
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"status": 404}, r"cannot be fetched \(Not Found\); fetch it where there is a network"),
        ({"status": 500}, "cannot be fetched"),
        ({"etag": f'"{"0" * 64}"'}, f"sent a file of SHA-256 {SHA}, expected {'0' * 64}"),
        ({"size": 10**7}, f"sent {len(BODY)} bytes of 10000000; try again"),
        ({"length": len(BODY) + 9, "size": ""}, f"sent {len(BODY)} bytes of {len(BODY) + 9}"),
        ({"to": "https://elsewhere.invalid/"}, "leads to https://elsewhere.invalid/, over another"),
        ({"to": "file:///etc/hostname"}, "leads to file:///etc/hostname, over another|not allowed"),
        ({"to": "/a/resolve/main/model.safetensors"}, "cannot be fetched .*redirect"),
    ],
)
def test_what_is_not_whole_leaves_nothing(serve, tmp_path, answers, message):
    serve(**answers)
    with pytest.raises(CheckpointError, match=message) as error:
        fetch(WEIGHTS)
    assert not list((tmp_path / "jaxsens").iterdir())
    assert "\n" not in str(error.value)


def test_a_flood_is_cut_off(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "MAX_BYTES", 2**20)
    serve()
    with pytest.raises(CheckpointError, match="holds more than 1048576 bytes; not fetched"):
        fetch(WEIGHTS)
    assert not list((tmp_path / "jaxsens").iterdir())


def test_no_network_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(hub, "HUB", "https://nowhere.invalid")
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nothing listens
    with pytest.raises(CheckpointError, match=r"cannot be fetched .* pass the path of") as error:
        fetch(WEIGHTS)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "jaxsens").iterdir())


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
