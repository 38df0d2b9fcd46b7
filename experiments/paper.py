"""Every number that the two papers print, once.

A is *Transformers Learn Low Sensitivity Functions* (arXiv 2403.06925v2), B *Why are Sensitive
Functions Hard for Transformers?* (arXiv 2402.09963). Where a paper prints an outcome in words or a
curve alone, the value is that outcome in our words. Tables of the experiments take their "paper"
column from here.
"""

import dataclasses
from collections.abc import Sequence

from experiments.paper_curves import CURVES, GROKKING


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


def _language() -> list[Claim]:
    training = "training sentences, noise of variance 15 on the embedding of a token, AdamW"
    found = [
        Claim("A", "Section 6", model, SENSITIVITY, value, f"{task}, {training}")
        for task, values in {
            "MRPC": {"LSTM": 0.15, "RoBERTa": 0.002, "RoBERTa-ReLU": 0.001},
            "QQP": {"LSTM": 0.09, "RoBERTa": 0.03, "RoBERTa-ReLU": 0.02},
        }.items()
        for model, value in values.items()
    ]
    position = "sensitivity by position, aligned to the right"
    later, qqp = "Section 6, A.4", f"QQP, {training}"
    rows = (
        (later, "LSTM", SENSITIVITY, "above RoBERTa's, with softmax and with ReLU", training),
        (later, "LSTM", "sensitivity at initialisation", "above the transformers'", training),
        ("Section 6", "LSTM", position, "rises toward the end", training),
        ("Section 6", "RoBERTa", position, "nearly even, with bumps at CLS", training),
        ("Section 6", "RoBERTa-ReLU", position, "nearly even", training),
        (later, "GPT-2", position, "between LSTM and RoBERTa, rises toward the end", training),
        (later, "GPT-2", SENSITIVITY, "above RoBERTa's, well below the LSTM's", training),
        (later, "all", "order by sensitivity", "as with 15", "noise of variance 4"),
        (later, "all", "order by sensitivity", "as on training data", "validation sentences"),
        (later, "RoBERTa", "sensitivity of 4 layers", "a little below 8 and 12", qqp),
        (later, "LSTM", "sensitivity of 4 layers", "as with 8 and 12", qqp),
    )
    found += [  # read off; the text's 0.15 may be a misprint of the first
        Claim("A", "stored notebook of the code", model, SENSITIVITY, value, "1e5 points of MRPC")
        for model, value in (("LSTM", 0.015), ("RoBERTa", 0.0008), ("RoBERTa-ReLU", 0.0001))
    ]
    return found + [Claim("A", *row) for row in rows]


def _figures() -> list[Claim]:
    """What the figures of paper A show, as far as it can be tried."""
    rows: tuple[tuple[str, str, str, float | str, str], ...] = (
        ("Section 5", "ViT-small", "sensitivity", "below the MLP's", "MNIST, digit < 5 or not"),
        ("Fig. 4", "ViTs", "sensitivity at equal training accuracy",
         "an order of magnitude below the others'", "CIFAR-10"),
        ("Fig. 9, 20, 21", "ViTs", "accuracy under corruptions",
         "above ResNet-18 and DenseNet-121 on nearly all", "CIFAR-10-C, severities 1 and 2"),
        ("Section 7", "ViT-small", "sensitivity with augmentation", "lower",
         "copies with noise of variance 0.1, rate 0.2"),
        ("Section 7", "ViT-small", "sensitivity with regularisation", "lower",
         "strength 0.25, rate 0.16"),
        ("Section 7", "ViT-small", "accuracy under corruptions, augmentation",
         "higher, noise and blur most", "CIFAR-10-C"),
        ("Section 7", "ViT-small", "accuracy under corruptions, regularisation",
         "higher, noise and blur most", "CIFAR-10-C"),
        ("Table 2", "ViT-small", "ShOp", 39.166, "5 draws, weight noise of std 0.005"),
        ("Table 2", "ViT-small", "ShPred", 0.5346, "5 draws, weight noise of std 0.005"),
        ("Table 2", "ViT-small + regularisation", "ShOp", 9.025,
         "5 draws, weight noise of std 0.005"),
        ("Table 2", "ViT-small + regularisation", "ShPred", 0.3982,
         "5 draws, weight noise of std 0.005"),
        ("Section 7", "one-layer transformer", "epoch at which memorisation ends", 500.0, GROKKING),
        ("Section 7", "one-layer transformer", "epoch at which sensitivity peaks", 3000.0,
         GROKKING),
        ("Section 7", "one-layer transformer", "epoch of the jump in test accuracy", 9800.0,
         GROKKING),
        ("Section 7", "one-layer transformer", "sensitivity while test accuracy is flat",
         "rises, then falls before the jump", GROKKING),
        ("Section 7", "one-layer transformer", "weight norm", "does not show the phases", GROKKING),
        ("App. D", "all", "hours of training", 17.0, "vision, a setting, two RTX A6000"),
        ("App. D", "all", "hours of training", 24.0, "language, a setting, one RTX A6000"),
        ("Section 3", "transformer, linear attention", "Proposition 3.1",
         "eigenvalues of CK and NTK fall with the degree", "the cube, infinite width"),
        ("Section 3", "any Boolean function", "Proposition 3.2",
         "Pr[f(x) != f(x')] <= (1 - rho^(S_max^2)) / 2", "a rho-correlated pair"),
    )  # fmt: skip
    found = [Claim("A", *row) for row in rows]
    for setting in PARITIES:
        for quantity, value in (("final sensitivity / d", 0.1), ("final test accuracy, %", 100.0)):
            found.append(Claim("A", "A.6", "two-layer transformer", quantity, value, setting))
        found.append(
            Claim("A", "A.6", "two-layer transformer", "sensitivity while accuracy is 50 %",
                  "rises", setting)
        )  # fmt: skip
    return found


