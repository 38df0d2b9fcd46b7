"""Benchmarks, one module each: `python -m experiments.benchmark NAME`."""
