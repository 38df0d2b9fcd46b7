"""`python -m experiments.length NAME`: a subcommand for every experiment of paper B."""

from typing import Any

import tyro

from experiments.length import dynamics, generalisation, long, scaling, scratchpad, tradeoff
from experiments.run import cli

SUBCOMMANDS = {
    "dynamics": dynamics,
    "generalisation": generalisation,
    "long": long,
    "scaling": scaling,
    "scratchpad": scratchpad,
    "tradeoff": tradeoff,
}  # modules with a Config and a main(config)


def main(config: Any) -> None:
    """Run the experiment that the configuration belongs to."""
    chosen = [module for module in SUBCOMMANDS.values() if type(config) is module.Config]
    chosen[0].main(config)


if __name__ == "__main__":
    configs = {name: module.Config() for name, module in SUBCOMMANDS.items()}
    cli.run(
        main,
        tyro.extras.subcommand_type_from_defaults(configs),
        prog="experiments.length",
    )
