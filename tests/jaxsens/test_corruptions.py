"""Each corruption against a slow statement of its definition, pixel by pixel."""

import colorsys
import io
import itertools
import math

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxsens.corruptions import blur, corrupt, digital, noise, weather
from jaxsens.corruptions.severity import CIFAR
from jaxsens.corruptions.streams import Streams

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)
X = ndimage.gaussian_filter(RNG.uniform(size=(3, 12, 10, 3)), (0, 1, 1, 0)) * 1.2 - 0.1
X = np.clip(X, 0, 1)
KEY = jax.random.key(0)


def streams(name="test"):
    return Streams(7, name, 0, len(X))


def at(image, row, column, edge):
    """A pixel, beyond the edges by rule."""

    def inside(i, n):
        while not 0 <= i < n:
            if edge == "repeat":
                i = min(max(i, 0), n - 1)
            elif edge == "mirror":
                i = -i if i < 0 else 2 * (n - 1) - i
            else:
                i = -i - 1 if i < 0 else 2 * n - 1 - i
        return i

    return image[inside(row, image.shape[0]), inside(column, image.shape[1])]


def places(image):
    return itertools.product(range(image.shape[0]), range(image.shape[1]))


def slow_gaussian(image, sd, edge="repeat", truncate=4.0):
    reach = int(truncate * sd + 0.5)
    weights = [math.exp(-(i**2) / (2 * sd**2)) for i in range(-reach, reach + 1)]
    result = np.zeros_like(image)
    for r, c in places(image):
        for (i, a), (j, b) in itertools.product(enumerate(weights, -reach), repeat=2):
            result[r, c] += a * b * at(image, r + i, c + j, edge)
    return result / sum(weights) ** 2


def test_noise_has_the_moments_of_its_definition():
    grey = np.full((4, 60, 60, 3), 0.4)
    drawn = Streams(1, "noise", 0, 4)
    count = grey.size
    for found, sd in (
        (noise.gaussian_noise(grey, 0.1, drawn), 0.1),
        (noise.speckle_noise(grey, 0.1, drawn), 0.04),
        (noise.shot_noise(grey, 60, drawn), math.sqrt(0.4 / 60)),
    ):
        assert abs(found.mean() - 0.4) < 5 * sd / count**0.5
        assert found.std() == pytest.approx(sd, rel=5 / (2 * count) ** 0.5)
    found = noise.impulse_noise(grey, 0.2, drawn)
    for value in (0, 1):
        assert abs((found == value).mean() - 0.1) < 5 * (0.09 / count) ** 0.5


def test_blurs_are_weighted_means_of_neighbours():
    np.testing.assert_allclose(
        blur.gaussian_blur(X, 0.7, streams())[0], slow_gaussian(X[0], 0.7), atol=1e-12
    )
    # At radius below 1 the disc is one pixel, and what is left is the 3 x 3 Gaussian.
    for severity, centre in zip((1, 2, 3), (0.845, 0.619, 0.445), strict=True):
        kernel = blur.disc(*CIFAR["defocus_blur"][severity - 1])
        assert kernel.shape == (3, 3)
        assert kernel[1, 1] == pytest.approx(centre, abs=5e-4)
    plus, box = blur.disc(1, 0.2), blur.disc(1.5, 0.1)
    np.testing.assert_allclose(plus[2, 1:4], [0.2, 0.2, 0.2], atol=1e-4)
    np.testing.assert_allclose(box, np.full((3, 3), 1 / 9), atol=1e-9)
    kernel = blur.disc(3, 0.1)
    assert kernel.shape == (7, 7)
    found = blur.defocus_blur(X, (3, 0.1), streams())[1]
    for r, c in places(X[1]):
        wanted = sum(
            kernel[i, j] * at(X[1], r + i - 3, c + j - 3, "mirror")
            for i, j in itertools.product(range(7), repeat=2)
        )
        np.testing.assert_allclose(found[r, c], wanted, atol=1e-12)


def test_glass_copies_the_partner_over_the_pixel():
    sd, reach, rounds = 0.4, 2, 2
    found = blur.glass_blur(X, (sd, reach, rounds), streams())
    rng = list(streams())[2]
    image = (np.clip(slow_gaussian(X[2], sd), 0, 1) * 255).astype(np.uint8)
    height, width, _ = image.shape
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    offsets = rng.integers(-reach, reach, (rounds, len(rows), len(columns), 2))
    for n in range(rounds):
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                down, right = offsets[n, i, j]
                image[r, c] = image[r + down, c + right]
    np.testing.assert_allclose(found[2], slow_gaussian(image / 255, sd), atol=1e-9)


