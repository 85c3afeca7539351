"""Simulated micrographs, and training on them."""
