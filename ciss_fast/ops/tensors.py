"""What all operators share: supported types, the message for a wrong label, the enlargement's definition."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The order is that of the type codes in csrc/cpu/elements.h.
FLOAT_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LABEL_TYPES = (torch.uint8, torch.int32, torch.int64)


def enlarge(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Logits [B, C, h, w] at ``size`` = (H, W), bilinearly, in float32 at least."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    if 0 in size:  # interpolate makes no empty maps
        return logits.new_zeros((*logits.shape[:2], *size))
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


def label_error(value: int, classes: int, ignore_index: int) -> str:
    """The one-line message for a label value that is no class."""
    return f"label: expected class ids 0 to {classes - 1} or ignore_index {ignore_index}, found {value}"


def check_label_values(label: Tensor, classes: int, ignore_index: int) -> None:
    """Raise ValueError naming the first label that is neither a class nor ``ignore_index`` (reads the data)."""
    wrong = ((label < 0) | (label >= classes)) & (label != ignore_index)
    if wrong.any():
        raise ValueError(label_error(int(label[wrong][0]), classes, ignore_index))
