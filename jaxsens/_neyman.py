"""How many bits an example of each stratum should get: Neyman allocation for one or more models."""

import dataclasses

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Design:
    """Bits an example by stratum, and the first-phase examples they are meant for."""

    bits: Float[np.ndarray, " H"]
    examples: float


def falling(place: np.ndarray, flipped: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Rates exp(a - b place), b >= 0, that make the flips most likely as Poisson numbers."""
    x = place / max(place.mean(), 1e-30)
    level = np.log((flipped.sum() + 0.5) / (draws.sum() + 1))
    a, b = level, 0.0
    for _ in range(30):  # Newton's steps, kept short
        rate = draws * np.exp(a - b * x)
        gradient = np.array([(flipped - rate).sum(), -(x * (flipped - rate)).sum()])
        curvature = np.array(
            [[rate.sum(), -(x * rate).sum()], [-(x * rate).sum(), (x**2 * rate).sum()]]
        )
        step = np.linalg.solve(curvature + 1e-3 * np.eye(2), gradient)
        step *= min(1.0, 1.0 / max(abs(step).max(), 1e-30))
        if b + step[1] > 0:
            a, b = a + step[0], b + step[1]
        else:  # rates do not rise: a constant
            a, b = level, 0.0
    return np.exp(a - b * x)


def decreasing(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The closest sequence that does not increase (pool adjacent violators)."""
    blocks: list[list[float]] = []  # value, weight, length
    for value, weight in zip(values, weights, strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-1][0] > blocks[-2][0]:
            v, w, n = blocks.pop()
            block = blocks[-1]
            block[0] = (block[0] * block[1] + v * w) / (block[1] + w)
            block[1], block[2] = block[1] + w, block[2] + n
    return np.concatenate([np.full(int(n), value) for value, _, n in blocks])


def design(
    shares: np.ndarray,
    mu: np.ndarray,
    vb: np.ndarray,
    vw: np.ndarray,
    *,
    most_bits: float,
    most_examples: int,
    target: float | None = None,
    passes: float | None = None,
) -> Design:
    """The cheapest bits and examples for a target error, or the best for a budget of passes.

    For several models, Neyman allocation is for their mean variance, and the target for the
    largest.
    """
    overall = (shares * mu).sum(1)
    outer = (shares * (mu - overall[:, None]) ** 2).sum(1)

    def variances(bits: np.ndarray) -> np.ndarray:
        inner = np.where(bits >= 1, vb + vw / np.maximum(bits, 1), (vb + vw) / np.minimum(bits, 1))
        return outer + (shares * inner).sum(1)

    def allocated(c: float) -> np.ndarray:
        several, few = np.sqrt(vw.mean(0) / c), np.sqrt((vb + vw).mean(0) / c)
        bits = np.clip(np.where(several >= 1, several, np.minimum(few, 1)), 1e-3, most_bits)
        # One flip of a share k counts 1 / (examples k): never more than one standard error, lest
        # the estimate hang on whether a single rare flip was met.
        variance = variances(bits).max()
        error = target if target is not None else np.sqrt(variance * (1 + shares @ bits) / passes)
        return np.maximum(bits, min(1.0, error / variance))

    best: tuple[float, Design] | None = None
    for c in np.geomspace(1e-7, 1.0, 120):
        bits = allocated(c)
        cost, variance = 1 + shares @ bits, variances(bits).max()
        if target is not None:
            examples = variance / target**2
        else:
            assert passes is not None
            examples = passes / cost
        fits = examples <= most_examples
        examples = min(examples, most_examples)
        # What is to be made small: passes for a target, else variance; first of all it must fit.
        small = examples * cost if target is not None else variance / examples
        if target is not None and not fits:
            small = 1e12 * variance
        elif target is None and not fits:
            small = variance / examples
        if best is None or small < best[0]:
            best = small, Design(bits, examples)
    assert best is not None
    return best[1]
