"""Experiments of the papers: `python -m experiments.NAME`. Configuration and wiring; no algorithm."""
