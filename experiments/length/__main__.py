"""`python -m experiments.length NAME`: a subcommand for every experiment of paper B."""

from experiments.length import (
    dynamics,
    generalisation,
    long,
    memorisation,
    scaling,
    scratchpad,
    tradeoff,
)
from experiments.run import cli

SUBCOMMANDS = {
    "dynamics": dynamics,
    "generalisation": generalisation,
    "long": long,
    "memorisation": memorisation,
    "scaling": scaling,
    "scratchpad": scratchpad,
    "tradeoff": tradeoff,
}

if __name__ == "__main__":
    cli.run_one_of(SUBCOMMANDS, prog="experiments.length")
