"""Data sets of images: what is true of each, and the formats they are published in."""
