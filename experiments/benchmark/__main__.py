"""`python -m experiments.benchmark NAME`: a subcommand for every benchmark."""

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
}

if __name__ == "__main__":
    cli.run_one_of(BENCHMARKS, prog="experiments.benchmark")