def test_motion_follows_a_line_of_whole_pixels():
    angles = np.array([0.0, 30.0, -100.0])
    found = blur.along_line(X, 3, 2.0, angles)
    weights = [math.exp(-(i**2) / 8) for i in range(7)]
    for image, angle, blurred in zip(X, np.deg2rad(angles), found, strict=True):
        for r, c in places(image):
            wanted = sum(
                w
                * at(
                    image,
                    r + math.ceil(i * math.sin(angle) - 0.5),
                    c + math.ceil(i * math.cos(angle) - 0.5),
                    "repeat",
                )
                for i, w in enumerate(weights)
            )
            np.testing.assert_allclose(blurred[r, c], wanted / sum(weights), atol=1e-5)


@pytest.mark.parametrize("small", [0, blur.ONE_MATRIX])
def test_zoom_is_the_librarys_zoom_of_the_centre(small, monkeypatch):
    monkeypatch.setattr(blur, "ONE_MATRIX", small)
    assert [len(factors) for factors in CIFAR["zoom_blur"]] == [7, 12, 16, 21, 26]
    factors = [1.0, 1.07, 1.2]
    found = blur.zoom_blur(X, factors, streams())
    for image, blurred in zip(X, found, strict=True):
        total = image.copy()
        for factor in factors:
            inner = [math.ceil(n / factor) for n in image.shape[:2]]
            top, left = ((n - m) // 2 for n, m in zip(image.shape, inner, strict=False))
            crop = image[top : top + inner[0], left : left + inner[1]]
            large = ndimage.zoom(crop, (factor, factor, 1), order=1)
            cut = [(n - m) // 2 for n, m in zip(large.shape, image.shape, strict=True)]
            total += large[cut[0] :, cut[1] :][: image.shape[0], : image.shape[1]]
        np.testing.assert_allclose(blurred, total / 4, atol=1e-9)


@pytest.mark.parametrize("side", [32, 64])
def test_zoom_of_one_shade_is_that_shade(side):
    shades = np.broadcast_to(
        np.arange(256, dtype=np.uint8)[:, None, None, None], (256, side, side, 1)
    )
    for factors in CIFAR["zoom_blur"]:
        found = blur.eight_bits(blur.zoom_blur(shades / 255.0, factors, streams()))
        np.testing.assert_array_equal(found, shades)


def test_snow_and_frost_are_layers_on_the_image():
    settings = (0.3, 0.3, 1.25, 0.5, 4, 3.0, 0.8)
    found = weather.snow(X, settings, streams())
    drawn = streams()
    field = 0.3 + 0.3 * drawn.normal(12, 10, 1)
    angles = drawn.uniform(-135, -45)
    for image, layer, angle, snowed in zip(X, blur.zoom(field, 1.25), angles, found, strict=True):
        layer = np.where(layer < 0.5, 0, layer)
        layer = (np.clip(layer, 0, 1) * 255).astype(np.uint8) / 255
        layer = blur.along_line(layer[None], 4, 3.0, angle[None])[0]
        layer = (np.clip(layer, 0, 1) * 255).astype(np.uint8) / 255
        for r, c in places(image):
            light = image[r, c] @ [0.299, 0.587, 0.114] * 1.5 + 0.5
            wanted = 0.8 * image[r, c] + 0.2 * np.maximum(image[r, c], light)
            wanted = wanted + layer[r, c] + layer[11 - r, 9 - c]
            np.testing.assert_allclose(snowed[r, c], wanted, atol=1e-12)
    texture = RNG.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    frosted = (weather.frost(X, (0.75, 0.45), streams(), [texture]) - 0.75 * X) / 0.45 * 255
    windows = [texture[i : i + 12, j : j + 10] for i, j in itertools.product(range(9), range(11))]
    for piece in frosted:
        assert any(np.allclose(piece, window) for window in windows)
    assert len({picture.tobytes() for picture in weather.ice_textures(32)}) == 5


def test_fog_is_a_periodic_diamond_square_cloud():
    size, decay = 8, 2.0
    found = weather.clouds(streams(), size, decay)
    for field, rng in zip(found, streams(), strict=True):
        slow, step, wobble = np.zeros((size, size)), size, 100.0
        while step >= 2:
            half, cells = step // 2, size // step
            noises = [wobble * rng.uniform(-wobble, wobble, (cells, cells)) for _ in range(3)]
            for kind, noise_ in zip(("square", "right", "down"), noises, strict=True):
                for i, j in itertools.product(range(cells), repeat=2):
                    r = i * step + (half if kind != "right" else 0)
                    c = j * step + (half if kind != "down" else 0)
                    near = [(half, half), (half, -half), (-half, half), (-half, -half)]
                    if kind != "square":
                        near = [(half, 0), (-half, 0), (0, half), (0, -half)]
                    mean = sum(slow[(r + a) % size, (c + b) % size] for a, b in near) / 4
                    slow[r, c] = mean + noise_[i, j]
            step, wobble = half, wobble / decay
        np.testing.assert_allclose(field, (slow - slow.min()) / np.ptp(slow), atol=1e-12)
    fogged = weather.fog(X, (0.75, 2.5), streams())
    cloud = weather.clouds(streams(), 16, 2.5)[:, :12, :10, None]
    most = X.max(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(fogged, (X + 0.75 * cloud) * most / (most + 0.75))


def test_colours_are_changed_in_hue_saturation_and_value():
    x = X.copy()
    x[0, 0, 0], x[0, 0, 1] = 0.0, 0.5  # black, grey
    brighter = digital.brightness(x, 0.2, streams())
    richer = digital.saturate(x, (1.5, 0.1), streams())
    for image, one, other in zip(x, brighter, richer, strict=True):
        for r, c in places(image):
            h, s, v = colorsys.rgb_to_hsv(*image[r, c])
            np.testing.assert_allclose(one[r, c], colorsys.hsv_to_rgb(h, s, min(v + 0.2, 1)))
            wanted = colorsys.hsv_to_rgb(h, min(1.5 * s + 0.1, 1), v)
            np.testing.assert_allclose(other[r, c], wanted, atol=1e-12)
    softer = digital.contrast(x, 0.4, streams())
    for channel in range(3):
        values = x[1, ..., channel]
        wanted = [[0.4 * (v - values.mean()) + values.mean() for v in row] for row in values]
        np.testing.assert_allclose(softer[1, ..., channel], wanted)


@pytest.mark.parametrize("images", [IMAGES, IMAGES[..., :1]])
def test_pixelate_and_jpeg_are_pillows(images):
    for name in ("pixelate", "jpeg_compression"):
        found = corrupt(images, name, 4, key=KEY)
        for image, changed in zip(images, found, strict=True):
            picture = Image.fromarray(image.squeeze())
            if name == "pixelate":
                picture = picture.resize((7, 9), Image.Resampling.BOX)
                picture = picture.resize((10, 12), Image.Resampling.BOX)
            else:
                buffer = io.BytesIO()
                picture.save(buffer, "JPEG", quality=50)
                picture = Image.open(buffer)
            np.testing.assert_array_equal(changed.squeeze(), np.asarray(picture))


def test_elastic_is_an_affine_map_and_a_smooth_displacement():
    found = digital.elastic_transform(X, (0.1, 0.08, 0.06), streams())
    drawn = streams()
    jitter = drawn.uniform(-0.6, 0.6, 3, 2)
    shifts = [drawn.uniform(-1, 1, 12, 10) for _ in range(2)]
    rows, columns = np.mgrid[:12, :10]
    corners = np.array([[5, 6], [5, 6], [5, 6]]) + 3 * np.array([[1, 1], [1, -1], [-1, -1]])
    for n, image in enumerate(X):
        known = np.c_[corners + jitter[n], np.ones(3)]
        back = np.linalg.inv(known) @ corners
        source = np.stack([columns.ravel(), rows.ravel(), np.ones(120)], 1) @ back
        smooth = [ndimage.gaussian_filter(s[n], 0.8, mode="reflect", truncate=3.0) for s in shifts]
        for channel in range(3):
            first = ndimage.map_coordinates(
                image[..., channel], source[:, ::-1].T, order=1, mode="mirror"
            ).reshape(12, 10)
            wanted = ndimage.map_coordinates(
                first, [rows + smooth[1], columns + smooth[0]], order=1, mode="reflect"
            )
            np.testing.assert_allclose(found[n, ..., channel], wanted, atol=1e-9)


def test_mud_covers_and_water_adds_light():
    settings = (0.65, 0.1, 0.5, 0.68, 0.6, 1)
    found = weather.spatter(X, settings, streams())
    fields = 0.65 + 0.1 * streams().normal(12, 10)
    for image, field, muddy in zip(X, fields, found, strict=True):
        field = slow_gaussian(field[..., None], 0.5)
        cover = slow_gaussian((field > 0.68).astype(float), 0.6)
        cover[cover < 0.8] = 0
        wanted = image * (1 - cover) + cover * np.array([63, 42, 20]) / 255
        np.testing.assert_allclose(muddy, wanted, atol=1e-12)
    wet = weather.spatter(X, (0.62, 0.1, 0.7, 0.65, 0.5, 0), streams())
    added = wet - X
    assert added.min() >= 0
    assert added.max() == pytest.approx(0.5 * 238 / 255)
    drops = slow_gaussian((0.62 + 0.1 * streams().normal(12, 10))[0][..., None], 0.7) >= 0.65
    assert (added[0][~drops[..., 0]] == 0).all()
    assert drops.any()
    assert not drops.all()
