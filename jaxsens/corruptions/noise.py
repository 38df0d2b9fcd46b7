"""Noise on every pixel. Images x are (B, H, W, C) in [0, 1]; what comes back is not yet clipped."""

import numpy as np

from jaxsens.corruptions.streams import Streams


def gaussian_noise(x: np.ndarray, sd: float, streams: Streams) -> np.ndarray:
    """x + sd N."""
    return x + sd * streams.normal(*x.shape[1:])


def speckle_noise(x: np.ndarray, sd: float, streams: Streams) -> np.ndarray:
    """x + sd x N."""
    return x + x * sd * streams.normal(*x.shape[1:])


def shot_noise(x: np.ndarray, photons: float, streams: Streams) -> np.ndarray:
    """Poisson(c x) / c."""
    counts = [rng.poisson(photons * image) for rng, image in zip(streams, x, strict=True)]
    return np.stack(counts) / photons


def impulse_noise(x: np.ndarray, share: float, streams: Streams) -> np.ndarray:
    """Each channel of each pixel becomes 0 or 1, half each, with the given probability."""
    drawn = streams.uniform(0, 1, *x.shape[1:])
    return np.where(drawn < share / 2, 0.0, np.where(drawn < share, 1.0, x))
