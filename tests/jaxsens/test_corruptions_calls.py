"""`corrupt` as it is called: keys and numbers of images, severities, own files, what it refuses."""

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxsens.corruptions import COMMON, NAMES, applicable, corrupt
from jaxsens.corruptions.severity import CIFAR, IMAGENET, constants

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)
KEY = jax.random.key(0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_an_image_depends_on_its_key_and_number_alone(name, channels):
    images = IMAGES[..., :channels]
    if name not in applicable(channels):
        with pytest.raises(ValueError, match="saturate needs images in colour"):
            corrupt(images, name, 1, key=KEY)
        return
    before = images.copy()
    whole = corrupt(images, name, 5, key=KEY)
    assert whole.dtype == np.uint8
    assert whole.shape == images.shape
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(corrupt(images[1:2], name, 5, key=KEY, first=1), whole[1:2])
    assert (whole != images).any()
    random = {*COMMON, "spatter", "speckle_noise"} - {
        "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"
    }  # fmt: skip
    other = corrupt(images, name, 5, key=jax.random.key(1))
    assert (other != whole).any() == (name in random)


def test_severities_grow_and_large_images_take_the_other_constants():
    picture = np.asarray(ndimage.zoom(IMAGES[0], (3, 3, 1), order=1))[None][:, :32, :30]
    for name in ("gaussian_noise", "impulse_noise", "contrast", "brightness", "gaussian_blur"):
        changes = [
            np.abs(corrupt(picture, name, s, key=KEY).astype(int) - picture).mean()
            for s in range(1, 6)
        ]
        assert changes == sorted(changes)
    assert constants("gaussian_noise", 1, 63) == 0.04
    assert constants("gaussian_noise", 1, 64) == 0.08
    assert {len(levels) for table in (CIFAR, IMAGENET) for levels in table.values()} == {5}
    assert set(CIFAR) == set(IMAGENET) == set(NAMES)


def test_frost_of_the_users_own(tmp_path):
    Image.fromarray(np.full((100, 100, 3), 200, np.uint8)).save(tmp_path / "ice.png")
    found = corrupt(IMAGES, "frost", 1, key=KEY, frost_images=tmp_path)
    wanted = (np.clip(IMAGES / 255.0 + 0.2 * 200 / 255, 0, 1) * 255).astype(np.uint8)
    assert np.abs(found.astype(int) - wanted).max() <= 1
    Image.fromarray(np.full((20, 20, 3), 200, np.uint8)).save(tmp_path / "ice.png")
    with pytest.raises(ValueError, match=r"ice\.png is too small for frost: 4 x 4"):
        corrupt(IMAGES, "frost", 1, key=KEY, frost_images=str(tmp_path))
    (tmp_path / "ice.png").unlink()
    with pytest.raises(ValueError, match="holds no PNG or JPEG"):
        corrupt(IMAGES, "frost", 1, key=KEY, frost_images=tmp_path)


@pytest.mark.parametrize(
    ("images", "name", "severity", "message"),
    [
        (IMAGES, "fogg", 1, "there is no corruption 'fogg'; expected one of gaussian_noise"),
        (IMAGES, "fog", 0, "severity must be a whole number from 1 to 5, got 0"),
        (IMAGES, "fog", 6, "from 1 to 5, got 6"),
        (IMAGES, "fog", 1.5, "from 1 to 5, got 1.5"),
        (IMAGES, "fog", True, "from 1 to 5, got True"),
        (IMAGES / 255.0, "fog", 1, "images must be uint8 .* got float64"),
        (IMAGES[0], "fog", 1, "got uint8 of shape"),
        (np.moveaxis(IMAGES, 3, 1), "fog", 1, "got uint8 of shape"),
        (IMAGES[:, :4], "fog", 1, "sides of at least 8 pixels"),
    ],
)
def test_what_cannot_be_corrupted_is_one_line(images, name, severity, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        corrupt(images, name, severity, key=KEY)
    assert "\n" not in str(caught.value)
