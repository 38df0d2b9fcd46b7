"""Passes where decisions are near: strata by margin, Neyman allocation, double sampling.

A first phase takes random examples and passes each once, unperturbed: its margin says in which
stratum it falls. A second phase draws *bits* (one token, one draw: flipped or not), k_h an example
in stratum h; k_h < 1 for a share of the examples. With V_b,h and V_w,h the variances between and
within examples, mu_h the rate and W_h the share of a stratum, a first-phase example costs
1 + sum_h W_h k_h passes and has the variance ::

    sum_h W_h [ (mu_h - S)^2 + V_b,h + V_w,h / k_h ],   for k_h < 1 ... + (V_b,h + V_w,h) / k_h ]

(Cochran, Sampling Techniques, 5.5 and ch. 12). The k_h that make cost times variance least are
sqrt(V_w,h / c), c the variance for each pass.

**What is measured may not decide how much it counts.** Where an example's own flips had a say in
how many more are measured with it, high values would be diluted and the mean biased downwards, by
about stderr^2 / S. So the examples are dealt into folds; how many examples a fold gets, and how
many bits in each stratum, is decided by the flips of the other folds alone; every fold counts the
same. The pilot then need not be thrown away.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsens._neyman import decreasing, design, falling

# Shares of the pilot in the strata, by growing margin: most flips are in the first tenth, where
# finer strata are worth a third of the passes when flips are rare.
SHARES = np.array([0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.35])
# An example, where nothing is known yet.
PILOT_BITS = np.array([8.0, 7.0, 6.5, 6.0, 5.5, 5.0, 4.0, 3.0, 2.0, 1.0, 0.7])
PILOT = (100, 1000)  # at least and at most so many examples
FOLDS = 5
GROWTH = 20.0  # from one round to the next at most
SURE = 0.25  # flips that the curve counts for, see Allocation.known
OVERDISPERSION = 0.04, 20.0  # V_b,h / (mu_h (1 - mu_h)) before data, and as sure as so many flips


@dataclasses.dataclass(frozen=True)
class Oracle:
    """What runs models, as far as the allocation needs to know.

    ``margins(examples)`` makes the clean pass; ``flips(examples, draws, first)`` makes ``draws``
    (n, T) further draws, of which the first has the number ``first`` (n, T), and returns how many
    flipped, (models, n, T). ``valid`` (N, T): the real tokens. ``most`` draws of one token at most.
    """

    margins: Callable[[Int[np.ndarray, " n"]], Float[np.ndarray, " n"]]
    flips: Callable[..., Int[np.ndarray, "models n T"]]
    valid: Bool[np.ndarray, "N T"]
    most: int
    models: int = 1


@dataclasses.dataclass(frozen=True)
class Measured:
    """Flips and draws by model, example and token, with what makes an estimate of them."""

    flips: Int[np.ndarray, "models N T"]
    draws: Int[np.ndarray, "N T"]
    strata: Int[np.ndarray, " N"]
    weights: Float[np.ndarray, " N"]
    passes: int
    reached: bool


class Allocation:
    """The state of an adaptive measurement; :func:`allocate` drives it."""

    def __init__(self, oracle: Oracle, rng: np.random.Generator) -> None:
        self.oracle = oracle
        n, t = oracle.valid.shape
        self.order, self.chance = rng.permutation(n), rng.random((n,))
        # An example's bits take its tokens in a random order, and again for a second draw of each.
        scores = np.where(oracle.valid, rng.random((n, t)), 2.0)
        self.turn = np.argsort(np.argsort(scores, axis=1), axis=1)
        self.tokens_each = oracle.valid.sum(1)
        self.fold = np.empty(n, np.int64)
        self.fold[self.order] = np.arange(n) % FOLDS
        self.strata, self.margins = np.full(n, -1), np.zeros(n)
        self.bits = np.zeros(n, np.int64)
        self.draws = np.zeros((n, t), np.int64)
        self.flips = np.zeros((oracle.models, n, t), np.int64)
        self.flipped = np.zeros((oracle.models, n), np.int64)  # over tokens
        self.passes = 0
        self.edges: Float[np.ndarray, " H-1"] | None = None

    def look(self, examples: Int[np.ndarray, " n"]) -> None:
        """The clean pass: examples enter the first phase, and a stratum."""
        examples = np.sort(examples)
        margins = self.oracle.margins(examples)
        self.passes += len(examples) * self.oracle.models
        if self.edges is None:
            self.edges = np.quantile(margins, np.cumsum(SHARES)[:-1])
        self.strata[examples] = np.searchsorted(self.edges, margins)
        self.margins[examples] = margins

    def draw(self, wanted: Int[np.ndarray, " N"]) -> None:
        """Bring every example to that many bits, as far as there are any; none is taken back."""
        wanted = np.clip(wanted, self.bits, self.tokens_each * self.oracle.most)
        examples = np.flatnonzero(wanted > self.bits)
        if not len(examples):
            return
        each = self.tokens_each[examples, None]
        goal = np.where(
            self.oracle.valid[examples],
            wanted[examples, None] // each + (self.turn[examples] < wanted[examples, None] % each),
            0,
        )
        first = self.draws[examples]
        flips = self.oracle.flips(examples, goal - first, first)
        self.flips[:, examples] += flips
        self.flipped[:, examples] += flips.sum(2)
        self.passes += int((goal - first).sum()) * self.oracle.models
        self.draws[examples] = goal
        self.bits[examples] = wanted[examples]

    def wanted(self, bits: np.ndarray, fold: int) -> Int[np.ndarray, " N"]:
        """Whole bits for the examples of a fold; in every stratum at least two are measured."""
        mine = (self.fold == fold) & (self.strata >= 0)
        wanted = np.zeros(len(mine), np.int64)
        wanted[mine] = np.floor(bits[self.strata[mine]] + self.chance[mine])
        for stratum in range(len(SHARES)):
            inside = np.flatnonzero(mine & (self.strata == stratum))
            if ((wanted[inside] > 0) | (self.bits[inside] > 0)).sum() < 2:
                lowest = inside[np.argsort(self.chance[inside])[:2]]
                wanted[lowest] = np.maximum(wanted[lowest], 1)
        return wanted

    def weights(self) -> Float[np.ndarray, " N"]:
        """What each measured example counts: a fold's share of its stratum over those measured."""
        weights = np.zeros(len(self.fold))
        for fold in range(FOLDS):
            looked = (self.fold == fold) & (self.strata >= 0)
            for stratum in range(len(SHARES)):
                inside = looked & (self.strata == stratum)
                measured = inside & (self.bits > 0)
                if measured.any():
                    weights[measured] = inside.sum() / looked.sum() / measured.sum()
        return weights / weights.sum()

    def events(self, but: int) -> float:
        """Equal flips that carry as much information, in all folds but one, at least 1."""
        flipped = self.flipped[:, self.fold != but].astype(float)
        squares = np.maximum((flipped**2).sum(1), 1.0)
        return float(max((flipped.sum(1) ** 2 / squares).min(), 1.0))

    def known(self, but: int) -> tuple[np.ndarray, ...]:
        """W_h (H,), and mu_h, V_b,h, V_w,h (models, H) from all folds but one."""
        looked = (self.strata >= 0) & (self.fold != but)
        count = np.bincount(self.strata[looked], minlength=len(SHARES)) + 1e-9
        shares = count / count.sum()
        used = looked & (self.bits > 0)
        stratum, bits = self.strata[used], self.bits[used]
        in_all = np.bincount(stratum, bits, minlength=len(SHARES))
        finite = np.where(np.isfinite(self.margins), self.margins, 0.0)[looked]
        place = np.bincount(self.strata[looked], finite, minlength=len(SHARES)) / count
        rates, between = [], []
        for flips in self.flipped[:, used]:
            flipped = np.bincount(stratum, flips, minlength=len(SHARES))
            # As if SURE flips more had been seen at the rate of the curve, so that a stratum
            # without any is neither taken to have none nor as many as the next.
            draws = SURE / np.clip(falling(place, flipped, in_all), 1e-6, 1.0)
            rate = decreasing((flipped + SURE) / (in_all + draws), in_all + draws)
            several = bits > 1
            mean = rate[stratum[several]]
            pairs = bits[several] * (bits[several] - 1.0)
            excess = (flips * (flips - 1.0))[several] - pairs * mean**2
            # Pairs weigh 1 / (bits - 1), so that an example counts as its number of bits.
            per_bit = 1 / (bits[several] - 1.0)
            prior, sureness = OVERDISPERSION
            spread = (pairs * mean * (1 - mean) * per_bit).sum()
            share = ((excess * per_bit).sum() + prior * sureness) / (spread + sureness)
            rates.append(rate)
            between.append(np.clip(share, 0.01, 0.9) * rate * (1 - rate))
        mu, vb = np.array(rates), np.array(between)
        return shares, mu, vb, mu * (1 - mu) - vb


