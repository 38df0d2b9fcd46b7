"""Experiments of the papers, `python -m experiments.NAME`: configuration, wiring, figures."""

from command.start import guard

guard()
