"""All common corruptions at all severities on small images, beside a public package's loop.

The package is imagecorruptions-imaug (module ``imagecorruptions``), which takes one image at a time
and has ImageNet-C's constants alone; it is timed on fewer images, in the same run, in this
interpreter or in another one that has it. Times are extrapolated to 10,000 images.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import jax
import numpy as np

from command.options import Count, check, size
from experiments.run.cli import UserError
from experiments.run.report import table
from jaxsens.corruptions import NAMES, corrupt
from jaxsens.data.images import photo_crops

SEVERITIES = (1, 2, 3, 4, 5)
WHOLE = 10_000  # images of a test set
TARGET = 5.0
# Run by the other interpreter: seconds for each image and corruption, all severities together.
PEER = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy as np
from imagecorruptions import corrupt
images = np.load(sys.argv[1])
found = {}
for name in json.loads(sys.argv[2]):
    try:
        for severity in range(1, 6):  # what is compiled on first use is not timed
            corrupt(images[0], corruption_name=name, severity=severity)
        begun = time.perf_counter()
        for severity in range(1, 6):
            for image in images:
                corrupt(image, corruption_name=name, severity=severity)
        found[name] = (time.perf_counter() - begun) / len(images)
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"[:80]
print(json.dumps(found))
"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Seconds for the 19 corruptions at 5 severities on 32 x 32 images, beside a public package."""

    images: Annotated[int, Count(most=5000)] = 1000
    """How many images are corrupted: crops of photographs."""
    peer_images: Annotated[int, Count(most=5000)] = 50
    """How many of them the other package is given, one at a time."""
    peer: Path = Path(sys.executable)
    """The Python that has imagecorruptions-imaug, if it has; without, ours is timed alone."""
    smoke: bool = False
    """The same code on 20 images, 2 for the other package."""


def main(config: Config) -> None:
    """Time, print a table and the ratio of the sums."""
    check(config)
    count, few = (20, 2) if config.smoke else (config.images, config.peer_images)
    crops, _ = photo_crops.read()
    chosen = np.random.default_rng(0).permutation(len(crops.images))[:count]
    images = crops.images[chosen]
    ours, memory = {}, {}
    for name in NAMES:
        corrupt(images[:2], name, 1, key=jax.random.key(0))
        begun = time.perf_counter()
        for severity in SEVERITIES:
            corrupt(images, name, severity, key=jax.random.key(0))
        ours[name] = (time.perf_counter() - begun) / count
        memory[name] = extra_bytes(images, name)
    theirs = of_peer(config.peer, images[: min(few, count)])
    rows = []
    for name in NAMES:
        other = theirs.get(name)
        row = [name, f"{WHOLE * ours[name]:.1f}", size(memory[name])]
        if isinstance(other, float):
            row += [f"{WHOLE * other:.1f}", f"{other / ours[name]:.1f}"]
        else:
            row += [other or "-", "-"]
        rows.append(row)
    both = [name for name in NAMES if isinstance(theirs.get(name), float)]
    total, mine = sum(ours.values()), sum(ours[name] for name in both)
    print(
        f"{count} images of 32 x 32, five severities each; seconds for {WHOLE:,} images, "
        "extrapolated; memory beyond the images and the result, at severity 5"
    )
    header = ["corruption", "jaxsens, s", "memory", "imagecorruptions, s", "ratio"]
    print(table(header, rows))
    rate = len(NAMES) * len(SEVERITIES) / total
    print(f"all: {WHOLE * total:.0f} s, {rate:.0f} corrupted images a second; at most "
          f"{size(max(memory.values()))} beyond images and result")  # fmt: skip
    if both:
        ratio = sum(float(theirs[name]) for name in both) / mine
        met = "met" if ratio >= TARGET else "missed"
        print(
            f"imagecorruptions, image by image ({min(few, count)}; constants of ImageNet-C): "
            f"{ratio:.1f} times as long on the {len(both)} that it has; the target of "
            f"{TARGET:g} is {met}"
        )
    else:
        print(f"no imagecorruptions in {config.peer}: nothing to compare with")


def extra_bytes(images: np.ndarray, name: str) -> int:
    """The most that is allocated at one moment beyond the result."""
    tracemalloc.start()
    try:
        corrupt(images, name, 5, key=jax.random.key(0))
        return max(0, tracemalloc.get_traced_memory()[1] - images.nbytes)
    finally:
        tracemalloc.stop()


def of_peer(python: Path, images: np.ndarray) -> Mapping[str, float | str]:
    """Seconds an image for each corruption, or what went wrong; {} where it has no package."""
    if not python.exists():
        raise UserError(f"--peer {python} is no file; expected a Python that has imagecorruptions")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "images.npy")
        np.save(file, images)
        command = [str(python), "-c", PEER, str(file), json.dumps(NAMES)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "No module named 'imagecorruptions'" in done.stderr:
        return {}
    if done.returncode:
        raise UserError(f"--peer {python} failed: {done.stderr.strip().splitlines()[-1][:200]}")
    return json.loads(done.stdout.splitlines()[-1])
