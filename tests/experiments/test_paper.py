"""The papers' numbers: once each, found by what they are of, and without JAX."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from experiments import cifar, fashion_mnist, imagenet, paper, sparse_parity, svhn, synthetic
from experiments.vision.imagenet_report import LABELS


def test_every_claim_stands_once():
    counts = Counter((c.paper, c.place, c.model, c.quantity, c.setting) for c in paper.CLAIMS)
    assert set(counts.values()) == {1}
    assert {claim.paper for claim in paper.CLAIMS} == {"A", "B"}


@pytest.mark.parametrize(
    ("task", "numbers"),
    [
        (cifar.TASK, (0.0050, 0.0014, 0.0829, 0.0827, 0.3673)),
        (svhn.TASK, (0.0147, 0.0516)),
        (fashion_mnist.TASK, (0.0098, 0.0453, 0.0559, 0.0505)),
    ],
)
def test_every_network_of_a_table_has_its_number(task, numbers):
    labels = [architecture.label for architecture in task.architectures.values()]
    assert [paper.printed(task.places, label, "sensitivity") for label in labels] == list(numbers)


def test_numbers_are_found_by_place_and_setting():
    whole = [paper.printed(cifar.TASK.places, m, paper.WHOLE) for m in ("ViT-small", "ResNet-18")]
    assert whole == [0.0082, 0.0172]
    assert paper.printed(cifar.TASK.places, "CNN", "sensitivity") is None
    pretrained = [paper.printed(imagenet.PLACES, LABELS[a], "sensitivity") for a in imagenet.PAPER]
    assert pretrained == [0.0191, 0.0342]
    predictors = [
        paper.printed(("Tables 1, 3",), f"{kind}-only predictor", "sensitivity", setting=setting)
        for setting in synthetic.PAPER
        for kind in ("sparse", "frequent")
    ]
    assert predictors == [0, 0.1315, 0, 0.2878, 0, 0.4502, 0.0339, 0, 0.0339, 0, 0.0339, 0]
    assert sparse_parity.PAPER == paper.PARITIES


def test_the_list_needs_no_jax():
    code = "import sys; from experiments import paper; print({'jax', 'numpy'} & set(sys.modules))"
    root = Path(paper.__file__).parents[1]
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "set()\n"
