"""Readers of file formats from outside: bounded, without pickle of arbitrary objects."""
