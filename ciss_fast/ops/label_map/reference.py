"""The definition of `predict` and `confusion`, in plain PyTorch, on the full-resolution logits."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tensors import enlarge


def predict_reference(logits: Tensor, size: tuple[int, int], sigmoid: bool, align_corners: bool) -> Tensor:
    """Class of every pixel [B, H, W], uint8 or int64 (see `label_dtype`)."""
    if logits.shape[0] * size[0] * size[1] == 0:  # interpolate makes no empty maps
        return logits.new_empty((logits.shape[0], *size), dtype=label_dtype(logits.shape[1]))
    enlarged = enlarge(logits, size, align_corners)
    if sigmoid:  # channel 0 is no class: background where no sigmoid exceeds 1/2, that is, no logit 0
        enlarged = torch.cat([torch.zeros_like(enlarged[:, :1]), enlarged[:, 1:]], dim=1)
    return enlarged.argmax(dim=1).to(label_dtype(logits.shape[1]))


def confusion_reference(
    logits: Tensor, label: Tensor, num_classes: int, sigmoid: bool, align_corners: bool, ignore_index: int
) -> Tensor:
    """Pixels by true (row) and predicted (column) class, int64 [num_classes, num_classes]."""
    predicted = predict_reference(logits, (label.shape[-2], label.shape[-1]), sigmoid, align_corners).long()
    counted = (label != ignore_index) & (label >= 0) & (label < num_classes)
    cells = label.long()[counted] * num_classes + predicted[counted]
    return torch.bincount(cells, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def label_dtype(classes: int) -> torch.dtype:
    """uint8 where the class ids fit, int64 otherwise."""
    return torch.uint8 if classes <= 256 else torch.int64
