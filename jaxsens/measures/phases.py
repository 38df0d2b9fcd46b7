"""The phases of grokking, read from the curves of a run by a rule (paper A, Section 7)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Phases(NamedTuple):
    """Epochs that divide a run in phases; None for what did not happen."""

    memorised: int | None
    lowest: int | None
    peak: int | None
    fall: int | None
    jump: int | None

    @property
    def lead(self) -> int | None:
        """Epochs from sensitivity's fall to the jump; negative when it falls later."""
        return None if self.fall is None or self.jump is None else self.jump - self.fall


def grokking_phases(
    epochs: Int[np.ndarray, " E"],
    train: Float[np.ndarray, " E"],
    test: Float[np.ndarray, " E"],
    sensitivity: Float[np.ndarray, " E"],
) -> Phases:
    """The turning points of one run's train accuracy, test accuracy and sensitivity.

    Sensitivity is first smoothed by a running median of 15 measurements.

    - ``memorised``: train accuracy first reaches 0.99.
    - ``jump``: test accuracy first reaches the middle between its value when memorised and 1.
    - ``lowest``, ``peak``: between these two (or until the end), the pair of epochs with the
      largest ratio of a later sensitivity to an earlier one, if that is at least 1.5: here
      memorisation ends, and circuit formation.
    - ``fall``: after ``peak`` (after ``memorised``, if sensitivity never rises again) it first is
      at most half of what it was there.
    """

    def first(condition: np.ndarray, start: int = 0) -> int | None:
        found = np.flatnonzero(condition[start:])
        return start + int(found[0]) if len(found) else None

    memorised = first(train >= 0.99)
    if memorised is None:
        return Phases(None, None, None, None, None)
    smooth = running_median(sensitivity, 15)
    jump = first(test >= (test[memorised] + 1) / 2, memorised)
    stretch = smooth[memorised : len(smooth) if jump is None else jump + 1]
    rise = stretch / np.maximum(np.minimum.accumulate(stretch), 1e-9)
    lowest = peak = None
    if rise.max() >= 1.5:
        peak = memorised + int(rise.argmax())
        lowest = memorised + int(stretch[: rise.argmax() + 1].argmin())
    start = memorised if peak is None else peak
    fall = first(smooth <= smooth[start] / 2, start)
    marks = (memorised, lowest, peak, fall, jump)
    return Phases(*(None if mark is None else int(epochs[mark]) for mark in marks))


def running_median(values: Float[np.ndarray, " E"], width: int) -> Float[np.ndarray, " E"]:
    """The median of ``width`` (odd) neighbours, of fewer at the ends."""
    half = width // 2
    return np.array(
        [np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    )


def half_way(epochs: Int[np.ndarray, " E"], values: Float[np.ndarray, " E"]) -> int | None:
    """The first epoch at which a curve is past the middle between its two ends; None if flat."""
    if len(values) < 2:
        return None
    middle = (values[0] + values[-1]) / 2
    crossed = (values - middle) * (values[-1] - middle) > 0
    return int(epochs[crossed.argmax()]) if crossed.any() else None
