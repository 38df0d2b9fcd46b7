"""`python -m experiments.benchmark NAME`: a subcommand for every benchmark."""

from typing import Any

import tyro

from experiments.benchmark import corruptions, grokking, language, length, models, sensitivity
from experiments.run import cli
from theory import benchmark as theory

BENCHMARKS = {
    "corruptions": corruptions,
    "grokking": grokking,
    "language": language,
    "length": length,
    "models": models,
    "sensitivity": sensitivity,
    "theory": theory,
}  # modules with a Config and a main(config)


def main(config: Any) -> None:
    """Run the benchmark that the configuration belongs to."""
    chosen = [module for module in BENCHMARKS.values() if isinstance(config, module.Config)]
    chosen[0].main(config)


if __name__ == "__main__":
    configs = {name: module.Config() for name, module in BENCHMARKS.items()}
    cli.run(
        main,
        tyro.extras.subcommand_type_from_defaults(configs),
        prog="experiments.benchmark",
    )
