"""ImageNet weights that are published: where they lie, what images they expect, how to fetch them.

The paper (A, Section 5) measured a ViT-L/16 and a ConvNeXtV2-Tiny "of 85 %" without naming the
files. Of the published ones, ViT-L/16 at 224 pixels (85.8 %) and ConvNeXtV2-Tiny at 384 (85.1 %)
come nearest; at 224 pixels ConvNeXtV2-Tiny has 83.9 %. Accuracies here are those of their
publishers; they have not been measured again with this package. The weights of ConvNeXtV2 are under
CC BY-NC 4.0, those of the ViTs under Apache 2.0.
"""

import dataclasses
import hashlib
import os
import re
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from jaxsens.checkpoints import CheckpointError

HUB = "https://huggingface.co"
MAX_BYTES = 2**31  # ViT-L/16 takes 1.2 GB
TIMEOUT = 30.0  # seconds without a byte

Channels = tuple[float, float, float]
HALF: Channels = (0.5, 0.5, 0.5)
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Published:
    """One file of published weights for 1000 classes, and the images it was evaluated on.

    ``arch`` is the name for ``models.create``. Channels scaled to [0, 1] are reduced by ``mean``
    and divided by ``std``, a standard deviation, before they enter the network. ``crop`` is the
    share of the resized short side that the central square keeps; None where the whole image was
    squeezed into a square instead. ``accuracy`` is the publisher's, top-1 in percent on the
    validation images.
    """

    arch: str
    image_size: int
    repository: str
    accuracy: float
    mean: Channels
    std: Channels
    crop: float | None


# The first of an architecture is the one whose accuracy is the paper's.
PUBLISHED = (
    Published(
        "vit-l16", 224, "timm/vit_large_patch16_224.augreg_in21k_ft_in1k", 85.8, HALF, HALF, 0.9
    ),
    Published(
        "vit-l16", 384, "timm/vit_large_patch16_384.augreg_in21k_ft_in1k", 87.1, HALF, HALF, 1.0
    ),
    Published(
        "convnextv2-tiny", 384, "timm/convnextv2_tiny.fcmae_ft_in22k_in1k_384", 85.1,
        IMAGENET_MEAN, IMAGENET_STD, None,
    ),
    Published(
        "convnextv2-tiny", 224, "timm/convnextv2_tiny.fcmae_ft_in22k_in1k", 83.9,
        IMAGENET_MEAN, IMAGENET_STD, 0.875,
    ),
    Published(
        "vit-ti16", 224, "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", 75.5, HALF, HALF, 0.9
    ),
    Published(
        "convnextv2-atto", 224, "timm/convnextv2_atto.fcmae_ft_in1k", 76.7,
        IMAGENET_MEAN, IMAGENET_STD, 0.875,
    ),
)  # fmt: skip


def published(arch: str, image_size: int | None = None) -> Published:
    """The published weights of an architecture; of the paper's accuracy where no size is given.

    Raises ValueError when there are none.
    """
    found = [entry for entry in PUBLISHED if entry.arch == arch]
    if not found:
        known = ", ".join(dict.fromkeys(entry.arch for entry in PUBLISHED))
        raise ValueError(
            f"no weights of {arch!r} are known to be published: expected one of {known}"
        )
    for entry in found:
        if image_size in (None, entry.image_size):
            return entry
    sizes = " or ".join(str(entry.image_size) for entry in found)
    raise ValueError(f"weights of {arch} are published for images of {sizes}, not {image_size}")


def on_pixels(model: nnx.Module, weights: Published) -> jax.tree_util.Partial:
    """The model as a function of images (N, H, W, 3) in [-1, 1], a pytree like the model itself.

    Every network then takes the same images, and noise of one variance means the same picture for
    each of them, though they were trained on channels of other means and deviations. For weights of
    mean and std 0.5 these are the network's own units. ConvNeXtV2 was trained on channels divided
    by about 0.225: noise of variance v in its own units is 0.2 v here (15 there is about 3 here).
    """
    mean, std = (jnp.asarray(values, jnp.float32) for values in (weights.mean, weights.std))
    return jax.tree_util.Partial(_scaled, model, 0.5 / std, (0.5 - mean) / std)


def _scaled(
    model: Any, scale: Array, shift: Array, images: Float[Array, "n h w c"]
) -> Float[Array, "n k"]:
    return model(images * scale[None, None, None] + shift[None, None, None])


def fetch(weights: Published) -> Path:
    """The weights as a local file, downloaded on first use.

    Kept in ``$XDG_CACHE_HOME/jaxsens`` (``~/.cache/jaxsens`` where that is not set). The download
    is bounded, compared with the SHA-256 that the hub states, and given its name when it is whole.
    Raises CheckpointError when the hub cannot be reached or sends something else.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "jaxsens")
    path = cache / f"{weights.repository.replace('/', '--')}.safetensors"
    if path.is_file():
        return path
    url = f"{HUB}/{weights.repository}/resolve/main/model.safetensors"
    # Named after the process, and removed whatever happens: two downloads do not meet.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            _download(url, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _download(url: str, file: IO[bytes]) -> None:
    """Write what ``url`` holds into ``file``. Raises CheckpointError unless it is whole."""
    # Imported here: nothing else in the package needs a network client.
    import http.client
    import urllib.error
    import urllib.parse
    import urllib.request

    stated: dict[str, str] = {}

    class Redirect(urllib.request.HTTPRedirectHandler):
        """The hub names size and hash in the answer that leads on to the place of large files."""

        def redirect_request(self, request: Any, answer: Any, code: int, *rest: Any) -> Any:
            headers, target = rest[-2:]
            stated.update({name.lower(): value for name, value in headers.items()})
            if urllib.parse.urlsplit(target).scheme != urllib.parse.urlsplit(url).scheme:
                answer.close()
                raise CheckpointError(f"{url} leads to {target}, over another protocol")
            return super().redirect_request(request, answer, code, *rest)

    request = urllib.request.Request(url, headers={"User-Agent": "jaxsens"})
    digest, size, left = hashlib.sha256(), 0, 0
    try:
        with urllib.request.build_opener(Redirect).open(request, timeout=TIMEOUT) as answer:
            stated = {**{k.lower(): v for k, v in answer.headers.items()}, **stated}
            while block := answer.read(2**20):
                size += len(block)
                if size > MAX_BYTES:
                    raise CheckpointError(f"{url} holds more than {MAX_BYTES} bytes; not fetched")
                digest.update(block)
                file.write(block)
            left = answer.length or 0  # of what the answer itself announced
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        raise CheckpointError(
            f"{url} cannot be fetched ({reason[:200]}); fetch it where there is a network, and "
            "pass the path of the file in place of the hub"
        ) from None
    length = stated.get("x-linked-size", "")
    if left or (length.isdecimal() and int(length) != size):
        raise CheckpointError(f"{url} sent {size} bytes of {length or size + left}; try again")
    etag = re.fullmatch(r'(?:W/)?"?([0-9a-f]{64})"?', stated.get("x-linked-etag", ""))
    if etag and etag[1] != digest.hexdigest():
        raise CheckpointError(
            f"{url} sent a file of SHA-256 {digest.hexdigest()}, expected {etag[1]}; try again"
        )
