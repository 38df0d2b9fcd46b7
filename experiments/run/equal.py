"""Networks at equal training accuracy, from the evaluations of a record."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.run.curve import Lines


def by_seed(lines: Lines) -> list[list[Mapping[str, Any]]]:
    """The lines of each seed."""
    return [
        [line for line in lines if line["seed"] == s] for s in sorted({x["seed"] for x in lines})
    ]


def common_accuracy(models: Mapping[str, Lines]) -> float:
    """The highest training accuracy that every seed of every network has reached."""
    return min(
        max(line["train_accuracy"] for line in seed)
        for lines in models.values()
        for seed in by_seed(lines)
    )


def at_accuracy(lines: Lines, level: float, field: str = "sensitivity") -> list[dict[str, float]]:
    """Sensitivity of each seed where its training accuracy first reached ``level``.

    Between two evaluations sensitivity and its standard error are taken to change linearly with
    the accuracy.
    """
    found = []
    for seed in by_seed(lines):
        after = next(i for i, line in enumerate(seed) if line["train_accuracy"] >= level)
        pair = seed[max(after - 1, 0) : after + 1]
        found.append(
            {
                f"sensitivity{part}": float(
                    np.interp(
                        level,
                        [p["train_accuracy"] for p in pair],
                        [p[f"{field}{part}"] for p in pair],
                    )
                )
                for part in ("", "_stderr")
            }
        )
    return found
