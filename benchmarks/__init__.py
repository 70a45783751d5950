"""Time and memory of the ops, measured: ``python -m benchmarks --help``."""
