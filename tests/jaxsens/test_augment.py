"""Augmentations against a slow statement of them in NumPy, and in training."""

import itertools

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from jaxsens import augment, models
from jaxsens.training import Split, Trainer


@pytest.fixture
def images():
    return np.asarray(jax.random.normal(jax.random.key(0), (200, 6, 5, 2)))


def windows(image, padding):
    """Every crop of an image in a black border, by its corner."""
    height, width, channels = image.shape
    canvas = np.full((height + 2 * padding, width + 2 * padding, channels), -1.0, image.dtype)
    canvas[padding : padding + height, padding : padding + width] = image
    corners = itertools.product(range(2 * padding + 1), repeat=2)
    return {(r, c): canvas[r : r + height, c : c + width] for r, c in corners}


def test_crops_are_uniform_over_all_corners(images):
    padding = 1
    cropped = np.asarray(augment.crop(images, jax.random.key(1), padding=padding))
    counts = dict.fromkeys(itertools.product(range(3), repeat=2), 0)
    for image, result in zip(images, cropped, strict=True):
        (corner,) = [k for k, v in windows(image, padding).items() if np.array_equal(v, result)]
        counts[corner] += 1
    expected = len(images) / 9
    chi_square = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi_square < 26.1  # the 99.9 % point of chi-square with 8 degrees of freedom


def test_flip_mirrors_half_of_the_images(images):
    flipped = np.asarray(augment.flip(images, jax.random.key(2)))
    same = (flipped == images).all((1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(images))


def test_crop_and_flip_gives_windows_and_their_mirror_images(images):
    image = images[0]
    views = list(windows(image, 4).values())
    views += [view[:, ::-1] for view in views]
    results = augment.crop_and_flip(np.repeat(image[None], 20, 0), jax.random.key(3))
    assert all(any(np.array_equal(view, result) for view in views) for result in results)
    assert len({np.asarray(result).tobytes() for result in results}) > 5


def test_training_sees_fresh_augmentations_and_evaluation_none():
    images = np.asarray(jax.random.normal(jax.random.key(0), (40, 4, 4, 1)))
    data = Split(images, np.arange(40, dtype=np.int32) % 2)

    def trainer(augmentation):
        model = models.create(
            "mlp", rngs=nnx.Rngs(0), image_size=4, patch_size=2, channels=1, classes=2, hidden=(3,)
        )
        return Trainer([model], optax.sgd(0.0), batch_size=40, augment=augmentation)

    keys = jax.random.split(jax.random.key(1), 1)
    plain, negated, random = map(
        trainer, (None, lambda x, key: -x, lambda x, key: x + jax.random.normal(key, x.shape))
    )
    evaluated = [float(t.evaluate(t.initial, data)["loss"][0]) for t in (plain, negated, random)]
    assert len(set(evaluated)) == 1
    mirrored = float(plain.evaluate(plain.initial, data._replace(inputs=-images))["loss"][0])
    _, losses = negated.train(negated.initial, data, keys, steps=1)
    np.testing.assert_allclose(losses, mirrored, rtol=1e-6)
    _, losses = random.train(random.initial, data, keys, steps=3)
    assert len(np.unique(losses)) == 3  # a step size of 0: only the noise differs
