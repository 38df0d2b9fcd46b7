"""The published files of CIFAR-10-C: small ones in their layout, and what they must not be."""

import io
import tarfile
import types
import weakref

import numpy as np
import pytest

from jaxsens.data import DataError
from jaxsens.data.images import corrupted_cifar
from jaxsens.data.images import tensorflow_datasets as tfds

BLOCK = 12
RNG = np.random.default_rng(0)
CLEAN = RNG.integers(0, 256, (BLOCK, 32, 32, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 10, BLOCK).astype(np.uint8)
# Every block a little darker than the one before it.
STACKED = np.concatenate([(CLEAN * (1 - 0.1 * s)).astype(np.uint8) for s in range(1, 6)])
FILES = {"fog": STACKED, "snow": STACKED[:, ::-1], "labels": np.tile(LABELS, 5)}


def write(folder, **changed):
    folder.mkdir(parents=True)
    for name, array in {**FILES, **changed}.items():
        if isinstance(array, bytes):
            (folder / f"{name}.npy").write_bytes(array)
        elif array is not None:
            np.save(folder / f"{name}.npy", array)
    return folder


def pack(folder, path, mode="w"):
    with tarfile.open(path, mode) as archive:
        for file in sorted(folder.iterdir(), reverse=True):  # labels in the middle
            archive.add(file, f"CIFAR-10-C/{file.name}")
    return path


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    top = tmp_path_factory.mktemp("published")
    folder = write(top / "data" / "CIFAR-10-C")
    return {
        "folder": folder,
        "above": top / "data",
        "tar": pack(folder, top / "CIFAR-10-C.tar"),
        "tgz": pack(folder, top / "CIFAR-10-C.tar.gz", "w:gz"),
    }


@pytest.mark.parametrize("kind", ["folder", "above", "tar", "tgz"])
def test_every_block_comes_with_its_name_severity_and_labels(places, kind):
    found = list(corrupted_cifar.read(places[kind], block=BLOCK, labels=LABELS))
    assert sorted((b.name, b.severity) for b in found) == [
        (name, s) for name in ("fog", "snow") for s in (1, 2, 3, 4, 5)
    ]
    for one in found:
        whole = FILES[one.name][(one.severity - 1) * BLOCK : one.severity * BLOCK]
        np.testing.assert_array_equal(one.images, whole)
        np.testing.assert_array_equal(one.labels, LABELS)


def test_some_names_and_severities_and_the_order_of_clean_images(places):
    few = corrupted_cifar.read(
        places["tar"], names=["fog"], severities=(2, 5), block=BLOCK, clean=CLEAN
    )
    assert [(b.name, b.severity) for b in few] == [("fog", 2), ("fog", 5)]
    shuffled = corrupted_cifar.read(places["tar"], names=["fog"], block=BLOCK, clean=CLEAN[::-1])
    with pytest.raises(DataError, match=r"severity 1 of fog.npy .* in their order"):
        list(shuffled)


def test_one_file_is_in_memory_at_a_time(places, monkeypatch):
    alive, counts, original = weakref.WeakSet(), [], corrupted_cifar._array

    class Held(np.ndarray):
        """An array that can be referred to weakly, and hashed by identity."""

        __hash__ = object.__hash__

        def __eq__(self, other):
            return self is other

    def array(content, label):
        found = original(content, label).view(Held)
        alive.add(found)
        counts.append(sum(one.ndim == 4 for one in alive))
        return found

    monkeypatch.setattr(corrupted_cifar, "_array", array)
    monkeypatch.setattr(corrupted_cifar.Expected, "checked_labels", lambda *args: LABELS)
    for one in corrupted_cifar.read(places["tar"], block=BLOCK):
        del one
    assert counts == [0, 1, 1]


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("changed", "settings", "message"),
    [
        ({}, {"block": 10_000}, r"labels.npy .* shape \(60,\); expected .*\(50000,\)"),
        ({"labels": None}, {}, "holds no labels.npy"),
        ({"labels": np.tile(LABELS, 4)}, {}, r"shape \(48,\); expected whole numbers of shape"),
        ({"labels": np.tile(LABELS, 5) / 2}, {}, "labels.npy .* holds float64"),
        ({"labels": np.arange(60) % 7}, {}, "the same labels in"),
        ({"labels": np.tile(LABELS, 5) + 3}, {}, "labels from .* expected 0 to 9"),
        ({}, {"labels": LABELS[::-1]}, "not the labels of the clean test images"),
        ({"fog": STACKED[:-1]}, {}, r"fog.npy .* shape \(59, 32, 32, 3\); expected uint8 .*\(60,"),
        ({"fog": STACKED.astype(np.float32)}, {}, "fog.npy .* holds float32"),
        ({"fog": STACKED[..., 0]}, {}, r"shape \(60, 32, 32\)"),
        ({"fog": npy(STACKED)[:-7]}, {}, "fog.npy .* cannot be read: it is shorter than"),
        ({"fog": npy(STACKED) + b"more"}, {}, "fog.npy .* cannot be read: it is longer than"),
        ({"fog": b"PK\3\4 something else"}, {}, "no .npy file: it is a zip archive"),
        ({"fog": npy(np.array([{}], object))}, {}, "expected numbers|its header cannot be read"),
        ({"fog": None, "snow": None}, {}, "holds no gaussian_noise.npy"),
        ({"fog": None}, {"names": ["fog"]}, "holds no fog.npy"),
        ({}, {"names": ["mist"]}, "no corruption 'mist'; expected some of gaussian_noise, shot"),
        ({}, {"severities": (0, 1)}, "severities must be among 1 to 5"),
        ({}, {"severities": (6,)}, "severities must be among 1 to 5"),
        ({}, {"clean": CLEAN[:3]}, "holds 12 images, but there are 3 clean ones"),
    ],
)
def test_what_cannot_be_right_is_one_line(tmp_path, changed, settings, message):
    folder = write(tmp_path / "CIFAR-10-C", **changed)
    with pytest.raises(DataError, match=message) as caught:
        list(corrupted_cifar.read(folder, **{"block": BLOCK, **settings}))
    assert "\n" not in str(caught.value)


