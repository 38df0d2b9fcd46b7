"""Photo crops: small pieces of ten photographs that come inside two Python packages.

A stand-in where no set of colour images can be had, and no more than that: each class is a single
picture, so what a model learns here is its colours and textures, not a kind of thing. Of the test
crops 44 % fall to the class with the nearest mean image, 68 % to that of the nearest training crop,
and 83 % to that of the crop nearest in the means and deviations of its three colours.
"""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from jaxsens.data.dataset import DataError, Raw
from jaxsens.data.images.pictures import decode

SIZE = 32  # pixels along the side of a crop
SCALES = (1, 2, 3)  # a crop shows a window of 32, 64 or 96 pixels, averaged down
TILE = SIZE * max(SCALES)
TRAIN, TEST = 500, 100  # crops a photograph
FOLDERS = {"skimage": ("data", "scikit-image"), "sklearn": ("datasets/images", "scikit-learn")}
# The wheels carry these same files since scikit-image 0.22 and scikit-learn 1.5 at least; others
# would change results unseen.
PHOTOGRAPHS = {
    "astronaut": (
        "skimage/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    "chelsea": (
        "skimage/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    ),
    "china": (
        "sklearn/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
    ),
    "coffee": (
        "skimage/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    ),
    "flower": (
        "sklearn/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
    ),
    "hubble": (
        "skimage/hubble_deep_field.jpg",
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    ),
    "ihc": (
        "skimage/ihc.png",
        "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
    ),
    "motorcycle": (
        "skimage/motorcycle_left.png",
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    ),
    "retina": (
        "skimage/retina.jpg",
        "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
    ),
    "rocket": (
        "skimage/rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    ),
}
CLASSES = tuple(PHOTOGRAPHS)


def read() -> tuple[Raw, Raw]:
    """Which of ten photographs is a 32 x 32 crop from: bytes (N, 32, 32, 3), labels (N,).

    500 training and 100 test crops a photograph, always the same. A photograph is cut into tiles of
    96 x 96 and every fifth of them (``is_test``) is for testing; a window lies inside one tile, at
    a random place and one of three scales, and half of them are mirrored. So training and test
    crops share no pixel. Raises DataError when a package is missing or carries another photograph.
    """
    photographs = [photograph(*entry) for entry in PHOTOGRAPHS.values()]
    # The bit stream of a generator is fixed for good; what is drawn from it by name is not.
    stream = np.random.PCG64(0)
    train, test = (
        Raw(
            np.stack([crop for p in photographs for crop in _crops(p, count, part, stream)]),
            np.repeat(np.arange(len(photographs)), count),
        )
        for part, count in ((False, TRAIN), (True, TEST))
    )
    return train, test


def is_test(row: int, column: int) -> bool:
    """Whether the tile in this row and column of a photograph is for testing."""
    return (2 * row + column) % 5 == 0


def windows(
    height: int, width: int, count: int, test: bool, stream: np.random.PCG64
) -> list[tuple[int, int, int, bool]]:
    """Top, left, scale and whether mirrored of ``count`` random windows for testing or training."""
    tiles = [
        (TILE * row, TILE * column)
        for row in range(height // TILE)
        for column in range(width // TILE)
        if is_test(row, column) == test
    ]
    found = []
    for tile, scale, down, right, mirror in stream.random_raw((count, 5)).tolist():
        top, left = tiles[tile % len(tiles)]
        factor = SCALES[scale % len(SCALES)]
        places = TILE - factor * SIZE + 1
        found.append((top + down % places, left + right % places, factor, mirror % 2 == 1))
    return found


def _crops(
    photograph: Image.Image, count: int, test: bool, stream: np.random.PCG64
) -> list[np.ndarray]:
    crops = []
    for top, left, scale, mirrored in windows(
        photograph.height, photograph.width, count, test, stream
    ):
        side = scale * SIZE
        crop = np.asarray(photograph.crop((left, top, left + side, top + side)).reduce(scale))
        crops.append(crop[:, ::-1] if mirrored else crop)
    return crops


def photograph(name: str, digest: str) -> Image.Image:
    """One of `PHOTOGRAPHS`, whole, in RGB. Raises DataError when it is missing or another."""
    package, file = name.split("/")
    folder, project = FOLDERS[package]
    # The file itself: the loaders of the packages take long to import, and may go to the network.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"the embedded photographs come with the package {project}, which is not installed; "
            f"run: pip install {project}"
        )
    path = Path(spec.submodule_search_locations[0], folder, file)
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError(
            f"{path} is missing or is not the photograph that the crops are cut from; reinstall "
            f"{project}: pip install -U {project}"
        )
    return decode(content, str(path)).convert("RGB")
