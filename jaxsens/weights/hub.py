"""ImageNet weights that are published: where they lie, what images they expect, how to fetch them.

The paper (A, Section 5) measured a ViT-L/16 and a ConvNeXtV2-Tiny "of 85 %" without naming the
files. Of the published ones, ViT-L/16 at 224 pixels (85.8 %) and ConvNeXtV2-Tiny at 384 (85.1 %)
come nearest; at 224 pixels ConvNeXtV2-Tiny has 83.9 %. Accuracies here are those of their
publishers; they have not been measured again with this package, and `fetch` has been tried on a
server that the tests start, not on the hub. The weights of ConvNeXtV2 are under
CC BY-NC 4.0, those of the ViTs under Apache 2.0.
"""

import dataclasses
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from jaxsens.data.dataset import reason
from jaxsens.data.files.budget import WAIT
from jaxsens.weights import WeightsError
from jaxsens.weights.files import shown

FILE = "model.safetensors"
MAX_BYTES = 2**31  # ViT-L/16 takes 1.2 GB

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
    validation images. ``revision`` is the commit to read; None, as long as it was not looked up,
    for the one that is current on first use.
    """

    arch: str
    image_size: int
    repository: str
    accuracy: float
    mean: Channels
    std: Channels
    crop: float | None
    revision: str | None = None


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
    """The weights as a local file, downloaded on first use through huggingface_hub.

    Its cache (HF_HOME), token (HF_TOKEN), mirror (HF_ENDPOINT) and offline switch (HF_HUB_OFFLINE)
    count. The same commit is read ever after: that of ``weights.revision``, or else the one that
    was current on first use, noted in ``$XDG_CACHE_HOME/jaxsens/revisions`` (``~/.cache`` where
    that is not set); remove the note to move on. A download is bounded beforehand, and compared
    with the SHA-256 that the hub states. Raises WeightsError when huggingface_hub is not installed,
    or the hub cannot be reached or sends something else.
    """
    try:
        # Imported here: nothing else in the package needs a network client.
        import huggingface_hub as client
    except ImportError as error:
        raise WeightsError(
            f"published weights come through huggingface_hub ({error}); run: pip install "
            "huggingface_hub, or pass the path of a file in place of the hub"
        ) from None
    repository, note = weights.repository, _note(weights)
    pinned = weights.revision or _read_note(note)
    cached = client.try_to_load_from_cache(repository, FILE, revision=pinned or "main")
    if isinstance(cached, str):
        path = Path(cached)
    else:
        try:
            path = _download(client, repository, pinned or "main")
        except WeightsError:
            raise
        except Exception as error:  # the client, its server and the network fail in many ways
            raise WeightsError(
                f"{FILE} of {repository} ({pinned or 'main'}) cannot be fetched from the hub "
                f"({_said(error)}); fetch it where there is a network, and pass the path "
                "of the file in place of the hub"
            ) from None
    commit = path.parent.name
    if not pinned and re.fullmatch("[0-9a-f]{40}", commit):
        _write_note(note, commit)
    return path


def _said(error: Exception) -> str:
    """What the client says, without the address, which would fill the line."""
    return re.sub(r"https?://\S+", "the hub", " ".join(str(error).split()))[:150]


def _download(client: Any, repository: str, revision: str) -> Path:
    """The file in the client's cache, whole."""
    url = client.hf_hub_url(repository, FILE, revision=revision)
    stated = client.get_hf_file_metadata(url, timeout=WAIT)
    if stated.size is None or stated.size > MAX_BYTES:
        raise WeightsError(f"{url} holds {stated.size} bytes, more than {MAX_BYTES}; not fetched")
    # By commit: what the branch means may change while the file is on its way.
    path = Path(
        client.hf_hub_download(
            repository, FILE, revision=stated.commit_hash or revision, etag_timeout=WAIT
        )
    )
    if re.fullmatch("[0-9a-f]{64}", stated.etag or ""):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != stated.etag:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise WeightsError(
                f"{url} sent a file of SHA-256 {digest}, expected {stated.etag}; try again"
            )
    return path


def _note(weights: Published) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "jaxsens" / "revisions" / weights.repository.replace("/", "--")


def _read_note(note: Path) -> str | None:
    """The commit that a repository was pinned to. Raises WeightsError when the note is damaged."""
    try:
        commit = note.read_text(encoding="ascii", errors="replace")[:100].strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(f"{note} cannot be read: {reason(error)}") from None
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise WeightsError(f"{note} holds {shown(commit)}, expected a commit; remove it")
    return commit


def _write_note(note: Path, commit: str) -> None:
    # Named after the process, and given its name when it is whole: two first uses do not meet.
    partial = note.with_name(f".{note.name}.{os.getpid()}.partial")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(f"{commit}\n")
        partial.replace(note)
    except OSError as error:
        raise WeightsError(f"{note} cannot be written: {reason(error)}") from None
    finally:
        partial.unlink(missing_ok=True)