def test_archives_that_are_damaged_or_none_are_one_line(places, tmp_path):
    cut = tmp_path / "cut.tar"
    cut.write_bytes(places["tar"].read_bytes()[:30_000])
    with pytest.raises(DataError, match="cannot be read as a tar"):
        list(corrupted_cifar.read(cut, block=BLOCK))
    with pytest.raises(DataError, match="no folder or tar archive"):
        corrupted_cifar.read(tmp_path / "CIFAR-10-C.zip", block=BLOCK)
    twice = tmp_path / "twice.tar"
    with tarfile.open(twice, "w") as archive:
        for top in ("a", "b"):
            archive.add(places["folder"] / "fog.npy", f"{top}/fog.npy")
    with pytest.raises(DataError, match=r"holds fog\.npy twice"):
        corrupted_cifar.read(twice, block=BLOCK)


def test_tensorflow_datasets_by_its_own_names(monkeypatch):
    asked = []

    def load_images(name, split, budget):
        asked.append((name, split))
        severity = int(name[-1])
        return STACKED[(severity - 1) * BLOCK : severity * BLOCK], LABELS.astype(np.int64)

    monkeypatch.setattr(tfds, "load_images", load_images)
    names = ["glass_blur", "elastic_transform", "fog"]
    settings = {"severities": (1, 4), "block": BLOCK, "labels": LABELS, "clean": CLEAN}
    found = list(corrupted_cifar.read("tfds", names=names, **settings))
    assert [(b.name, b.severity) for b in found] == [(n, s) for n in names for s in (1, 4)]
    assert asked == [
        (f"cifar10_corrupted/{name}_{s}", "test")
        for name in ("frosted_glass_blur", "elastic", "fog")
        for s in (1, 4)
    ]
    with pytest.raises(DataError, match="cifar10_corrupted alone"):
        next(corrupted_cifar.read("tfds", classes=100))


def test_the_names_of_tensorflow_datasets_are_those_of_the_package():
    module = pytest.importorskip("tensorflow_datasets.image_classification.cifar10_corrupted")
    assert isinstance(module, types.ModuleType)
    files = {
        f"{name}.npy": corrupted_cifar.IN_TFDS.get(name, name) for name in corrupted_cifar.NAMES
    }
    assert {file: name for name, file in module._CORRUPTIONS_TO_FILENAMES.items()} == files
