"""Measure one device, such as a GPU, with one command: `python -m benchmarks.device`."""
