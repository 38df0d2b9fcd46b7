"""What the estimator costs beyond the forward passes it needs.

The same protocol, N images x 16 patches x R draws of Gaussian noise, by `jaxsens.sensitivity`, by
a Python loop over tokens and draws in JAX, and by the same loop in PyTorch; beside them the same
number of plain batched forward passes of the same jitted model, the best any estimator could do.
Target on a CPU: at least 90 % of the plain passes for the ViT, 65 % for the MLP, for which drawing
and placing 49 normal numbers a pass is a large part of the work. Then what it takes to reach a
standard error on trained networks (`passes.py`). About six minutes on two CPU cores.
"""

import dataclasses
import functools
import importlib.util
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxsens
from experiments.benchmark import passes, record
from experiments.benchmark.timing import Contender, against, rates
from experiments.run.cli import UserError
from experiments.run.report import table
from jaxsens import Gaussian, Patches, models

SIZE, PATCH = 28, 7
IMAGE = {"image_size": SIZE, "channels": 1, "classes": 2}
# The two networks of the paper's MNIST comparison: name, widths, images measured.
NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "vit (depth 2, 1 head)": ("vit", {"depth": 2, "heads": 1, "mlp_dim": 128}, 400),
    "mlp (100)": ("mlp", {"hidden": (100,)}, 2000),
}
TARGET = {"vit (depth 2, 1 head)": 0.9, "mlp (100)": 0.65}
BATCH_SIZE = 512  # what the estimator chooses for both networks on a CPU
WITNESSES = Path(__file__).parents[2] / "tests" / "witnesses"


@dataclasses.dataclass(frozen=True)
class Config:
    """Forward passes a second of the estimator and of other ways to the same number."""

    rounds: int = 7
    """Times each contender is measured, in turn; medians are reported."""
    repeats: int = 5
    """Draws of noise for each patch."""
    batch_size: int | None = None
    """Forward rows at a time, for every contender; default: the estimator's own."""
    target: float = 0.002
    """Standard error to which trained networks are measured, by every allocation."""
    repetitions: int = 100
    """Simulated adaptive measurements, for their coverage."""
    out: Path | None = None
    """JSON file for the record; must not exist."""
    smoke: bool = False
    """The same code at the smallest size, in under a minute on two CPU cores."""


