"""Differences between the networks of a run, on the same inputs, tokens, noise and key."""

from collections.abc import Sequence
from typing import Any

import jaxsens
from experiments.run.measure import Measure


class Pairs:
    """The final estimates of every network of a run, seed by seed, by the field they are of."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, list[jaxsens.SensitivityEstimate]]] = {}

    def keep(self, field: str, model: str, estimate: jaxsens.SensitivityEstimate) -> Any:
        """Keep the estimate of the next seed of a network; it is returned."""
        self.kept.setdefault(field, {}).setdefault(model, []).append(estimate)
        return estimate

    def watched(self, model: str, measure: Measure) -> Measure:
        """The measure, of which every estimate is kept."""
        return Measure(
            measure.name,
            lambda network, key: self.keep(measure.name, model, measure.compute(network, key)),
            measure.keep,
        )

    def differences(self, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Every network against the first, for each field and seed: difference and paired error."""
        found = []
        for field, models in self.kept.items():
            first, *others = models
            for model in others:
                for seed, one, base in zip(seeds, models[model], models[first], strict=True):
                    difference = jaxsens.Difference(one, base)
                    found.append(
                        {
                            "field": field,
                            "model": model,
                            "against": first,
                            "seed": seed,
                            "difference": difference.value,
                            "stderr": difference.stderr,
                        }
                    )
        return found
