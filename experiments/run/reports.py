"""Which module draws the record of which experiment: a line for each experiment."""

import importlib
from typing import Any

# Modules with draw(record), which writes the figures, and summary(record), the text of the table.
# They read records, and import neither training nor models.
REPORTS = {
    "cifar": "experiments.vision.report",
    "fashion_mnist": "experiments.vision.report",
    "flatness": "experiments.reports.flatness",
    "grokking": "experiments.reports.grokking",
    "imagenet": "experiments.vision.imagenet_report",
    "language": "experiments.reports.language",
    "length_dynamics": "experiments.reports.length.dynamics",
    "length_generalisation": "experiments.reports.length.generalisation",
    "length_long": "experiments.reports.length.scaling",
    "length_memorisation": "experiments.reports.length.memorisation",
    "length_scaling": "experiments.reports.length.scaling",
    "length_scratchpad": "experiments.reports.length.scratchpad",
    "length_tradeoff": "experiments.reports.length.tradeoff",
    "known_sensitivity": "experiments.reports.known_sensitivity",
    "mnist": "experiments.vision.mnist_report",
    "priors": "experiments.reports.priors",
    "robustness": "experiments.reports.robustness",
    "sparse_parity": "experiments.reports.sparse_parity",
    "svhn": "experiments.vision.report",
    "synthetic": "experiments.reports.synthetic",
}


def report_of(experiment: str) -> Any:
    """The module that draws an experiment's records. Raises KeyError for one that is not known."""
    return importlib.import_module(REPORTS[experiment])
