"""The mean feature of a class over its pixels, without enlarging the feature map.

The published feature is the mean, over the pixels of a class, of the feature map enlarged bilinearly to the label
map. Enlargement and mean are both linear in the feature map, so the feature is a weighted sum of the map's own
positions. With A_y [H, h] and A_x [W, w] the enlargement along the axes and m the class's mask, the weights are
A_y^T m A_x / sum(m): computed once from the label, and no [D, H, W] map exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def enlargement_matrix(size: int, enlarged: int, align_corners: bool = True) -> Tensor:
    """The bilinear enlargement along one axis as a matrix, float32 [enlarged, size]."""
    columns = torch.eye(size)[None]
    return functional.interpolate(columns, enlarged, mode="linear", align_corners=align_corners)[0].T


def class_mean_weights(
    label: Tensor, labels: Sequence[int], size: tuple[int, int], align_corners: bool = True
) -> Tensor:
    """What every position of a feature map contributes to the mean over each class's pixels.

    Args:
        label: integer [H, W].
        labels: the classes, each with at least one pixel in ``label``.
        size: height and width of the feature map.

    Returns float32 [len(labels), h, w]; the weights of a class sum to 1.
    """
    height, width = label.shape
    masks = torch.stack([label == value for value in labels]).float()
    rows = enlargement_matrix(size[0], height, align_corners).to(masks.device)
    columns = enlargement_matrix(size[1], width, align_corners).to(masks.device)
    return rows.T @ masks @ columns / masks.sum(dim=(1, 2), keepdim=True)


def class_mean_features(feature_map: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums [K, D] of the positions of a map [D, h, w] with ``weights`` [K, h, w]."""
    return weights.flatten(1) @ feature_map.float().flatten(1).T
