"""What a verdict on Proposition 3.1 holds: yes, no or undecided for each part, and a witness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from .architecture import Architecture
from .digits import steady

# Relative to the largest value of K (spread, off-diagonal share) or to mu_0's scale (order).
TOLERANCE = 1e-10
RESOLUTION = 1e-12
REASON = (
    "float64 values of K carry at most 1e-12 of the largest (rounding through the layers, and the "
    "square-root singularity of the ReLU derivative is snapped), averages over the cube less; "
    "what lies between 1e-12 and the tolerance is undecided, and so is what is unproved where all "
    "of K but its mean is below 1e-6"
)
TIE = 1e-9  # values this close, relative to the largest, count as equal
CONTENT = 1e-6  # of max |K|: where K varies by less, 1e-12 is no longer small against what varies


def content(values: Float64[np.ndarray, ...]) -> float:
    """max |K - mean K| / max |K| of values of a kernel."""
    top = float(np.abs(values).max())
    return float(np.abs(values - values.mean()).max()) / top if top else 0.0


def tiny(architecture: Architecture) -> bool:
    """Whether a bias or positions are there but too small for values of K to show."""
    stds = (architecture.bias, architecture.positions)
    return any(0 < std < (1e3 * RESOLUTION) ** 0.5 for std in stds)


@dataclass(frozen=True)
class Violation:
    """mu of the larger set exceeds mu of the smaller one: by how much, relative to max mu.

    Values of mu within the tolerance of 0 are given as 0.
    """

    smaller: tuple[int, ...]
    larger: tuple[int, ...]
    mu_smaller: float
    mu_larger: float
    excess: float

    def __str__(self) -> str:
        u, v = (("{" + ", ".join(map(str, s)) + "}") for s in (self.smaller, self.larger))
        return f"mu_{u} = {steady(self.mu_smaller, 6)} < mu_{v} = {steady(self.mu_larger, 6)}"


@dataclass(frozen=True)
class KernelVerdict:
    """The three parts of Proposition 3.1 for one kernel.

    `spread`: largest difference of K(x, y) within a value of <x, y>, relative to max |K|, at
    `spread_pairs` = ((x, y), (x', y')) as indices of the cube. `off_diagonal`: share of the
    Frobenius norm of K off the diagonal in the Walsh basis. `chain`, `degree`: the worst violation
    of the order along chains U, U + {i, j} and of the averages by degree (sets are then the
    degrees, as 1-tuples); None where there is none. Coordinates count from 1, as in the paper.
    """

    kernel: str
    spread: float
    spread_pairs: tuple[tuple[int, int], tuple[int, int]]
    off_diagonal: float
    chain: Violation | None
    degree: Violation | None
    degree_averages: tuple[float, ...]
    content: float = 1.0
    chain_excess: float = 0.0
    degree_excess: float = 0.0
    proof: str | None = None

    def _status(self, deviation: float, violated: bool | None = None) -> str:
        if self.proof:
            return "yes"
        if deviation > TOLERANCE if violated is None else violated:
            return "no"
        decided = deviation <= RESOLUTION and self.content >= CONTENT
        return "yes" if decided else "undecided"

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """yes, no or undecided: K = Psi(<x, y>), Walsh-diagonal, order along chains, of averages.

        "no" is a violation above the tolerance; "yes" is proved (`proof`) or holds to 1e-12 where
        K varies enough to tell; anything else is undecided. `content` is max |K - mean K| / max
        |K|, 0 also where a bias or positions are too small to be seen.
        """
        return (
            self._status(self.spread),
            self._status(self.off_diagonal),
            self._status(self.chain_excess, self.chain is not None),
            self._status(self.degree_excess, self.degree is not None),
        )

    @property
    def function_of_dot_product(self) -> bool:
        """Part 1: K = Psi(<x, y>)."""
        return self.parts[0] == "yes"

    @property
    def walsh_diagonal(self) -> bool:
        """Part 2: every chi_U is an eigenfunction."""
        return self.parts[1] == "yes"

    @property
    def ordered(self) -> bool:
        """Part 3: mu_U >= mu_{U + {i, j}} along every chain."""
        return self.parts[2] == "yes"

    @property
    def status(self) -> str:
        """All three parts: yes, no or undecided."""
        three = self.parts[:3]
        return "no" if "no" in three else "undecided" if "undecided" in three else "yes"

    @property
    def holds(self) -> bool:
        """All three parts."""
        return self.function_of_dot_product and self.walsh_diagonal and self.ordered


@dataclass(frozen=True)
class Verdict31:
    """Proposition 3.1 for one architecture on {±1}^d, with the tolerance and its reason."""

    architecture: Architecture
    d: int
    ck: KernelVerdict
    ntk: KernelVerdict
    tolerance: float = TOLERANCE
    reason: str = REASON

    @property
    def status(self) -> str:
        """Every part for both kernels: holds, does not hold, undecided."""
        both = {self.ck.status, self.ntk.status}
        return "does not hold" if "no" in both else "undecided" if "undecided" in both else "holds"

    @property
    def holds(self) -> bool:
        """Every part for both kernels."""
        return self.ck.holds and self.ntk.holds
