"""Every method on small sets of real images: ``python -m benchmarks.comparison`` (see README.md)."""
