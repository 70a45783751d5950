"""Gauss quadrature for a sum over equally spaced points, as in csrc/core/gauss_rule.h and cells.h."""

from __future__ import annotations

from functools import lru_cache

import torch

NODES = (2, 3, 4, 5, 6, 8, 10, 12)
"""Numbers of nodes of the rules on offer."""

LIMITS = (0.1, 0.7, 1.5, 2.5, 3.8, 6.0, 8.2, 10.4)
"""Up to which change of a logit from end to end a rule serves: the sums of softplus and of sigmoid, and sigmoid's first
moment, are then exact to about 4e-7, whatever the logit and the number of points."""


@lru_cache(maxsize=256)
def gauss_rule(points: int, count: int) -> tuple[tuple[float, float], ...]:
    """Positions, from the middle of ``points`` points in units of their distance, and weights of ``count`` nodes.

    Exact for polynomials of degree below 2 ``count``. The nodes are the eigenvalues of the Jacobi matrix of the
    polynomials that are orthogonal on the points (Golub and Welsch, Math. Comp. 23, 1969); 1 <= count < points.
    """
    k = torch.arange(1, count, dtype=torch.float64)
    beside = (k * k * (points * points - k * k) / (4 * (4 * k * k - 1))).sqrt()
    positions, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return tuple(zip(positions.tolist(), (points * vectors[0] ** 2).tolist(), strict=True))


@lru_cache(maxsize=64)
def rule_entries(points: int) -> tuple[float, ...]:
    """Positions and weights of all `NODES` for a piece of so many points, one after the other; zeros for no rule."""
    entries: list[float] = []
    for count in NODES:
        rule = gauss_rule(points, count) if count < points else ((0.0, 0.0),) * count
        entries += [number for node in rule for number in node]
    return tuple(entries)
