"""The command by which a claim that nobody has tried here would be."""

from experiments.paper import Claim

# By what the claim is of; the first that fits.
COMMANDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "python -m experiments.cifar --tokens scatter --whole-input",
        ("CIFAR-10",),
    ),
    ("python -m experiments.svhn --tokens scatter", ("SVHN",)),
    ("python -m experiments.fashion_mnist --tokens scatter", ("Fashion-MNIST",)),
    ("python -m experiments.mnist --data tfds", ("MNIST, digit",)),
    ("python -m experiments.imagenet", ("ImageNet",)),
    ("python -m experiments.language --task qqp", ("QQP",)),
    ("python -m experiments.grokking --seeds 5", ("(a + b) mod 113",)),
)
PLACES = {  # of paper A
    "Tables 1, 3": "python -m experiments.synthetic",
    "Fig. 3, 12": "python -m experiments.synthetic",
    "Fig. 9, 20, 21": "python -m experiments.robustness",
    "Table 2": "python -m experiments.flatness",
    "Section 6": "python -m experiments.language",
    "Section 6, A.4": "python -m experiments.language",
    "Section 3": "python -m theory check",
}
LENGTH = {  # of paper B, by place
    "Fig. 1": "scaling",
    "Fig. 1, 5-8": "scaling",
    "Fig. 2": "tradeoff",
    "Fig. 3": "dynamics",
    "Fig. 4": "generalisation",
    "Fig. 11": "scratchpad",
    "Theorem 4": "scaling",
    "Theorem 6": "scaling",
}


def command(claim: Claim) -> str:
    """Empty where no single command does."""
    if claim.place == "A.6":
        return f"python -m experiments.sparse_parity --setting {claim.setting}"
    if claim.paper == "B":
        part = LENGTH.get(claim.place)
        return f"python -m experiments.length {part}" if part else ""
    if claim.place in PLACES:
        return PLACES[claim.place]
    if claim.place == "Section 7" and claim.model == "ViT-small":
        return "python -m experiments.robustness"
    for text, starts in COMMANDS:
        if any(start in claim.setting for start in starts):
            return text
    return ""
