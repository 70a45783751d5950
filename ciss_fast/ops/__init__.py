"""The operators: one folder each, with its definition, its registration and the derivation of its kernels."""
