"""Images a second of the vision models, here and in PyTorch: inference, and steps of SGD.

The paper's networks for CIFAR-10 and Fashion-MNIST at its batch of 100, in float32, on the same
cores in the same run. The steps are those of the experiments, scanned by `Trainer` with shuffling,
dropout and BatchNorm updates; PyTorch's are the plain loop. On a GPU, PyTorch is left out, and the
arithmetic of a sensitivity measurement in bfloat16 is set against what the card is rated at.
Targets on a CPU: training 1.5 times as fast as PyTorch for transformers, as fast for the others.
Other work on the cores makes the comparison worthless: PyTorch's threads wait for one another, and
were seen ten to sixteen times slower where ours lost a sixth. `taskset` to one idle core is safe.
"""

import dataclasses
import functools
import importlib.util
import runpy
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

import jaxsens
from experiments import cifar, fashion_mnist
from experiments.benchmark import record
from experiments.benchmark.timing import Contender, against, onward, rates
from experiments.run.cli import UserError
from experiments.run.report import table
from jaxsens import Gaussian, Patches, models
from jaxsens._inference import inference
from jaxsens.training import Split, Trainer

COLOUR = {"image_size": 32, "patch_size": 4, "channels": 3, "classes": 10}
GREY = {"image_size": 28, "patch_size": 4, "channels": 1, "classes": 10}
# name: the model, and what it is created with
NETWORKS: dict[str, tuple[str, Mapping[str, Any]]] = {
    f"{prefix}{name}": (row.model, {**sizes, **row.widths})
    for prefix, task, sizes in (("", cifar.TASK, COLOUR), ("fashion-", fashion_mnist.TASK, GREY))
    for name, row in task.architectures.items()
}
# model: the file and class of its PyTorch statement, the one the tests hold it to
STATEMENTS = {
    "vit": ("vits", "ViTSmall"),
    "vit-simple": ("vits", "ViTSimple"),
    "convmixer": ("convs", "ConvMixer"),
    "resnet18": ("convs", "ResNet"),
    "densenet121": ("convs", "DenseNet"),
    "cnn": ("convs", "CNN"),
    "mlp": ("convs", "MLP"),
}
WITNESSES = Path(__file__).parents[2] / "tests" / "witnesses"
TARGETS = {"vit": 1.5, "vit-simple": 1.5}  # training against PyTorch; 1.0 for the others
STEPS = {"mlp": 100, "cnn": 5}  # batches a round, 2 where one takes a second
# Dense bfloat16 FLOP/s by the makers' data sheets, without sparsity.
RATED = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Images a second of inference and of training, here and in PyTorch."""

    arch: tuple[str, ...] = ("all",)
    """Which networks: those of CIFAR-10 by name, of Fashion-MNIST with fashion- before it; or
    all."""
    batch_size: int = 100
    """Images a forward pass or a step."""
    rounds: int = 5
    """Times each contender is measured, in turn; medians are reported."""
    out: Path | None = None
    """JSON file for the record; must not exist."""
    smoke: bool = False
    """The same code at the smallest size, in under a minute on two CPU cores."""


def main(config: Config) -> None:
    """Measure network by network, print a table, write the record."""
    for name in ("batch_size", "rounds"):
        if getattr(config, name) < 1:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} must be at least 1, got {getattr(config, name)}")
    for name in config.arch:
        if name not in (*NETWORKS, "all"):
            raise UserError(f"--arch must be among {', '.join(NETWORKS)} or all, got {name}")
    record.check_new(config.out)
    chosen = tuple(NETWORKS) if "all" in config.arch else tuple(dict.fromkeys(config.arch))
    if config.smoke:
        chosen = ("fashion-cnn", "fashion-mlp") if "all" in config.arch else chosen
        config = dataclasses.replace(config, batch_size=4, rounds=2)
    results = []
    for name in chosen:
        results.append(_network(name, config))
        print(f"measured {name}", flush=True)
    print(_report(results))
    record.write(config.out, "models", config, networks=results)


def _network(name: str, config: Config) -> dict[str, Any]:
    architecture, settings = NETWORKS[name]
    steps = 2 if config.smoke else STEPS.get(architecture, 2)
    size, batch = settings["image_size"], config.batch_size
    draw = np.random.default_rng(0)
    images = draw.normal(size=(steps * batch, size, size, settings["channels"]))
    data = Split(
        images.astype(np.float32),
        draw.integers(settings["classes"], size=steps * batch).astype(np.int32),
    )
    model = models.create(architecture, rngs=nnx.Rngs(0), **settings)
    runs = {
        "inference": forward(model, data.inputs[:batch], steps),
        "training": training(model, data, batch),
    }
    flops = flops_per_image(model, data.inputs[:batch])
    on_gpu = jax.default_backend() == "gpu"
    if importlib.util.find_spec("torch") is not None and not on_gpu:
        theirs = in_torch(architecture, settings, data, batch)
        runs |= {f"{kind}, PyTorch": run for kind, run in theirs.items()}
    first = {kind: _seconds(run) for kind, run in runs.items()}
    measured = rates(
        {kind: Contender(run, steps * batch) for kind, run in runs.items()}, config.rounds
    )
    speed = {kind: statistics.median(found) for kind, found in measured.items()}
    return {
        "network": name,
        "batch_size": batch,
        "gflop_per_image": flops / 1e9,
        "images_per_second": speed,
        "against_pytorch": {
            kind: against(measured, kind, f"{kind}, PyTorch")
            for kind in ("inference", "training")
            if f"{kind}, PyTorch" in measured
        },
        "target": TARGETS.get(architecture, 1.0),
        "compile_seconds": {
            kind: first[kind] - steps * batch / speed[kind] for kind in ("inference", "training")
        },
        "sensitivity": in_bfloat16(name, flops, config.rounds) if on_gpu else None,
    }


def forward(model: nnx.Module, images: np.ndarray | jax.Array, calls: int) -> Callable[[], None]:
    """The batch through the model in inference mode, so many times."""
    program, predicting = jax.jit(lambda model, images: model(images)), inference(model)
    batch = jax.device_put(images)

    def run() -> None:
        for _ in range(calls):
            logits = program(predicting, batch)
        jax.block_until_ready(logits)

    return run


def training(model: nnx.Module, data: Split, batch_size: int) -> Callable[[], None]:
    """An epoch over the data, from where the last call stopped."""
    trainer = Trainer([model], optax.sgd(1e-3), batch_size=batch_size)
    keys = jax.random.split(jax.random.key(0), 1)
    data = jax.device_put(data)
    return onward(trainer.initial, lambda state: trainer.epochs(state, data, keys)[0])


def in_torch(
    architecture: str, settings: Mapping[str, Any], data: Split, batch_size: int
) -> dict[str, Callable[[], None]]:
    """The same network, shapes and steps in PyTorch."""
    import torch

    file, name = STATEMENTS[architecture]
    # By path, because an installed package may be called "tests" too.
    statement = runpy.run_path(str(WITNESSES / f"torch_{file}.py"))[name]
    unused = {"patch_size"} if architecture in ("resnet18", "densenet121", "cnn", "mlp") else set()
    arguments = {key: value for key, value in settings.items() if key not in unused}
    predicting, network = statement(**arguments).eval(), statement(**arguments).train()
    images = torch.from_numpy(np.array(np.moveaxis(np.asarray(data.inputs), 3, 1), order="C"))
    labels = torch.from_numpy(np.array(data.labels, np.int64))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    @torch.inference_mode()
    def infer() -> None:
        for _ in range(len(images) // batch_size):
            predicting(images[:batch_size])

    def train() -> None:
        for indices in torch.randperm(len(images)).split(batch_size):
            optimizer.zero_grad()
            logits = network(images[indices])
            torch.nn.functional.cross_entropy(logits, labels[indices]).backward()
            optimizer.step()

    return {"inference": infer, "training": train}


def flops_per_image(model: nnx.Module, images: np.ndarray | jax.Array) -> float:
    """Floating-point operations of inference, a multiply-add as two, as XLA counts the program."""
    lowered = jax.jit(lambda model, images: model(images)).lower(inference(model), images)
    counted: Any = lowered.cost_analysis()
    return counted["flops"] / len(images)


def in_bfloat16(name: str, flops: float, rounds: int, examples: int = 2000) -> dict[str, Any]:
    """Passes a second of a sensitivity measurement, noise and all; FLOP a second at ``flops``."""
    architecture, settings = NETWORKS[name]
    model = models.create(architecture, rngs=nnx.Rngs(0), dtype="bfloat16", **settings)
    shape = (examples, *[settings["image_size"]] * 2, settings["channels"])
    images = jax.random.normal(jax.random.key(0), shape)
    measure = functools.partial(
        jaxsens.sensitivity, model, images, key=jax.random.key(0),
        tokens=Patches(settings["patch_size"]), noise=Gaussian(variance=1.0), repeats=5,
    )  # fmt: skip
    passes = measure().forward_passes
    found = rates({"sensitivity": Contender(measure, passes)}, rounds)["sensitivity"]
    speed = statistics.median(found)
    rated = RATED.get(jax.devices()[0].device_kind)
    return {
        "passes_per_second": speed,
        "flop_per_second": speed * flops,
        "share_of_rated": None if rated is None else speed * flops / rated,
    }


def _seconds(run: Callable[[], None]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _report(results: list[dict[str, Any]]) -> str:
    rows, lines = [], []
    for result in results:
        speed = result["images_per_second"]
        for kind, passes in (("inference", 1), ("training", 3)):  # a gradient is two more passes
            theirs, ratio = speed.get(f"{kind}, PyTorch"), result["against_pytorch"].get(kind)
            rows.append(
                (
                    result["network"],
                    kind,
                    f"{speed[kind]:,.0f}",
                    "" if theirs is None else f"{theirs:,.0f}",
                    "" if ratio is None else f"{ratio:.2f}",
                    f"{speed[kind] * passes * result['gflop_per_image']:,.0f}",
                    f"{result['compile_seconds'][kind]:.1f}",
                )
            )
        if found := result["sensitivity"]:
            share = found["share_of_rated"]
            lines.append(
                f"{result['network']}: sensitivity in bfloat16 takes "
                f"{found['passes_per_second']:,.0f} passes/s, {found['flop_per_second'] / 1e12:.1f}"
                f" TFLOP/s, " + ("a card not listed" if share is None else f"{share:.1%} of rated")
            )
    header = ("network", "", "images/s", "PyTorch", "ratio", "GFLOP/s", "compile s")
    return "\n".join([table(header, rows), *lines])
