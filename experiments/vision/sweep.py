"""The final measurement of the experiments of Section 5: every noise asked for, on every token."""

from collections.abc import Callable
from typing import Any

import jaxsens
from experiments.run.measure import Measure
from experiments.vision.options import Variant
from experiments.vision.run import Images, scattered


def final(config: Any, images: Images, variant: Variant) -> list[Measure]:
    """Sensitivity by variance, ``sweep``; of random pixels, ``scatter``; of the image, ``whole``.

    Each is the paper's protocol, with its standard error and the rate by token.
    """
    task = images.task
    levels = config.sigma2 or (task.variance,)

    def point(
        sigma2: float, tokens: jaxsens.Tokens, noise: jaxsens.Gaussian, **known: Any
    ) -> Callable[..., dict[str, Any]]:
        def compute(model: Any, key: Any) -> dict[str, Any]:
            estimate = jaxsens.sensitivity(
                model, images.measured, key=key, tokens=tokens, noise=noise,
                decision="argmax", repeats=config.repeats,
            )  # fmt: skip
            return {
                "sigma2": sigma2,
                "sensitivity": estimate.value,
                "sensitivity_stderr": estimate.stderr,
                "per_token": estimate.per_token,
                **known,
            }

        return compute

    patches = jaxsens.Patches(task.patch_size)
    sweep = [point(level, patches, jaxsens.Gaussian(level)) for level in levels]
    found = [Measure("sweep", lambda model, key: [one(model, key) for one in sweep])]
    if config.tokens == "scatter":
        pixels = [
            point(level, tokens, noise, variance=noise.variance)
            for level in levels
            for tokens, noise in [scattered(images, level)]
        ]
        found.append(Measure("scatter", lambda model, key: [one(model, key) for one in pixels]))
    if getattr(config, "whole_input", False):
        variance = task.whole_variance
        printed = images.printed(config, variant, "sensitivity, noise on the whole input")
        whole = point(variance, jaxsens.Whole(), jaxsens.Gaussian(variance), paper=printed)
        found.append(Measure("whole", lambda model, key: {"": whole(model, key)}))
    return found