def main(config: Config) -> None:
    """Measure, print a table, write the record."""
    for name in ("rounds", "repeats", "batch_size", "repetitions"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if not 0 < config.target < 1:
        raise UserError(f"--target must lie between 0 and 1, got {config.target}")
    record.check_new(config.out)
    if config.smoke:
        config = dataclasses.replace(config, rounds=2, repeats=1, target=0.05, repetitions=2)
    results = [_network(name, config) for name in NETWORKS]
    imports = _import_seconds(rounds=2 if config.smoke else 5)
    print(_report(results, imports), flush=True)
    trained = passes.to_a_target(config.target, config.repetitions, config.smoke)
    print(f"\n{passes.report(trained)}")
    record.write(
        config.out,
        "sensitivity",
        config,
        target=TARGET,
        networks=results,
        to_a_target=trained,
        import_seconds_beyond_jax_and_flax=imports,
    )


def _network(name: str, config: Config) -> dict[str, Any]:
    architecture, widths, examples = NETWORKS[name]
    if config.smoke:
        examples = 64
    model = models.create(architecture, rngs=nnx.Rngs(0), patch_size=PATCH, **IMAGE, **widths)
    images = np.random.default_rng(0).normal(size=(examples, SIZE, SIZE, 1)).astype(np.float32)
    batch_size = config.batch_size or BATCH_SIZE
    torch_loop = _torch(model, architecture, widths, images, batch_size, config.repeats)
    measure = functools.partial(
        jaxsens.sensitivity, model, images, key=jax.random.key(0), tokens=Patches(PATCH),
        noise=Gaussian(variance=1.0), repeats=config.repeats, decision="argmax",
        batch_size=batch_size,
    )  # fmt: skip

    begun = time.perf_counter()
    estimate = measure()
    first_call = time.perf_counter() - begun
    passes = estimate.forward_passes

    inference = nnx.view(
        model, deterministic=True, use_running_average=True, raise_if_not_found=False
    )
    forward = jax.jit(lambda model, images: model(images))
    begun = time.perf_counter()
    jax.block_until_ready(forward(inference, images[:batch_size]))
    first_forward = time.perf_counter() - begun

    contenders = {
        "jaxsens.sensitivity": Contender(measure, passes),
        "plain forward passes": _plain(forward, inference, images, batch_size, passes),
        "loop over tokens": Contender(
            functools.partial(_loop, forward, inference, images, batch_size, config.repeats), passes
        ),
    }
    if torch_loop is not None:
        contenders["PyTorch loop"] = Contender(torch_loop, passes)
    measured = rates(contenders, config.rounds)
    return {
        "network": name,
        "examples": examples,
        "forward_passes": passes,
        "batch_size": batch_size,
        "sensitivity": estimate.value,
        "passes_per_second": {k: statistics.median(v) for k, v in measured.items()},
        "jaxsens_against": {
            k: against(measured, "jaxsens.sensitivity", k) for k in list(contenders)[1:]
        },
        "compile_seconds": {
            "jaxsens.sensitivity": first_call - passes / statistics.median(
                measured["jaxsens.sensitivity"]
            ),
            "plain forward": first_forward,
        },
    }  # fmt: skip


def _plain(
    forward: Callable[..., Any], model: Any, images: np.ndarray, batch_size: int, passes: int
) -> Contender:
    """The model on one batch that lies on the device, as often as it takes."""
    batch = jnp.asarray(np.resize(images, (batch_size, *images.shape[1:])))
    calls = max(1, round(passes / batch_size))

    def run() -> None:
        jax.block_until_ready([forward(model, batch) for _ in range(calls)])

    return Contender(run, calls * batch_size)


def _loop(
    forward: Callable[..., Any], model: Any, images: np.ndarray, batch_size: int, repeats: int
) -> float:
    """What one writes first: batches, tokens and draws in Python, the model jitted."""
    key, flips = jax.random.key(0), 0
    for start in range(0, len(images), batch_size):
        batch = jnp.asarray(images[start : start + batch_size])
        clean = forward(model, batch).argmax(1)
        for row in range(0, SIZE, PATCH):
            for column in range(0, SIZE, PATCH):
                for _ in range(repeats):
                    key, draw = jax.random.split(key)
                    noise = jax.random.normal(draw, (len(batch), PATCH, PATCH, 1))
                    at = (slice(None), slice(row, row + PATCH), slice(column, column + PATCH))
                    noised = forward(model, batch.at[at].add(noise)).argmax(1)
                    flips += int((noised != clean).sum())
    return flips / (len(images) * (SIZE // PATCH) ** 2 * repeats)


def _torch(
    model: nnx.Module,
    architecture: str,
    widths: dict[str, Any],
    images: np.ndarray,
    batch_size: int,
    repeats: int,
) -> Callable[[], float] | None:
    """The same loop in PyTorch with the same network; None without PyTorch.

    The networks are the statements that the tests hold `jaxsens.models` to; the model is given the
    weights of its counterpart.
    """
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    # By path, because an installed package may be called "tests" too.
    vits, convs, references = (
        runpy.run_path(str(WITNESSES / f"{name}.py"))
        for name in ("torch_vits", "torch_convs", "references")
    )
    if architecture == "vit":
        network = vits["ViTSmall"](patch_size=PATCH, **IMAGE, **widths).eval()
    else:
        network = convs["MLP"](**IMAGE, **widths).eval()
    references["load"](model, {k: v.numpy() for k, v in network.state_dict().items()})
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    @torch.inference_mode()
    def run() -> float:
        flips = 0
        for batch in pixels.split(batch_size):
            clean = network(batch).argmax(1)
            for row in range(0, SIZE, PATCH):
                for column in range(0, SIZE, PATCH):
                    for _ in range(repeats):
                        noised = batch.clone()
                        patch = noised[:, :, row : row + PATCH, column : column + PATCH]
                        patch += torch.randn_like(patch)
                        flips += int((network(noised).argmax(1) != clean).sum())
        return flips / (len(images) * (SIZE // PATCH) ** 2 * repeats)

    return run


def _import_seconds(rounds: int) -> float:
    """Median time of `import jaxsens` in fresh processes that have imported jax and flax."""
    program = (
        "import time, jax, jax.numpy, flax.nnx; t = time.perf_counter(); import jaxsens; "
        "print(time.perf_counter() - t)"
    )
    command = [sys.executable, "-c", program]
    runs = [subprocess.run(command, check=True, capture_output=True) for _ in range(rounds)]
    return statistics.median(float(run.stdout) for run in runs)


def _report(results: list[dict[str, Any]], imports: float) -> str:
    rows = []
    for result in results:
        for name, rate in result["passes_per_second"].items():
            ratio = result["jaxsens_against"].get(name)
            rows.append(
                (
                    result["network"],
                    name,
                    f"{rate:,.0f}",
                    "" if ratio is None else f"{ratio:.2f}",
                )
            )
    lines = [table(("network", "contender", "passes/s", "jaxsens is"), rows), ""]
    for result in results:
        seconds = result["compile_seconds"]
        lines.append(
            f"{result['network']}: {result['forward_passes']:,} passes, compiled in "
            f"{seconds['jaxsens.sensitivity']:.1f} s (the plain forward pass: "
            f"{seconds['plain forward']:.1f} s)"
        )
    lines.append(f"import jaxsens beyond jax and flax: {imports:.2f} s (target: below 0.5 s)")
    return "\n".join(lines)
