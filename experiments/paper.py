"""Every number that the two papers print, once.

A is *Transformers Learn Low Sensitivity Functions* (arXiv 2403.06925v2), B *Why are Sensitive
Functions Hard for Transformers?* (arXiv 2402.09963). Where a paper prints an outcome in words or a
curve alone, the value is that outcome in our words. Tables of the experiments take their "paper"
column from here.
"""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Claim:
    """What one paper prints in one place of one quantity of one model."""

    paper: str  # A or B
    place: str  # section, table or figure
    model: str
    quantity: str
    value: float | str
    setting: str


SENSITIVITY = "sensitivity"
WHOLE = "sensitivity, noise on the whole input"


def _vision() -> list[Claim]:
    data = {
        "Fig. 4": ("CIFAR-10, noise of variance 1 on a patch of 4, SGD", {
            "ViT-small": 0.0050, "ViT-simple": 0.0014, "ConvMixer": 0.0829,
            "ResNet-18": 0.0827, "DenseNet-121": 0.3673,
        }),
        "Fig. 19": ("SVHN, noise of variance 1 on a patch of 4, SGD", {
            "ViT-small": 0.0147, "ResNet-18": 0.0516,
        }),
        "Fig. 18": ("Fashion-MNIST, noise of variance 5 on a patch of 4, SGD", {
            "ViT-small": 0.0098, "CNN": 0.0453, "MLP, LeakyReLU": 0.0559, "MLP, sigmoid": 0.0505,
        }),
        "Section 5": ("ImageNet-1k, noise of variance 15 on a patch of 16, pretrained", {
            "ViT-L/16": 0.0191, "ConvNeXtV2-Tiny": 0.0342,
        }),
    }  # fmt: skip
    found = [
        Claim("A", place, model, SENSITIVITY, value, setting)
        for place, (setting, values) in data.items()
        for model, value in values.items()
    ]
    found += [
        Claim("A", "Section 5", model, "training accuracy, %", 85.0, "ImageNet-1k, pretrained")
        for model in ("ViT-L/16", "ConvNeXtV2-Tiny")
    ]
    for model, whole, token, setting in (
        ("ResNet-18", 0.0172, 0.0827, "CIFAR-10, variance 0.025 on the image"),
        ("ViT-small", 0.0082, 0.0050, "CIFAR-10, variance 0.025 on the image"),
        ("LSTM", 0.11, 0.09, "QQP, variance 0.5 on the sentence"),
        ("RoBERTa", 0.05, 0.03, "QQP, variance 0.5 on the sentence"),
    ):
        found.append(Claim("A", "Table 4", model, WHOLE, whole, setting))
        found.append(Claim("A", "Table 4", model, SENSITIVITY, token, setting.split(",")[0]))
    return found


def _synthetic() -> list[Claim]:
    found = []
    # (n_s, n_d, n_f, m): sparse-only and frequent-only predictor, and where the model ends
    for setting, sparse, frequent, outcome in (
        ("3,1,3,6", 0.0, 0.1315, "sparse"),
        ("3,1,5,16", 0.0, 0.2878, "sparse"),
        ("3,1,7,28", 0.0, 0.4502, "sparse"),
        ("1,7,7,10", 0.0339, 0.0, "frequent"),
        ("1,7,17,20", 0.0339, 0.0, "frequent"),
        ("1,7,32,36", 0.0339, 0.0, "frequent"),
    ):
        place = "Tables 1, 3"
        found += [
            Claim("A", place, "sparse-only predictor", SENSITIVITY, sparse, setting),
            Claim("A", place, "frequent-only predictor", SENSITIVITY, frequent, setting),
            Claim("A", "Fig. 3, 12", "one head", "ends on the tokens", outcome, setting),
        ]
    return found


CLAIMS: tuple[Claim, ...] = (*_synthetic(), *_vision())


def printed(
    places: Sequence[str], model: str, quantity: str, *, setting: str | None = None
) -> float | str | None:
    """What paper A prints in one of these places; None where it prints nothing.

    The first that fits, in the order of ``places``.
    """
    found = [
        claim.value
        for place in places
        for claim in CLAIMS
        if (claim.paper, claim.place, claim.model, claim.quantity) == ("A", place, model, quantity)
        and setting in (None, claim.setting)
    ]
    return found[0] if found else None
