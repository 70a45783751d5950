"""Launches of the Triton kernels of `predict` and `confusion`."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from ...triton_runtime import OPTIONS, device_of
from ..triton_sizes import position_bits, power_of_two_from, power_of_two_up_to
from .checks import check_label, check_logits, check_num_classes, check_size
from .reference import label_dtype
from .triton_kernels import confusion_kernel, predict_kernel

MOST_ROWS, MOST_COLUMNS = 16, 128  # of a tile


def predict_triton(logits: Tensor, height: int, width: int, sigmoid: bool, align_corners: bool) -> Tensor:
    """The kernel of ``ciss_fast::predict``."""
    check_logits(logits)
    check_size(logits, height, width)
    labels = logits.new_empty((logits.shape[0], height, width), dtype=label_dtype(logits.shape[1]))
    if labels.numel() > 0:
        programs, sizes, options = _tiles(logits, height, width, sigmoid, align_corners)
        with device_of(logits):
            predict_kernel[(programs,)](logits, *logits.stride(), labels, *sizes, **options)
    return labels


def confusion_triton(
    logits: Tensor, label: Tensor, num_classes: int, sigmoid: bool, align_corners: bool, ignore_index: int
) -> Tensor:
    """The kernel of ``ciss_fast::confusion``. Labels that are no class are not counted, as if they were ignored."""
    check_logits(logits)
    check_label(logits, label)
    check_num_classes(logits, num_classes)
    counts = logits.new_zeros((num_classes, num_classes), dtype=torch.int64)
    if label.numel() > 0:
        programs, sizes, options = _tiles(logits, *label.shape[1:], sigmoid, align_corners)
        with device_of(logits):
            confusion_kernel[(programs,)](
                *(logits, *logits.stride(), label, *label.stride(), counts, num_classes, ignore_index),
                *sizes,
                **options,
            )
    return counts


def _tiles(
    logits: Tensor, label_height: int, label_width: int, sigmoid: bool, align_corners: bool
) -> tuple[int, tuple[int, ...], dict]:
    """Number of programs, the kernels' sizes, their compile-time options."""
    batch, classes, height, width = logits.shape
    # A tile's rows lie within one step between source rows, and so read three of them at most.
    step = (label_height - 1) / max(height - 1, 1) if align_corners else label_height / height
    rows = (
        power_of_two_up_to(max(1, min(MOST_ROWS, int(step))))
        if height > 1
        else power_of_two_from(min(MOST_ROWS, label_height))
    )
    columns = min(MOST_COLUMNS, power_of_two_from(label_width))
    column_tiles, row_tiles = -(-label_width // columns), -(-label_height // rows)
    bits = max(position_bits(height, label_height), position_bits(width, label_width))
    sizes = (classes, height, width, label_height, label_width, column_tiles, row_tiles)
    options = {
        "SIGMOID": sigmoid,
        "ALIGN_CORNERS": align_corners,
        "ROWS": rows,
        "COLUMNS": columns,
        "REAL": tl.float64 if logits.dtype == torch.float64 else tl.float32,
        "INDEX": tl.int32 if bits == 32 else tl.int64,
        "num_warps": max(1, columns // 32),
        **OPTIONS,
    }
    return batch * row_tiles * column_tiles, sizes, options