PARITIES = tuple(  # training points, batch, width, rate, seed, as sparse_parity's --setting
    f"{points},{batch},{width},{rate},{seed}"
    for points, batch, width, rate, seeds in (
        (50000, 250, 32, "1e-3", (123, 42, 0)),
        (10000, 100, 64, "1e-3", (42,)),
        (5000, 25, 32, "1e-4", (42,)),
        (5000, 50, 32, "1e-4", (42,)),
    )
    for seed in seeds
)


def _length() -> list[Claim]:
    """Paper B prints outcomes and curves; its numbers are asymptotes and steps."""
    four = ("PARITY", "MAJORITY", "FIRST", "MEAN")
    scaling = "2 layers, width 128, n = 4 to 30, in +-1 units"
    found = [Claim("B", "Fig. 1", "PARITY", "sharpness at n = 30", 1.0, scaling)]
    found += [
        Claim("B", "Fig. 1, 5-8", f, "sharpness with n", "hardly changes", scaling)
        for f in four[1:]
    ]
    rows: tuple[tuple[str, str, str, float | str, str], ...] = (
        ("Fig. 1", "PARITY", "sharpness with n", "rises", scaling),
        ("Fig. 2", "PARITY", "layer-norm blow-up or parameter norm", "one grows with n",
         "n = 4 to 25, decay 0 to 0.4"),
        ("Fig. 2", "MAJORITY, FIRST, MEAN", "layer-norm blow-up or parameter norm",
         "neither must grow with n", "n = 4 to 25, decay 0 to 0.4"),
        ("Fig. 3", "PARITY", "sharpness when the loss drops", "rises, then falls to a plateau",
         "n = 25, 20,000 steps"),
        *(("Fig. 3", "PARITY", "steps from the start of the drop to a loss of 0.01", steps,
           f"n = 25, decay {decay}")
          for decay, steps in ((0, 800.0), (0.1, 900.0), (0.2, 1100.0), (0.3, 1200.0))),
        ("Fig. 4", "random functions", "average sensitivity of the learned completion",
         "below a random completion's, more so with fewer strings", "n = 10; 128 to 512 strings"),
        ("Fig. 4", "random functions", "sharpness of fitting the learned completion",
         "below a random completion's", "n = 10, 256 strings"),
        ("Fig. 11", "PARITY with scratchpad", "sharpness with n", "stays low", "n to 1024"),
        ("Fig. 11", "PARITY with scratchpad", "accuracy", 1.0, "n to 1024"),
        ("Theorem 4", "any transformer", "layer-norm blow-up",
         "squared, at least s(f, x) over a constant times sqrt(n log n), for most x", "every n"),
        ("Corollary 5", "any transformer", "mean squared blow-up",
         "at least as(f) over a constant times sqrt(n log n), less a constant over n", "every n"),
        ("Theorem 6", "any transformer", "sharpness",
         "at least a multiple of as(f) / n, as n grows", "average direction, small radius"),
    )  # fmt: skip
    return found + [Claim("B", *row) for row in rows]


CLAIMS: tuple[Claim, ...] = (
    *_synthetic(),
    *_vision(),
    *_language(),
    *_figures(),
    *_length(),
    *(Claim(*curve) for curve in CURVES),
)


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


def claim(
    place: str, model: str, quantity: str, *, setting: str | None = None, paper: str = "A"
) -> Claim:
    """The one claim of that place, model and quantity (and setting, where there are several).

    Raises KeyError where there is none, or more than one.
    """
    found = [
        one
        for one in CLAIMS
        if (one.paper, one.place, one.model, one.quantity) == (paper, place, model, quantity)
        and setting in (None, one.setting)
    ]
    if len(found) != 1:
        asked = f"{paper}, {place}, {model}, {quantity}, {setting}"
        raise KeyError(f"{len(found)} claims for {asked}")
    return found[0]
