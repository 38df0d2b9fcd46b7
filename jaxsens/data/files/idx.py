"""IDX files, the format MNIST and Fashion-MNIST are published in, gzipped or not."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxsens.data.dataset import DataError, Raw, reason
from jaxsens.data.files.budget import Budget
from jaxsens.data.files.names import find
from jaxsens.data.files.opened import Stream, looks

UNSIGNED_BYTE = 0x08
KINDS = {"images": 3, "labels": 1}  # and their numbers of axes
# Both spellings are in circulation: train-images-idx3-ubyte and train-images.idx3-ubyte.
STEMS = {
    (part, kind): [f"{part}-{kind}{dot}idx{n}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    for part in ("train", "t10k")
    for kind, n in KINDS.items()
}
NAMES = {name for names in STEMS.values() for name in names}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where dataset-fashion-mnist puts its files


def read(path: Path, budget: Budget, folders: Sequence[str] = ()) -> tuple[Raw, Raw] | None:
    """Both parts from ``path``: bytes (N, H, W), labels (N,); None where no IDX file lies.

    The files are called ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, and the same with
    ``t10k`` for the test part; perhaps with ``.gz``. They lie in ``path`` or in a folder below it,
    one of ``folders`` where there are several; or ``path`` is one of them. Raises DataError when
    one is missing or wrong.
    """
    files = find(path, NAMES, budget, folders)
    if not files:
        return None
    found = []
    for (_, kind), names in STEMS.items():
        file = next((files[name] for name in names if name in files), None)
        if file is None:
            raise DataError(f"{next(iter(files.values())).parent} holds none of {', '.join(names)}")
        found.append(read_idx(file, ndim=KINDS[kind], budget=budget))
    return Raw(*found[:2]), Raw(*found[2:])


def read_debian() -> tuple[Raw, Raw]:
    """Fashion-MNIST from Debian's package. Raises DataError when it is not installed."""
    parts = read(DEBIAN, Budget()) if DEBIAN.is_dir() else None
    if parts is None:
        raise DataError(
            "the embedded Fashion-MNIST is Debian's package, which is not installed; run: sudo apt "
            "install dataset-fashion-mnist, or give --data tfds or --data PATH of its IDX files"
        )
    return parts


def read_idx(path: Path, *, ndim: int, budget: Budget) -> np.ndarray:
    """The array of unsigned bytes in an IDX file with ``ndim`` axes.

    The header is two zero bytes, the element type, the number of axes, and each axis's length as a
    big-endian 32-bit integer. Raises DataError when the file is anything else, cut short, longer
    than it says, or larger than the budget.
    """
    try:
        with Stream(path, budget) as file:
            if path.suffix == ".gz" and not file.gzipped:
                raise DataError(
                    f"{path} cannot be read: Not a gzipped file, though it is called .gz: it "
                    f"{looks(file.start)}"
                )
            header = file.read(4 + 4 * ndim)
            expected = bytes((0, 0, UNSIGNED_BYTE, ndim))
            if header[:4] != expected:
                what = looks(header)
                start = f" ({header[:4].hex()})" if "starts with" not in what and header else ""
                raise DataError(
                    f"{path} is no IDX file of unsigned bytes with {ndim} axes: it {what}{start}, "
                    f"expected {expected.hex()}"
                )
            if len(header) < 4 + 4 * ndim:
                raise DataError(f"{path} is cut short inside its header; copy it again")
            shape = tuple(int(n) for n in np.frombuffer(header[4:], ">u4"))
            size = budget.keep(math.prod(shape))
            body = file.read(size + 1)
    except DataError:
        raise
    except Exception as error:  # damaged compression breaks the reader in many ways
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    if len(body) != size:
        state = "cut short" if len(body) < size else "longer than its header says"
        raise DataError(
            f"{path} is {state}: expected {size} bytes for the shape {shape}; copy it again"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)
