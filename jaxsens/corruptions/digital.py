"""Colour, geometry and compression. Images x are (B, H, W, C) in [0, 1]."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

from jaxsens.corruptions.streams import Streams


def brightness(x: np.ndarray, more: float, streams: Streams) -> np.ndarray:
    """V + c in hue, saturation and value V, the largest channel."""
    value = x.max(axis=-1, keepdims=True)
    shade = np.where(value > 0, x / np.where(value > 0, value, 1), 1.0)
    return shade * np.clip(value + more, 0, 1)


def saturate(x: np.ndarray, settings: tuple[float, float], streams: Streams) -> np.ndarray:
    """c0 S + c1 in place of the saturation S = 1 - min / max; grey has the hue of red."""
    scale, shift = settings
    value, least = (f(axis=-1, keepdims=True) for f in (x.max, x.min))
    saturation = (value - least) / np.where(value > 0, value, 1)
    wanted = np.clip(scale * saturation + shift, 0, 1)
    red = value * np.array([0.0, 1.0, 1.0])
    missing = np.where(saturation > 0, (value - x) / np.where(saturation > 0, saturation, 1), red)
    return value - missing * wanted


def contrast(x: np.ndarray, scale: float, streams: Streams) -> np.ndarray:
    """Each channel about its mean over the image."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    return (x - mean) * scale + mean


def pixelate(x: np.ndarray, share: float, streams: Streams) -> np.ndarray:
    """Down to a share of the side and up again, both by averages over boxes."""
    height, width = x.shape[1:3]

    def change(image: Image.Image) -> Image.Image:
        small = image.resize((int(width * share), int(height * share)), Image.Resampling.BOX)
        return small.resize((width, height), Image.Resampling.BOX)

    return _by_pillow(x, change)


def jpeg_compression(x: np.ndarray, quality: int, streams: Streams) -> np.ndarray:
    """Saved as JPEG and read again."""

    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return _by_pillow(x, change)


def _by_pillow(x: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    grey = x.shape[-1] == 1
    # Rounded, not cut off: these are bytes already.
    images = np.rint(x * 255).astype(np.uint8)
    changed = [
        np.asarray(change(Image.fromarray(image[..., 0] if grey else image))) for image in images
    ]
    stacked = np.stack(changed)
    # Half a step more, so that cutting off to 8 bits gives the byte itself.
    return ((stacked[..., None] if grey else stacked) + 0.25) / 255.0


def elastic_transform(
    x: np.ndarray, settings: tuple[float, float, float], streams: Streams
) -> np.ndarray:
    """An affine map near the identity, then a smooth random displacement; bilinear.

    The map takes three corners of the central square, of a third of the shorter side to each side
    of the centre, to points within ``jitter``. Edges are mirrored, without repetition in the first
    step and with it in the second.
    """
    height, width = x.shape[1:3]
    side = min(height, width)
    alpha, sd, jitter = (side * share for share in settings)
    centre, reach = np.array([width // 2, height // 2]), side // 3
    corners = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + streams.uniform(-jitter, jitter, 3, 2)
    # Where each pixel comes from: the affine map of `moved` to `corners`.
    known = np.concatenate([moved, np.ones((len(x), 3, 1))], axis=2)
    back = np.linalg.solve(known, np.broadcast_to(corners.astype(float), (len(x), 3, 2)))
    rows, columns = np.mgrid[:height, :width].astype(float)
    pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    source = (pixels.reshape(-1, 3) @ back).reshape(len(x), height, width, 2)
    x = sample(x, source[..., 1], source[..., 0], "mirror")
    if alpha == 0:
        return x
    shifts = [
        alpha
        * ndimage.gaussian_filter(
            streams.uniform(-1, 1, height, width), (0, sd, sd), mode="reflect", truncate=3.0
        )
        for _ in range(2)
    ]
    return sample(x, rows + shifts[1], columns + shifts[0], "reflect")


def sample(x: np.ndarray, rows: np.ndarray, columns: np.ndarray, edge: str) -> np.ndarray:
    """Bilinear values of the images at places (B, H, W), beyond the edges at their mirror images.

    ``mirror`` does not repeat the outermost pixel, ``reflect`` does.
    """
    count, height, width, channels = x.shape
    pixels = x.reshape(-1, channels)
    first = np.arange(count)[:, None, None] * height
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    below, beyond = rows - top, columns - left
    result = np.zeros((*rows.shape, channels))
    for row, vertical in ((top, 1 - below), (top + 1, below)):
        start = (first + _inside(row, height, edge)) * width
        for column, horizontal in ((left, 1 - beyond), (left + 1, beyond)):
            corner = np.take(pixels, start + _inside(column, width, edge), axis=0)
            corner *= (vertical * horizontal)[..., None]
            result += corner
    return result


def _inside(index: np.ndarray, size: int, edge: str) -> np.ndarray:
    low, high = index.min(), index.max()
    place = np.arange(low, high + 1)
    if size == 1:
        place[:] = 0
    else:
        turn = 2 * size - 1 if edge == "reflect" else 2 * size - 2
        place %= 2 * size if edge == "reflect" else turn
        place = np.where(place < size, place, turn - place)
    return np.take(place, index - low)
