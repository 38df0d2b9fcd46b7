"""SVHN, cropped to 32 x 32, in the MATLAB files its authors publish."""

import os.path
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import DataError, Raw, reason
from jaxsens.data.files.budget import Budget
from jaxsens.data.files.mat import Variable, read_variables
from jaxsens.data.files.names import find
from jaxsens.data.files.opened import looks, whole

FILES = ("train_32x32.mat", "test_32x32.mat")
OTHERS = {
    "extra_32x32.mat": "only SVHN's extra part",
    "digitstruct.mat": "SVHN's first format, whole house numbers",
}
FOLDERS = ("svhn",)


def read(path: Path, budget: Budget) -> tuple[Raw, Raw] | None:
    """Both parts: bytes (N, 32, 32, 3), labels (N,), where 0 is the digit 0 that files call 10.

    The files lie in ``path`` or in a folder below it, or ``path`` is one of them. None where there
    is neither. Raises DataError when one is missing or damaged.
    """
    found = find(path, FILES, budget, FOLDERS)
    if not found:
        for name, what in OTHERS.items():
            if path.name.lower() == name or _near(path, name):
                raise DataError(f"{path} holds {what}; expected {' and '.join(FILES)}")
        return None
    folder = next(iter(found.values())).parent
    train, test = (_read_one(found.get(name, folder / name), budget) for name in FILES)
    return train, test


def _near(path: Path, name: str) -> bool:
    spellings = {name, name.replace("digits", "digitS")}
    return any(
        os.path.isfile(path / part / spelling)
        for part in ("", "train", "test", "extra")
        for spelling in spellings
    )


def _read_one(path: Path, budget: Budget) -> Raw:
    try:
        content = whole(path, budget, stays=False)
        if not content.startswith(b"MATLAB 5.0"):
            what = looks(content)
            raise DataError(f"{path} is no MATLAB 5 file: it {what}, expected 4d41544c")
        found = read_variables(content, ("X", "y"), budget)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    except Exception as error:  # a damaged file breaks the reader in any way there is
        raise DataError(f"{path} cannot be read as a MATLAB file: {reason(error)}") from None
    nothing = Variable("no variable", (), None)
    x, y = found.get("X", nothing), found.get("y", nothing)
    if x.numbers is None or len(x.shape) != 4 or x.shape[:3] != (32, 32, 3) or x.kind != "uint8":
        raise DataError(
            f"{path} has as X {x.kind} of shape {x.shape}; expected uint8 of shape (32, 32, 3, N)"
        )
    count = x.shape[3]
    if y.numbers is None or y.shape not in ((count, 1), (1, count)):
        raise DataError(
            f"{path} has as y {y.kind} of shape {y.shape}; expected {count} labels, one an image"
        )
    images = x.numbers.reshape(count, 3, 32, 32)  # MATLAB's first axis runs fastest
    return Raw(images.transpose(0, 3, 2, 1), np.where(y.numbers == 10, 0, y.numbers))
