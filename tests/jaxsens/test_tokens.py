"""Token classes: where each token lies, and that nothing else moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import Bits, Gaussian, Patches, Positions, Scatter, Whole

KEY = jax.random.key(0)


def replaced(tokens, example, token):
    """The example with token number ``token`` set to -1."""
    out = jax.jit(
        lambda example, token: tokens.replace(example, token, lambda v: 0 * v - 1, KEY)
    )(example, token)  # fmt: skip
    assert out.shape == example.shape
    assert out.dtype == example.dtype
    return np.asarray(out)


@pytest.mark.parametrize(("height", "width", "size", "channels"), [(4, 6, 2, 1), (9, 3, 3, 2)])
def test_patches_in_row_major_order(height, width, size, channels):
    image = np.arange(height * width * channels, dtype="f4").reshape(height, width, channels)
    tokens = Patches(size)
    assert tokens.count((7, height, width, channels)) == height * width // size**2
    listed = tokens.read(image[None])
    number = 0
    for row in range(0, height, size):
        for column in range(0, width, size):
            block = slice(row, row + size), slice(column, column + size)
            expected = image.copy()
            expected[block] = -1
            np.testing.assert_array_equal(replaced(tokens, image, number), expected)
            np.testing.assert_array_equal(listed[number], image[block])
            number += 1
    assert number == len(listed)


def test_patches_are_read_image_by_image():
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 2))
    listed = Patches(2).read(images)
    assert listed.shape == (12, 2, 2, 2)
    np.testing.assert_array_equal(listed[4 + 1], images[1, :2, 2:])


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 2)])
def test_positions(shape):
    example = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    for token in range(5):
        expected = example.copy()
        expected[token] = -1
        np.testing.assert_array_equal(replaced(Positions(), example, token), expected)
    assert Positions().count((9, *shape)) == 5
    assert Positions().valid((9, *shape)) is None


def test_positions_read_real_tokens_only():
    inputs = np.arange(12).reshape(2, 3, 2)
    mask = [[1, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(Positions(mask).read(inputs), [[0, 1], [2, 3], [10, 11]])
    np.testing.assert_array_equal(Positions().read(inputs), inputs.reshape(6, 2))


def test_bits_and_whole():
    example = np.arange(4.0, dtype="f4")
    np.testing.assert_array_equal(replaced(Bits(), example, 2), [0, 1, -1, 3])
    np.testing.assert_array_equal(replaced(Whole(), example, 0), [-1, -1, -1, -1])
    assert (Bits().count((9, 4)), Whole().count((9, 4))) == (4, 1)
    np.testing.assert_array_equal(Bits().read(np.eye(2)), [1, 0, 0, 1])
    np.testing.assert_array_equal(Whole().read(np.eye(2)), np.eye(2))


def test_scatter_draws_distinct_pixels_uniformly_with_every_channel():
    image = jnp.ones((4, 6, 3))

    def places(key):
        out = Scatter(2).replace(image, jnp.int32(0), lambda v: v - 1, key)
        return out == 0

    drawn = np.asarray(jax.vmap(places)(jax.random.split(KEY, 4000)))
    assert (drawn == drawn[..., :1]).all()
    chosen = drawn[..., 0].reshape(4000, 24)
    assert (chosen.sum(1) == 4).all()
    share = 4 / 24
    assert abs(chosen.mean(0) - share).max() < 4.5 * np.sqrt(share * (1 - share) / 4000)
    # Pairs too: together as often as 4 distinct of 24 are, 4 * 3 / (24 * 23).
    pair = 12 / (24 * 23)
    together = (chosen.T.astype(int) @ chosen)[~np.eye(24, dtype=bool)] / 4000
    assert abs(together - pair).max() < 5 * np.sqrt(pair / 4000)
    assert Scatter(2).count((9, 4, 6, 3)) == 6


def test_masks_are_not_part_of_the_compiled_structure():
    one, other = Positions([[1, 0]]), Positions([[1, 1]])
    assert jax.tree.structure(one) == jax.tree.structure(other)
    rebuilt = jax.tree.map(lambda a: a, one)
    np.testing.assert_array_equal(
        replaced(rebuilt, np.zeros(2, "f4"), 1), [0, -1]
    )  # fmt: skip
    assert jax.tree.structure(Patches(2)) != jax.tree.structure(Patches(3))
    assert Patches(2) == Patches(2)
    assert hash(Patches(2)) == hash(Patches(2))


def test_patches_with_noise_keep_every_floating_dtype():
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        image = jnp.ones((4, 4, 1), dtype)
        out = Patches(2).replace(
            image, jnp.int32(3), lambda v: Gaussian(1.0)(v, key=KEY), KEY
        )  # fmt: skip
        assert out.dtype == dtype
        assert ((out != image).sum(), out.shape) == (4, (4, 4, 1))
