"""Weather. Images x are (B, H, W, C) in [0, 1]."""

import numpy as np
from scipy import ndimage

from jaxsens.corruptions.blur import along_line, eight_bits, zoom
from jaxsens.corruptions.streams import Streams

LUMINANCE = np.array([0.299, 0.587, 0.114])
WATER = np.array([175, 238, 238]) / 255
FARTHEST = 20  # pixels to the rim of a drop
MUD = np.array([63, 42, 20]) / 255


def grey(x: np.ndarray) -> np.ndarray:
    """Luminance, (B, H, W, 1)."""
    return x if x.shape[-1] == 1 else (x @ LUMINANCE)[..., None]


def coloured(colour: np.ndarray, channels: int) -> np.ndarray:
    """A colour in the channels of the images: its luminance where they are grey."""
    return colour if channels == 3 else np.array([colour @ LUMINANCE])


def snow(x: np.ndarray, settings: tuple[float, ...], streams: Streams) -> np.ndarray:
    """Flakes are what a zoomed normal field has above a floor, blurred along the fall.

    The image is lightened, and the flakes are added twice, the second time turned by 180 degrees.
    """
    mean, sd, factor, floor, radius, spread, mix = settings
    layer = zoom(mean + sd * streams.normal(*x.shape[1:3], 1), factor)
    layer[layer < floor] = 0
    layer = eight_bits(layer) / 255.0
    layer = eight_bits(along_line(layer, int(radius), spread, streams.uniform(-135, -45))) / 255.0
    pale = mix * x + (1 - mix) * np.maximum(x, 1.5 * grey(x) + 0.5)
    return pale + layer + layer[:, ::-1, ::-1]


def frost(
    x: np.ndarray, settings: tuple[float, float], streams: Streams, textures: list[np.ndarray]
) -> np.ndarray:
    """The image and a random piece of a picture of ice, each with its weight."""
    image, ice = settings
    _, height, width, channels = x.shape
    pieces = []
    for rng in streams:
        texture = textures[rng.integers(len(textures))]
        top, left = (
            rng.integers(0, a - b + 1)
            for a, b in zip(texture.shape[:2], (height, width), strict=True)
        )
        pieces.append(texture[top : top + height, left : left + width])
    stacked = np.stack(pieces) / 255.0
    return image * x + ice * (stacked if channels == 3 else grey(stacked))


def ice_textures(side: int) -> list[np.ndarray]:
    """Five pictures of our own making in place of photographs of frost: veins over a pale ground.

    Three layers of periodic cloud (:func:`clouds`), folded at their middle so that ridges appear,
    tinted blue; uint8 (4 side, 4 side, 3) with sides a power of two.
    """
    size = _power_of_two(4 * side)
    pictures = []
    for number in range(5):
        layers = clouds(Streams(number, "ice", 0, 3), size, 1.6)
        ridges = 1 - np.abs(2 * layers - 1)
        veins = ridges[0] ** 6 + 0.7 * ridges[1] ** 4
        light = np.clip(0.35 + 0.5 * veins + 0.3 * (layers[2] - 0.5), 0, 1)[..., None]
        pictures.append(eight_bits(light * np.array([0.86, 0.95, 1.0])))
    return pictures


def fog(x: np.ndarray, settings: tuple[float, float], streams: Streams) -> np.ndarray:
    """(x + a F) m / (m + a): a cloud F in [0, 1], and m the largest value of the image."""
    amount, decay = settings
    height, width = x.shape[1:3]
    cloud = clouds(streams, _power_of_two(max(height, width)), decay)[:, :height, :width, None]
    most = x.max(axis=(1, 2, 3), keepdims=True)
    return (x + amount * cloud) * most / (most + amount)