def allocate(
    oracle: Oracle,
    rng: np.random.Generator,
    *,
    target: float | None = None,
    passes: int | None = None,
    error: Callable[[Measured], float],
) -> Measured:
    """Measure until the error is at most ``target``, or for about so many ``passes`` a model.

    ``error`` is the standard error of what was measured, for several models the largest.
    """
    state = Allocation(oracle, rng)
    n = len(state.fold)
    size = 0.003 / target**2 if target is not None else (passes or 0) / 8
    pilot = min(n, int(np.clip(size, *PILOT)))
    state.look(state.order[:pilot])
    prior = np.floor(PILOT_BITS[state.strata] + state.chance) * (state.strata >= 0)
    state.draw(np.maximum(prior, 0).astype(np.int64))
    caution = 0.96  # an interval is wider than 1.96 errors
    most_bits = float(oracle.most * oracle.valid.shape[1])
    while True:
        sizes, designs = [], []
        for fold in range(FOLDS):
            known = state.known(fold)
            aim = None
            if target is not None:
                # Of few events, now or (about (S / stderr)^2) at the end, not even the error is
                # known well. To ask for more then makes it rare that another round is needed:
                # whether one is, the flips of all folds decide.
                value = (known[0] * known[1]).sum(1).min()
                doubt = 1.5 / np.sqrt(state.events(fold)) + 12 * (target / value) ** 2
                aim = caution * target / np.sqrt(1 + doubt)
            found = design(*known, target=aim, passes=passes, most_bits=most_bits, most_examples=n)
            if passes is not None:  # the pilot may have drawn more than is wanted now
                more = state.bits - found.bits[state.strata]
                spent = more[(state.strata >= 0) & (more > 0)].sum()
                found = design(
                    *known, passes=max(passes - spent, 1), most_bits=most_bits, most_examples=n
                )
            designs.append(found)
            sizes.append(found.examples / FOLDS)
        now = np.array([((state.fold == f) & (state.strata >= 0)).sum() for f in range(FOLDS)])
        goal = np.maximum(np.ceil(np.minimum(sizes, GROWTH * now)).astype(int), now)
        new = [state.order[f::FOLDS][now[f] : goal[f]] for f in range(FOLDS)]
        added = np.concatenate(new)
        before = state.passes
        if len(added):
            state.look(added)
        wanted = np.zeros(n, np.int64)
        for fold in range(FOLDS):
            wanted += state.wanted(designs[fold].bits, fold)
        state.draw(wanted)
        last = bool((np.ceil(sizes) <= goal).all()) or state.passes == before
        full = np.array([len(state.order[f::FOLDS]) for f in range(FOLDS)])
        last = last or bool((goal >= full).all())
        if not last:
            continue
        result = Measured(
            state.flips, state.draws, state.strata, state.weights(), state.passes, True
        )
        if target is None:
            return result
        reached = error(result)
        if reached <= target:
            return result
        if state.passes == before and bool((goal >= full).all()):
            return dataclasses.replace(result, reached=False)
        caution *= min(0.97, target / reached)
