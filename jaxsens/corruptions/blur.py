"""Blur. Images x are (B, H, W, C) in [0, 1]."""

import functools
import math

import numpy as np
from scipy import ndimage

from jaxsens.corruptions.streams import Streams

ONE_MATRIX = 40  # pixels of a side to which all zooms together are one matrix


def smooth(x: np.ndarray, sd: float) -> np.ndarray:
    """A Gaussian over rows and columns, edges repeated, cut at 4 standard deviations."""
    return ndimage.gaussian_filter(x, (0, sd, sd, 0), mode="nearest", truncate=4.0)


def gaussian_blur(x: np.ndarray, sd: float, streams: Streams) -> np.ndarray:
    """A Gaussian, each channel alone."""
    return smooth(x, sd)


def defocus_blur(x: np.ndarray, settings: tuple[float, float], streams: Streams) -> np.ndarray:
    """The disc of all whole offsets within the radius, itself smoothed; edges mirrored."""
    return ndimage.convolve(x, disc(*settings)[None, :, :, None], mode="mirror")


def disc(radius: float, sd: float) -> np.ndarray:
    """The kernel: an indicator of the disc, smoothed by 3 x 3 (5 x 5 at radius 10), of sum 1."""
    reach = max(8, math.ceil(radius))
    offsets = np.arange(-reach, reach + 1)
    kernel = (offsets[:, None] ** 2 + offsets[None] ** 2 <= radius**2).astype(float)
    width = 1 if radius <= 8 else 2
    bell = np.exp(-(np.arange(-width, width + 1) ** 2) / (2 * sd**2))
    for axis in (0, 1):
        kernel = ndimage.convolve1d(kernel, bell / bell.sum(), axis, mode="constant")
    kernel /= kernel.sum()
    used = np.flatnonzero(kernel.max(axis=0) > 1e-9)
    return kernel[used[0] : used[-1] + 1, used[0] : used[-1] + 1]


def glass_blur(x: np.ndarray, settings: tuple[float, int, int], streams: Streams) -> np.ndarray:
    """Smoothed, pixels displaced at random, smoothed again.

    From the bottom right to the top left, every pixel takes the value of a partner at an offset
    from -reach to reach - 1 in either direction. A swap was meant; the published images come of a
    copy, and so do these.
    """
    sd, reach, rounds = settings
    x = eight_bits(smooth(x, sd))
    _, height, width, _ = x.shape
    rows = np.arange(height - reach, reach, -1)
    columns = np.arange(width - reach, reach, -1)
    shape = (rounds, len(rows), len(columns), 2)
    offsets = streams.draw(lambda rng: rng.integers(-reach, reach, shape))
    images = np.arange(len(x))
    for number in range(rounds):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                down, right = offsets[:, number, i, j].T
                x[:, row, column] = x[images, row + down, column + right]
    return smooth(x / 255.0, sd)


def motion_blur(x: np.ndarray, settings: tuple[int, float], streams: Streams) -> np.ndarray:
    """Along a line at an angle within 45 degrees of the horizontal."""
    return along_line(x, *settings, streams.uniform(-45, 45))


def along_line(x: np.ndarray, radius: int, sd: float, degrees: np.ndarray) -> np.ndarray:
    """One-sided Gaussian weights exp(-i^2 / (2 sd^2)), i = 0..2 radius, on pixels i steps away.

    The step is the unit vector of each image's angle, rounded to whole pixels; edges are repeated.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sd**2))
    weights /= weights.sum()
    angle = np.deg2rad(degrees)[:, None]
    down, right = (np.ceil(steps * turn(angle) - 0.5).astype(int) for turn in (np.sin, np.cos))
    count, height, width, channels = x.shape
    pixels, first = x.reshape(-1, channels), np.arange(count)[:, None] * height
    result = np.zeros_like(x)
    for i, weight in enumerate(weights):
        if weight < 1e-6:  # nothing in 8 bits
            break
        rows = np.clip(np.arange(height) + down[:, i, None], 0, height - 1)
        columns = np.clip(np.arange(width) + right[:, i, None], 0, width - 1)
        place = ((first + rows) * width)[:, :, None] + columns[:, None, :]
        result += weight * np.take(pixels, place, axis=0)
    return result


def zoom_blur(x: np.ndarray, factors: list[float], streams: Streams) -> np.ndarray:
    """The mean of the image and of its centre at each zoom factor (the factor 1 among them)."""
    count, height, width, channels = x.shape
    if height * width > ONE_MATRIX**2:
        mean = (x + sum(zoom(x, factor) for factor in factors)) / (len(factors) + 1)
    else:
        planes = np.moveaxis(x, 3, 1).reshape(count * channels, -1)
        blurred = planes @ mean_zoom(height, width, tuple(factors)).T
        mean = np.moveaxis(blurred.reshape(count, channels, height, width), 1, 3)
    return mean + 1e-10  # cut off to bytes, a pixel among its like is itself


@functools.lru_cache(1)
def mean_zoom(height: int, width: int, factors: tuple[float, ...]) -> np.ndarray:
    """The mean of the identity and the zooms as one matrix (H W, H W): sum_f R_f (x) C_f / F."""
    down, across = (
        np.stack([np.eye(side), *(zoom_matrix(side, factor) for factor in factors)])
        for side in (height, width)
    )
    together = np.tensordot(down, across, axes=(0, 0)) / len(down)  # (H, H, W, W)
    return together.transpose(0, 2, 1, 3).reshape(height * width, -1)


def zoom(x: np.ndarray, factor: float) -> np.ndarray:
    """The centre, ceil(side / factor) pixels of it, enlarged bilinearly and cut to size."""
    rows, columns = (zoom_matrix(side, factor) for side in x.shape[1:3])
    planes = rows @ np.moveaxis(x, 3, 1) @ columns.T  # (B, C, H, W)
    return np.moveaxis(planes, 1, 3)


@functools.lru_cache(64)
def zoom_matrix(side: int, factor: float) -> np.ndarray:
    """The zoom of one axis as a matrix: the library's zoom of every unit vector."""
    inner = math.ceil(side / factor)
    start = (side - inner) // 2
    enlarged = ndimage.zoom(np.eye(side)[start : start + inner], (factor, 1), order=1)
    cut = (len(enlarged) - side) // 2
    return enlarged[cut : cut + side]


def eight_bits(x: np.ndarray) -> np.ndarray:
    """Clipped to [0, 1], times 255 and cut off to bytes, as the published images are."""
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)