def clouds(streams: Streams, size: int, decay: float) -> np.ndarray:
    """Periodic diamond-square maps (B, size, size), shifted and scaled to [0, 1].

    From one corner at 0, each pass halves the grid: the centre of every square, then the middle of
    every edge, is the mean of its four neighbours plus w U(-w, w). w is 100 at first and is divided
    by ``decay`` from pass to pass.
    """
    field = np.zeros((len(streams), size, size))
    step, wobble = size, 100.0

    def put(place: tuple[slice, ...], four: list[np.ndarray]) -> None:
        shape = four[0].shape[1:]
        noise = streams.draw(lambda rng: wobble * rng.uniform(-wobble, wobble, shape))
        field[place] = sum(four) / 4 + noise

    while step >= 2:
        every, between = slice(0, None, step), slice(step // 2, None, step)
        corners = field[:, every, every]
        right = np.roll(corners, -1, axis=2)
        put(np.s_[:, between, between], [
            corners, right, np.roll(corners, -1, axis=1), np.roll(right, -1, axis=1)
        ])  # fmt: skip
        centres = field[:, between, between].copy()
        put(np.s_[:, every, between], [corners, right, centres, np.roll(centres, 1, axis=1)])
        put(np.s_[:, between, every], [
            corners, np.roll(corners, -1, axis=1), centres, np.roll(centres, 1, axis=2)
        ])  # fmt: skip
        step, wobble = step // 2, wobble / decay
    field -= field.min(axis=(1, 2), keepdims=True)
    return field / field.max(axis=(1, 2), keepdims=True)


def spatter(x: np.ndarray, settings: tuple[float, ...], streams: Streams) -> np.ndarray:
    """Drops of water (severities 1 to 3) or mud on the lens.

    Drops are what a smoothed normal field has above a floor. Mud covers the image where a smoothed
    indicator of them is at least 0.8. Water adds light where the distance to the rim of a drop, up
    to 20 pixels, smoothed and equalised, has a slope from the top left.
    """
    mean, sd, blur, floor, strength, mud = settings
    channels = x.shape[-1]
    field = mean + sd * streams.normal(*x.shape[1:3])
    field = ndimage.gaussian_filter(field, (0, blur, blur), mode="nearest", truncate=4.0)
    field[field < floor] = 0
    if mud:
        cover = ndimage.gaussian_filter(
            (field > floor).astype(float), (0, strength, strength), mode="nearest", truncate=4.0
        )
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return x * (1 - cover) + coloured(MUD, channels) * cover
    light = _rims(field)[..., None]
    most = light.max(axis=(1, 2, 3), keepdims=True)
    light = strength * light / np.where(most > 0, most, 1)
    return x + light * coloured(WATER, channels)


def _rims(drops: np.ndarray) -> np.ndarray:
    """How bright each pixel of the fields of drops (B, H, W) is, not yet scaled."""
    inside = drops > 0
    cross = ndimage.generate_binary_structure(2, 1)[None]
    rim = inside & ~ndimage.binary_erosion(inside, cross, border_value=1)
    far = np.stack([ndimage.distance_transform_edt(~one) for one in rim])  # as it is without a rim
    near = ndimage.uniform_filter(np.minimum(far, FARTHEST), (0, 3, 3), mode="mirror")
    level = _equalised(np.floor(near).astype(int))
    slope = np.array([[-2.0, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = np.clip(ndimage.correlate(level, slope[None], mode="mirror"), 0, 255)
    drawn = drops * ndimage.uniform_filter(lit, (0, 3, 3), mode="mirror")
    return np.where(rim.any(axis=(1, 2), keepdims=True), drawn, 0.0)


def _equalised(distance: np.ndarray) -> np.ndarray:
    """The share of each image's pixels that are no farther, from 0 at the least to 255."""
    count, bins = len(distance), FARTHEST + 1
    pixels = distance.reshape(count, -1)
    which = pixels + bins * np.arange(count)[:, None]
    counts = np.bincount(which.ravel(), minlength=count * bins).reshape(count, bins)
    shares = counts.cumsum(axis=1) / pixels.shape[1]
    least = np.take_along_axis(shares, pixels.min(axis=1, keepdims=True), axis=1)
    scaled = 255 * (shares - least) / np.maximum(1 - least, 1e-9)
    return np.take_along_axis(scaled, pixels, axis=1).reshape(distance.shape)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
