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

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval for S: ``value`` ± z * ``stderr``, cut to [0, 1].

        When all N examples have the same rate (no flip at all, say), ``stderr`` is 0 and says
        nothing: the half-width is then ``1 - (1 - level)**(1/N)``, about 3 / N at 95 %, the
        largest share of differing examples that N equal ones do not rule out. Raises ValueError
        unless 0 < level < 1.
        """
        half = self.half_width(level)
        return max(self.value - half, 0.0), min(self.value + half, 1.0)

    def half_width(self, level: float = 0.95) -> float:
        """Half the width of :meth:`interval` before it is cut to [0, 1]."""
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}")
        half = statistics.NormalDist().inv_cdf((1 + level) / 2) * self.stderr
        return half if half != 0 else 1 - (1 - level) ** (1 / self.examples)

    def __repr__(self) -> str:
        return (
            f"SensitivityEstimate(value={self.value:.6g}, stderr={self.stderr:.2g}, "
            f"examples={self.examples}, tokens={self.rates.shape[1]}, "
            f"forward_passes={self.forward_passes})"
        )
