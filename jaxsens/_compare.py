"""Models side by side: the same examples, tokens and noise, so that differences are paired."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax import Array

from jaxsens._estimate import SensitivityEstimate
from jaxsens._measure import measure
from jaxsens._statistics import (
    effective_number,
    mean,
    quantile,
    standard_error,
    students,
    warn_if_few,
    with_unseen,
)
from jaxsens.noise import Noise
from jaxsens.placement import placed
from jaxsens.tokens import Tokens


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Difference:
    """S of one model minus S of another, on the same examples, tokens and draws of noise.

    What moves both models alike cancels: ``stderr`` is that of the mean of the differences, example
    by example, and usually less than the root of the sum of both squared errors.
    """

    first: SensitivityEstimate
    second: SensitivityEstimate

    @property
    def _rates(self) -> np.ndarray:
        return self.first.rates - self.second.rates

    @property
    def per_example(self) -> np.ndarray:
        """Difference of the flip rates of each example (N,); NaN if it was not measured."""
        return mean(self._rates, 1)

    @property
    def value(self) -> float:
        """The difference, in [-1, 1]."""
        return float(mean(self.per_example, 0, self.first.weights))

    @property
    def stderr(self) -> float:
        """Its paired standard error, examples (and shared tokens) as clusters."""
        one = self.first
        return standard_error(self._rates, one.shared, one.weights, one.strata)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval, within [-1, 1]: ``value`` ± z widened as for an estimate.

        z is Student's t (to first order) for as many degrees of freedom as examples differ, the
        variance has the share of four more examples that might differ at every token; with no
        difference at all, the bound is about 3.8 / N at 95 %. Warns below 100 examples. Raises
        ValueError unless 0 < level < 1.
        """
        z, value, stderr = quantile(level), self.value, self.stderr
        measured = ~np.isnan(self.per_example)
        sizes = np.abs(self.per_example[measured])
        weights = None if self.first.weights is None else self.first.weights[measured]
        n = effective_number(sizes, weights)
        if stderr == 0:
            half = z**2 / (n + z**2)
        else:
            counted = effective_number(sizes, sizes if weights is None else weights * sizes)
            most = float(np.average(sizes, weights=weights))
            half = students(z, counted) * float(np.sqrt(with_unseen(stderr**2, most, n)))
        warn_if_few(int(measured.sum()), stacklevel=2)
        return max(value - half, -1.0), min(value + half, 1.0)

    def __repr__(self) -> str:
        return f"Difference(value={self.value:.6g}, stderr={self.stderr:.2g})"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Estimates of several models by name, made together; ``print`` shows them as a table."""

    estimates: Mapping[str, SensitivityEstimate]

    def __post_init__(self) -> None:
        names = list(self.estimates)
        if len(names) < 2:
            raise ValueError(f"a comparison needs at least two models, got {len(names)}")
        first = self.estimates[names[0]]
        for name in names[1:]:
            other = self.estimates[name]
            unknown = None in (first.fingerprint, other.fingerprint)
            if unknown or first.fingerprint != other.fingerprint:
                raise ValueError(
                    f"the estimates {names[0]!r} and {name!r} are not paired: they need the same "
                    "inputs, tokens, noise, key and plan; an adaptive plan is shared only within "
                    "one call of compare"
                )

    def __getitem__(self, name: str) -> SensitivityEstimate:
        return self.estimates[name]

    def difference(self, first: str, second: str) -> Difference:
        """S of the first model minus S of the second. Raises KeyError for unknown names."""
        return Difference(self.estimates[first], self.estimates[second])

    @property
    def differences(self) -> dict[str, Difference]:
        """Every other model against the first: S of it minus S of the first."""
        first, *others = self.estimates
        return {name: self.difference(name, first) for name in others}

    def __repr__(self) -> str:
        first, *_ = self.estimates
        found = self.differences
        rows = [("model", "S", "stderr", f"minus {first}", "paired stderr")]
        for name, estimate in self.estimates.items():
            against = ("", "")
            if name in found:
                against = f"{found[name].value:+.5f}", f"{found[name].stderr:.5f}"
            rows.append((name, f"{estimate.value:.5f}", f"{estimate.stderr:.5f}", *against))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join(lines)


@placed
def compare(
    models: Mapping[str, Any] | Sequence[Any],
    inputs: Any = None,
    *,
    key: Array | None = None,
    tokens: Tokens | None = None,
    noise: Noise | None = None,
    perturb: str | int | None = None,
    embed: Any = None,
    decision: Any = None,
    repeats: int = 5,
    tokens_per_example: int | None = None,
    target_stderr: float | None = None,
    allocation: str | None = None,
    passes: int | None = None,
    batch_size: int | None = None,
    mesh: Any = None,
) -> Comparison:
    """Sensitivity of two or several models on the same examples, tokens and draws of noise.

    ::

        found = jaxsens.compare({"ViT": vit, "MLP": mlp}, images, key=key, tokens=Patches(4),
                                noise=Gaussian(1.0), target_stderr=0.002)
        print(found)
        found.difference("ViT", "MLP").interval()

    Args:
      models: models by name, or a sequence of them (named "0", "1", ...). Without ``inputs``:
        estimates that were made before, on the same inputs, tokens, noise and key.
      inputs, key, tokens, noise, perturb, decision, repeats, tokens_per_example, batch_size, mesh:
        as for :func:`jaxsens.sensitivity`.
      embed: one for all models, or a mapping or sequence with one for each.
      target_stderr, allocation: as there; every model's error reaches the target. An adaptive plan
        is made once for all models, with strata by the smallest of their margins (each in units of
        its median), so that differences stay paired.
      passes: the budget of each model.

    Returns:
      A :class:`Comparison`: ``estimates`` by name, ``differences`` against the first,
      ``difference(a, b)`` with ``value``, ``stderr`` and ``interval()``.

    Raises:
      TypeError, ValueError: as for :func:`jaxsens.sensitivity`; fewer than two models; estimates
        that are not paired.
    """
    if not isinstance(models, Mapping | list | tuple):
        raise TypeError(
            f"models must be a mapping or a sequence of models, got {type(models).__name__}"
        )
    named = (
        dict(models) if isinstance(models, Mapping) else {str(i): m for i, m in enumerate(models)}
    )
    if inputs is None:
        wrong = [n for n, model in named.items() if not isinstance(model, SensitivityEstimate)]
        if wrong:
            raise TypeError(f"without inputs every model must be an estimate; {wrong[0]!r} is none")
        return Comparison(named)
    if len(named) < 2:
        raise ValueError(f"a comparison needs at least two models, got {len(named)}")
    if isinstance(embed, Mapping):
        if set(embed) != set(named):
            raise ValueError(f"embed has {sorted(embed)}, the models are {sorted(named)}")
        embeds = [embed[name] for name in named]
    else:
        embeds = list(embed) if isinstance(embed, list | tuple) else [embed] * len(named)
        if len(embeds) != len(named):
            raise ValueError(f"embed has {len(embeds)} entries for {len(named)} models")
    found = measure(
        list(named.values()), inputs, key=key, tokens=tokens, noise=noise, perturb=perturb,
        embed=embeds, decision=decision, repeats=repeats, tokens_per_example=tokens_per_example,
        target_stderr=target_stderr, allocation=allocation, passes=passes, batch_size=batch_size,
        mesh=mesh,
    )  # fmt: skip
    return Comparison(dict(zip(named, found, strict=True)))
