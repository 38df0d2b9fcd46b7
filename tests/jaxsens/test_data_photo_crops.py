"""The photo crops: what each is cut from, and that no pixel is in both parts."""

import hashlib
import importlib.util
import shutil
import types
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from jaxsens.data import DataError, load, normalise
from jaxsens.data.images import photo_crops


@pytest.fixture(scope="module")
def data():
    return load("cifar10", "embedded")


def drawn():
    """The photograph and the windows of each class, drawn again: training, then test."""
    stream = np.random.PCG64(0)
    photographs = [
        np.asarray(photo_crops.photograph(*entry)) for entry in photo_crops.PHOTOGRAPHS.values()
    ]
    return photographs, [
        [photo_crops.windows(*photo.shape[:2], count, test, stream) for photo in photographs]
        for test, count in ((False, photo_crops.TRAIN), (True, photo_crops.TEST))
    ]


def test_thousands_of_balanced_crops_under_their_own_name(data):
    assert data.name == "photo-crops"
    assert data.classes == tuple(photo_crops.PHOTOGRAPHS)
    assert len(data.classes) == 10
    for split, count in ((data.train, 500), (data.test, 100)):
        assert split.inputs.shape == (10 * count, 32, 32, 3)
        assert (split.inputs.dtype, split.labels.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(np.bincount(split.labels), [count] * 10)
        assert -1 <= split.inputs.min() < -0.9 < 0.9 < split.inputs.max() <= 1
    again = load("svhn", "embedded")
    assert again.name == "photo-crops"
    np.testing.assert_array_equal(again.test.inputs, data.test.inputs)


def test_no_pixel_is_in_both_parts():
    photographs, parts = drawn()
    for photograph, train, test in zip(photographs, *parts, strict=True):
        seen = np.zeros((2, *photograph.shape[:2]), bool)
        for i, windows in enumerate((train, test)):
            for top, left, scale, _ in windows:
                assert 0 <= top <= top + 32 * scale <= photograph.shape[0]
                assert 0 <= left <= left + 32 * scale <= photograph.shape[1]
                seen[i, top : top + 32 * scale, left : left + 32 * scale] = True
        assert not (seen[0] & seen[1]).any()
        # And neither part is a corner: together they show most of the photograph.
        assert seen[0].mean() > 0.4
        assert seen[1].mean() > 0.1


def test_crops_are_means_over_their_windows(data):
    photographs, parts = drawn()
    mirrors = set()
    for split, windows in zip((data.train, data.test), parts, strict=True):
        flat = [(p, w) for p, ws in zip(photographs, windows, strict=True) for w in ws]
        for index in range(0, len(flat), 37):
            photograph, (top, left, scale, mirrored) = flat[index]
            window = photograph[top : top + 32 * scale, left : left + 32 * scale].astype(float)
            mean = window.reshape(32, scale, 32, scale, 3).mean((1, 3))
            expected = normalise(np.floor(mean + 0.5).astype(np.uint8))
            got = split.inputs[index]
            mirrors.add((scale, mirrored))
            np.testing.assert_allclose(got[:, ::-1] if mirrored else got, expected, atol=0.008)
    assert mirrors == {(scale, flip) for scale in (1, 2, 3) for flip in (False, True)}


def test_the_task_is_neither_trivial_nor_hopeless(data):
    """By the nearest mean image, more right than by chance (0.1), and far from all."""
    train, test = (
        (part.inputs.reshape(len(part.inputs), -1), part.labels) for part in (data.train, data.test)
    )
    means = np.stack([train[0][train[1] == c].mean(0) for c in range(10)])
    right = (((test[0][:, None] - means[None]) ** 2).sum(-1).argmin(1) == test[1]).mean()
    assert 0.3 < right < 0.6


def test_the_crops_are_always_the_same(data):
    """Of the photographs in PNG, whose pixels no decoder can disagree about."""
    exact = [i for i, (file, _) in enumerate(photo_crops.PHOTOGRAPHS.values()) if "png" in file]
    assert len(exact) == 5
    images = np.rint((data.test.inputs[np.isin(data.test.labels, exact)] + 1) * 127.5)
    digest = hashlib.sha256(images.astype(np.uint8).tobytes()).hexdigest()
    assert digest == "6dd7cbccf8203338a79c6015e08c0f585f8bb18381f5cca425cabbfeeea4cb1a"


def refused(message):
    with pytest.raises(DataError, match=message) as error:
        load("svhn", "embedded")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("package", "project"), [("skimage", "image"), ("sklearn", "learn")])
def test_a_missing_package_is_one_line(monkeypatch, package, project):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    refused(
        rf"package scikit-{project}, which is not installed; run: pip install scikit-{project}$"
    )


def test_another_photograph_is_one_line(tmp_path, monkeypatch):
    place = Path(importlib.util.find_spec("skimage").submodule_search_locations[0], "data")
    (tmp_path / "data").mkdir()
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    refused(r"astronaut\.png is missing or is not the photograph .*: pip install -U scikit-image")
    shutil.copy(place / "chelsea.png", tmp_path / "data" / "astronaut.png")
    refused(r"astronaut\.png is missing or is not the photograph")
    PIL.Image.new("RGB", (512, 512)).save(tmp_path / "data" / "astronaut.png")
    refused(r"astronaut\.png is missing or is not the photograph")
