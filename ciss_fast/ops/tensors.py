"""What all operators share: supported types, the message for a wrong label, the enlargement's definition."""

from __future__ import annotations

from numbers import Integral

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


def check_float_type(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless ``tensor`` has a type that logits may have."""
    if tensor.dtype not in FLOAT_TYPES:
        raise TypeError(f"{name}: expected float32, bfloat16, float16 or float64, got {tensor.dtype}")


def check_label_map(label: Tensor, logits: Tensor, name: str) -> None:
    """Raise TypeError or ValueError unless ``label`` is [B, H, W] for the logits [B, C, h, w] called ``name``."""
    if label.dtype not in LABEL_TYPES:
        raise TypeError(f"label: expected uint8, int32 or int64, got {label.dtype}")
    if label.dim() != 3 or label.shape[0] != logits.shape[0]:
        raise ValueError(f"label: expected [B, H, W] with B = {logits.shape[0]}, got shape {list(label.shape)}")
    if label.device != logits.device:
        raise ValueError(f"label: expected device {logits.device} like the {name}, got {label.device}")


def check_ignore_index(ignore_index: int) -> None:
    """Raise ValueError for a value the kernels, which compare labels as 32-bit numbers, cannot tell from a label."""
    if not isinstance(ignore_index, Integral) or not -(2**31) < ignore_index < 2**31:
        raise ValueError(f"ignore_index: expected a 32-bit integer, got {ignore_index!r}")


def check_label_values(label: Tensor, classes: int, ignore_index: int) -> None:
    """Raise ValueError naming the first label that is neither a class nor ``ignore_index`` (reads the data)."""
    wrong = ((label < 0) | (label >= classes)) & (label != ignore_index)
    if wrong.any():
        raise ValueError(label_error(int(label[wrong][0]), classes, ignore_index))
