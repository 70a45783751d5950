"""Bilinear interpolation written out."""

from __future__ import annotations

import torch
from torch import Tensor


def bilinear_matrix(source: int, output: int, align_corners: bool) -> Tensor:
    """Weights [output, source] with which the pixels of an axis read its source values."""
    matrix = torch.zeros(output, source, dtype=torch.float64)
    for x in range(output):
        if align_corners:
            position = x * (source - 1) / (output - 1) if output > 1 else 0.0
        else:
            position = min(max((x + 0.5) * source / output - 0.5, 0.0), source - 1.0)
        left = int(position)
        matrix[x, left] += 1 - (position - left)
        if position > left:
            matrix[x, left + 1] += position - left
    return matrix
