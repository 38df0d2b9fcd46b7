"""The result of a sensitivity measurement, and its standard error."""

import dataclasses
import statistics

import numpy as np
from jaxtyping import Float

ROUNDING = 1e-12


def _mean(rates: np.ndarray, axis: int) -> np.ndarray:
    """Mean over ``axis`` of the entries that are not NaN; NaN where there are none."""
    measured = ~np.isnan(rates)
    count = measured.sum(axis)
    total = np.where(measured, rates, 0.0).sum(axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SensitivityEstimate:
    """An estimate of S (paper A, Def. 4.1) and where it comes from.

    ``rates`` (N, T) holds, for every example and token, the share of its draws that changed the
    decision, NaN where a token was padding or not drawn; everything else follows from it.
    ``forward_passes`` counts model evaluations, one a row, the clean inputs included.
    """

    rates: Float[np.ndarray, "N T"]
    forward_passes: int
    shared: bool = False

    @property
    def per_example(self) -> Float[np.ndarray, " N"]:
        """Mean flip rate of each example over its measured tokens; NaN if it was not measured."""
        return _mean(self.rates, 1)

    @property
    def per_token(self) -> Float[np.ndarray, " T"]:
        """Mean flip rate of each token position over the examples in which it was measured.

        Without padding and with every token measured, its mean is ``value``.
        """
        return _mean(self.rates, 0)

    @property
    def per_token_stderr(self) -> Float[np.ndarray, " T"]:
        """Standard error of ``per_token`` over examples; NaN where fewer than two count."""
        count = (~np.isnan(self.rates)).sum(0)
        squares = _mean((self.rates - self.per_token[None, :]) ** 2, 0)
        few = count < 2
        return np.sqrt(np.where(few, np.nan, squares) / np.where(few, 1, count - 1))

    @property
    def examples(self) -> int:
        """How many examples were measured."""
        return int((~np.isnan(self.per_example)).sum())

    @property
    def value(self) -> float:
        """S: the mean over examples of the mean flip rate over tokens, in [0, 1]."""
        return float(_mean(self.per_example, 0))

    @property
    def stderr(self) -> float:
        """Standard error of ``value`` with examples as clusters; NaN for a single example.

        The root of ``var(per_example) / N`` (unbiased variance). Draws and tokens of one example
        are dependent, examples are not, so this holds for the exact protocol and for sampled
        tokens alike. Where examples share the place of a token (``Scatter``), tokens are clusters
        too, and the two-way cluster variance by_example + by_token - by_cell is used, never less
        than by_example.
        """
        per_example, n = self.per_example, self.examples
        if n < 2:
            return float("nan")
        variance = _mean((per_example - self.value) ** 2, 0) / (n - 1)
        tokens = int((~np.isnan(self.per_token)).sum())
        if self.shared and tokens > 1:
            cells = int((~np.isnan(self.rates)).sum())
            residual = np.nan_to_num(self.rates - self.value)
            by_token = (residual.sum(0) ** 2).sum() / cells**2 * tokens / (tokens - 1)
            by_cell = (residual**2).sum() / cells**2
            variance += max(by_token - by_cell, 0.0)
        # Equal rates differ by rounding alone; a real difference is far above it.
        return float(np.sqrt(variance)) if variance > ROUNDING**2 else 0.0

    @property
    def events(self) -> float:
        """How many equal flips carry as much information: ``(sum r)^2 / sum r^2`` over examples.

        ``r`` is ``per_example``, or ``1 - per_example`` if these are fewer; with shared tokens at
        most the number of tokens. A standard error estimated from few events is itself uncertain.
        """
        rates = self.per_example[~np.isnan(self.per_example)]
        counts = [r.sum() ** 2 / (r**2).sum() if r.any() else 0.0 for r in (rates, 1 - rates)]
        return float(min(counts + [self.rates.shape[1]] * self.shared))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval for S, within [0, 1]; NaN for a single example.

        Wilson's score interval for a share of S (1 - S) / stderr^2 independent trials, with z
        widened to Student's t (to first order) for as many degrees of freedom as there are
        ``events``. It covers where flips are so few that ``value`` ± 1.96 ``stderr`` does not, and
        agrees with that where they are many. When all N examples have the same rate (no flip at
        all, say), ``stderr`` is 0 and says nothing: they count as N trials, so that the bound is
        about 3.8 / N at 95 %. Raises ValueError unless 0 < level < 1.
        """
        low, high = self._wilson(level)
        return max(low, 0.0), min(high, 1.0)

    def half_width(self, level: float = 0.95) -> float:
        """Half the width of :meth:`interval` before it is cut to [0, 1]."""
        low, high = self._wilson(level)
        return (high - low) / 2

    def _wilson(self, level: float) -> tuple[float, float]:
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}")
        p, stderr = self.value, self.stderr
        z = statistics.NormalDist().inv_cdf((1 + level) / 2)
        if stderr == 0:
            trials = float(self.examples)
        else:
            trials = p * (1 - p) / stderr**2
            z *= 1 + (z**2 + 1) / (4 * max(self.events, 2.0))
        centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
        half = z / (1 + z**2 / trials) * np.sqrt(p * (1 - p) / trials + (z / (2 * trials)) ** 2)
        return float(centre - half), float(centre + half)

    def __repr__(self) -> str:
        return (
            f"SensitivityEstimate(value={self.value:.6g}, stderr={self.stderr:.2g}, "
            f"examples={self.examples}, tokens={self.rates.shape[1]}, "
            f"forward_passes={self.forward_passes})"
        )
