"""What a record says of a paper's claim, and the one rule by which the report judges it.

The report module of an experiment may have ``evidence(record)``, which gives a list of `Evidence`:
`python -m experiments.report` makes a row of each. Where the module has ``BEYOND = True``, the
experiment also asks what neither paper does, and a record without evidence is a row of its own.
"""

import dataclasses
import math
from collections.abc import Sequence

from experiments.paper import Claim

AGREES, ORDER, DISAGREES = "agrees", "same order", "disagrees"
UNDECIDED, NOT_RUN, UNUSABLE = "undecided", "not run", "unusable record"
NO_CLAIM = "no claim"  # of either paper is what the record speaks of
ERRORS = 2.0  # standard errors within which two numbers are not told apart
SHARE = 0.1  # of the paper's number, within which they are called the same
ORDER_FACTOR = math.sqrt(10)
RULE = (
    f"A number **agrees** where it lies within {ERRORS:g} of our standard errors of the printed "
    f"one, half a unit of its last digit allowed for, or within {SHARE:.0%} of it; it is of the "
    "**same order** where the two differ by a factor of at most the square root of 10, and "
    "**disagrees** otherwise (an accuracy agrees or disagrees). An outcome in words agrees or "
    "disagrees where ours shows it, or the opposite, by more than "
    f"{ERRORS:g} standard errors, and is **undecided** in between; of phases and bounds the count "
    "of seeds or networks decides, which the row gives. **Not run**: no committed record speaks of "
    "it. **No claim**: a record of what neither paper asks. How our run differs from the paper's "
    "stands beside the verdict, and is no part of it."
)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What one record says of one claim (`experiments.paper.claim` finds it).

    ``value`` is our number, or our outcome in words; ``stderr`` its standard error. For a claim
    in words ``holds`` says whether it came out: True, False, or None where it cannot be told
    (`shown` decides for a difference). ``differs`` says how our run differs from the paper's in
    data, size or training; empty where it does not. ``measured`` names one of several ways of
    measuring the same. ``size`` is what was run, where the record's own options (data, epochs,
    seeds) do not say it.
    """

    claim: Claim
    value: float | str
    stderr: float | None = None
    holds: bool | None = None
    differs: str = ""
    measured: str = ""
    size: str = ""


def shown(difference: float, stderr: float) -> bool | None:
    """Whether a difference is above 0: True or False beyond `ERRORS` errors, None in between."""
    if not math.isfinite(difference) or abs(difference) <= ERRORS * stderr:
        return None
    return difference > 0


def below(
    lower: tuple[float, float], higher: tuple[float, float], factor: float = 1.0
) -> bool | None:
    """Whether ``factor`` times the first (value, standard error) is below the second: `shown`."""
    difference = higher[0] - factor * lower[0]
    return shown(difference, math.hypot(factor * lower[1], higher[1]))


def all_hold(told: Sequence[bool | None]) -> bool | None:
    """Whether a claim of several parts holds: False where one fails, else None if one is open."""
    return False if False in told else None if None in told else True


def verdict(evidence: Evidence) -> str:
    """The rule (`RULE`), for one claim and what a record says of it."""
    printed, ours = evidence.claim.value, evidence.value
    if isinstance(printed, str) or isinstance(ours, str):
        return {True: AGREES, False: DISAGREES, None: UNDECIDED}[evidence.holds]
    if not math.isfinite(ours):
        return UNDECIDED
    distance = abs(ours - printed)
    if distance <= ERRORS * (evidence.stderr or 0.0) + last_digit(printed) / 2:
        return AGREES
    if distance <= SHARE * abs(printed):
        return AGREES
    if "accuracy" in evidence.claim.quantity:  # of which half is chance, not the same order
        return DISAGREES
    near = ours * printed > 0 and abs(math.log(ours / printed)) <= math.log(ORDER_FACTOR)
    return ORDER if near else DISAGREES


def last_digit(value: float) -> float:
    """A unit of the last digit that a number is printed with: 0.0001 for 0.0829, 0.001 for 0."""
    text = f"{value:.10f}".rstrip("0")
    digits = len(text.split(".")[1])
    return 10.0**-digits if digits else 0.001 if value == 0 else 1.0
