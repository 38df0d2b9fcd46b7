"""A small run of every experiment, by its command: seconds each, with every part at work."""

import contextlib
import warnings

import numpy as np
import pytest
from witnesses import small_imagenet

from experiments import (
    cifar,
    fashion_mnist,
    flatness,
    grokking,
    imagenet,
    known_sensitivity,
    language,
    mnist,
    priors,
    robustness,
    sparse_parity,
    svhn,
    synthetic,
)
from experiments.length import (
    dynamics,
    generalisation,
    long,
    memorisation,
    scaling,
    scratchpad,
    tradeoff,
)

MODULES = {
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar": cifar,
    "svhn": svhn,
    "synthetic": synthetic,
    "sparse_parity": sparse_parity,
    "grokking": grokking,
    "imagenet": imagenet,
    "language": language,
    "length_dynamics": dynamics,
    "length_generalisation": generalisation,
    "length_long": long,
    "length_memorisation": memorisation,
    "length_scaling": scaling,
    "length_scratchpad": scratchpad,
    "length_tradeoff": tradeoff,
    "priors": priors,
    "robustness": robustness,
    "flatness": flatness,
    "known_sensitivity": known_sensitivity,
}
# One shape for all of them, so that they share their programs.
LENGTH = (
    "--width 8 --depth 1 --steps 12 --every 4 --save-every 4 --batch-size 16 --test 64 --draws 2 "
    "--batches 2 --samples 16 --exact 4 --no-stop"
)
ARGUMENTS = {
    "mnist": "--data embedded --smoke --arch mlp",
    "fashion_mnist": "--smoke --arch mlp --sigma2 5 0.5 --seeds 2 --data {grey}",
    "synthetic": "--setting 3,1,5,16 --seeds 2 --epochs 20 --every 4 --repeats 1",
    "sparse_parity": "--setting 300,50,8,1e-2,0 300,50,8,1e-2,1 --bits 6 --relevant 2 "
    "--bits-per-token 2 --epochs 30 --every 5 --save-every 10 --test 200 --samples 500 "
    "--final-samples 200",
    "grokking": "--seeds 2 --epochs 12 --every 2 --save-every 4 --snapshot-every 4 --modulus 7 "
    "--train-fraction 0.6",
    "language": "--task mrpc --data {mrpc} --arch lstm --depth 1 --width 8 --vocabulary 270 "
    "--max-length 20 --buckets 1 --points 64 --every 32 --batch-size 8 --sensitivity-examples 12 "
    "--tokens 3 --draws 1 --curve-examples 12",
    "imagenet": f"{' '.join(small_imagenet.RUN)} --weights {{weights}}",
    "length_dynamics": f"--bits 3 --decays 0 0.3 --seeds 1 {LENGTH}",
    "length_memorisation": "--smoke --epochs 4 --every 2 --save-every 2",
    "length_scaling": f"--lengths 3 --functions parity first --seeds 2 {LENGTH}",
    "length_scratchpad": "--lengths 3 --seeds 2 --depth 1 --width 8 --steps 12 --every 4 "
    "--save-every 4 --batch-size 16 --test 64 --draws 2 --samples 16 --no-stop",
    "length_tradeoff": f"--lengths 3 --functions parity mean --seeds 2 {LENGTH}",
    "priors": "--smoke --network lstm mlp --start gaussian",
    "robustness": "--task fashion_mnist --smoke --arch mlp --intervened mlp --data {grey} "
    "--intervention regularisation --regularisation-strength 0 0.9 --token-size 7 "
    "--corruptions gaussian_noise contrast",
    "flatness": "--task fashion_mnist --smoke --arch mlp --intervention none --data {grey} "
    "--variant both",
    "known_sensitivity": "--smoke",
}
FIGURES = {
    "mnist": {"curves.png", "measured.png"},
    "fashion_mnist": {"sensitivity.png", "dynamics.png", "variance.png"},
    "synthetic": {"curves.png"},
    "sparse_parity": {"curves.png"},
    "grokking": {"curves.png"},
    "imagenet": {"imagenet.png"},
    "language": {"language.png"},
    "length_dynamics": {"dynamics.png"},
    "length_memorisation": {"memorisation.png"},
    "length_scaling": {"scaling.png"},
    "length_scratchpad": {"scratchpad.png"},
    "length_tradeoff": {"tradeoff.png"},
    "priors": {"histograms.png"},
    "robustness": {"corruptions.png", "scatter.png", "variants.png"},
    "flatness": {"flatness.png"},
    "known_sensitivity": {"known_sensitivity.png"},
}


def arguments(name, **paths):
    """The words of the command."""
    return ARGUMENTS[name].format(**paths).split()


@contextlib.contextmanager
def surroundings(name):
    """What the small run of an experiment needs to be small."""
    with pytest.MonkeyPatch.context() as patch:
        if name == "imagenet":
            small_imagenet.shrink(patch)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "an interval from")  # of a handful of images
                yield
        else:
            yield


def write_pairs(folder):
    """A paraphrase corpus in the MSR form, of which the same words say that it is one."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for part, count in (("train", 40), ("test", 16)):
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        for number in range(count):
            one, two = (" ".join(rng.choice(["ab", "c", "def"], 2)) for _ in range(2))
            same = number % 2
            lines.append(f"{same}\t{number}\t{number}\t{one}\t{one if same else two}")
        (folder / f"msr_paraphrase_{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_images(path, size, channels):
    """Images whose brightness gives their class away."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 60), ("test", 40)):
        labels = np.arange(count) % 10
        images = (
            rng.integers(0, 25, (count, size, size, channels)) + 24 * labels[:, None, None, None]
        )
        arrays |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels}
    np.savez(path, **arrays)
    return path
