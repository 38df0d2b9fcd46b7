"""What the curves of paper A show, in our words; `experiments.paper` makes claims of them.

Paper B's stand beside its numbers there.
"""

GROKKING = "(a + b) mod 113, AdamW, 5 seeds"
SGD = "noise on a patch of 4, SGD"

# paper, place, model, quantity, outcome, setting
CURVES: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("A", "Fig. 3, 12", "one head", "OOD accuracy by epoch, sparse settings",
     "falls to 0", "(n_s, n_d) = (3, 1)"),
    ("A", "Fig. 3, 12", "one head", "OOD accuracy by epoch, frequent settings",
     "stays high", "(n_s, n_d) = (1, 7)"),
    ("A", "Fig. 3, 12", "one head", "alignment of the value weights",
     "grows with the tokens that it ends on", "all six settings"),
    ("A", "Fig. 4, 16", "ViTs", "sensitivity by epoch",
     "below the convolutional networks'", "CIFAR-10, noise of variance 1 on a patch of 4, SGD"),
    ("A", "Fig. 14", "all", "order by sensitivity with Adam", "as with SGD",
     "CIFAR-10, 0.002, halved every 8 epochs"),
    ("A", "Fig. 17", "all", "sensitivity against the variance of the noise",
     "grows; the order stays", "CIFAR-10"),
    ("A", "A.3", "ViT-small", "sensitivity with other depths and heads",
     "low at all of them", "CIFAR-10"),
    ("A", "Fig. 18", "ViT-small", "sensitivity by epoch", "below CNN and MLPs",
     "Fashion-MNIST, noise of variance 5 on a patch of 4, SGD"),
    ("A", "Fig. 19", "ViT-small", "sensitivity by epoch", "below ResNet-18",
     "SVHN, noise of variance 1 on a patch of 4, SGD"),
    ("A", "Section 5", "ViT-L/16", "order by sensitivity", "below ConvNeXtV2-Tiny",
     "ImageNet-1k, pretrained"),
    ("A", "Section 7", "one-layer transformer", "sensitivity after the jump",
     "a bump, then a decline", GROKKING),
    ("A", "Section 7", "one-layer transformer", "sensitivity when memorising", "falls", GROKKING),
)  # fmt: skip
