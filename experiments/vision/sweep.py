"""The final measurement of the experiments of Section 5: every noise asked for, on every token."""

from collections.abc import Callable
from typing import Any

import jaxsens
from experiments.run.measure import Measure
from experiments.run.paired import Pairs
from experiments.vision.options import Variant
from experiments.vision.run import Images, scattered


def final(config: Any, images: Images, variant: Variant, pairs: Pairs) -> list[Measure]:
    """Sensitivity by variance, ``sweep``; of random pixels, ``scatter``; of the image, ``whole``.

    Each is the paper's protocol, with its standard error and the rate by token.
    """
    task = images.task
    levels = config.sigma2 or (task.variance,)

    def point(
        field: str | None,
        sigma2: float,
        tokens: jaxsens.Tokens,
        noise: jaxsens.Gaussian,
        **known: Any,
    ) -> Callable[..., dict[str, Any]]:
        def compute(model: Any, key: Any) -> dict[str, Any]:
            estimate = jaxsens.sensitivity(
                model, images.measured, key=key, tokens=tokens, noise=noise,
                decision="argmax", repeats=config.repeats,
            )  # fmt: skip
            if field is not None:
                pairs.keep(field, variant.name, estimate)
            return {
                "sigma2": sigma2,
                "sensitivity": estimate.value,
                "sensitivity_stderr": estimate.stderr,
                "per_token": estimate.per_token,
                **known,
            }

        return compute

    patches = jaxsens.Patches(task.patch_size)
    compared = {levels[0]}  # networks are, at the variance that the table shows
    sweep = [
        point("sensitivity" if level in compared else None, level, patches, jaxsens.Gaussian(level))
        for level in levels
    ]
    found = [Measure("sweep", lambda model, key: [one(model, key) for one in sweep])]
    if config.tokens == "scatter":
        pixels = [
            point(
                "sensitivity_scatter" if level in compared else None,
                level,
                *scattered(images, level),
                variance=level**2,
            )
            for level in levels
        ]
        found.append(Measure("scatter", lambda model, key: [one(model, key) for one in pixels]))
    if getattr(config, "whole_input", False):
        variance = task.whole_variance
        printed = images.printed(config, variant, "sensitivity, noise on the whole input")
        whole = point(
            "sensitivity_whole",
            variance,
            jaxsens.Whole(),
            jaxsens.Gaussian(variance),
            paper=printed,
        )
        found.append(Measure("whole", lambda model, key: {"": whole(model, key)}))
    return found
