"""Benches: one command each, not run by pytest. Their PyTorch shares the cores as that of `drpwatch` does."""

from drpwatch.cores import share_cores

share_cores()
