"""Backend "cuda" of ``ciss_fast::sigmoid_loss``: memory for the results, the launch on the current stream."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import cuda_runtime
from ..loss_operator import empty_gradient, gradient_arguments
from ..tensors import check_single_precision, tensor_arguments
from .options import TERMS


def sigmoid_loss(
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    old_classes: int,
    weights: list[float],
    pos_weight: float,
    ignore_index: int,
    align_corners: bool,
    check_labels: bool,
    need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator on a GPU, for any type but float64: launches its kernels and waits for nothing.

    Labels that are no class are negatives, whether they are to be checked or not: an error would have to wait. A
    teacher that no term reads has to be None.
    """
    check_single_precision("sigmoid_loss", student, teacher)
    batch, channels, height, width = student.shape
    total = student.new_zeros((), dtype=torch.float32)
    values = student.new_zeros(len(TERMS), dtype=torch.float32)
    gradient = empty_gradient(student, need_gradient, torch.float32)
    if label.numel() == 0 or student.numel() == 0:
        return total, values, gradient.zero_()
    if old_classes == 0:  # distillation has nothing to read
        weights = [0.0 if name == "kd" else weight for name, weight in zip(TERMS, weights, strict=True)]
    with cuda_runtime.on_device(student):
        cuda_runtime.library().sigmoid_loss(
            **tensor_arguments("student", student),
            **tensor_arguments("teacher", teacher),
            **tensor_arguments("label", label),
            **gradient_arguments("gradient", gradient),
            sizes=(batch, channels, old_classes, height, width, label.shape[1], label.shape[2]),
            weights=weights,
            pos_weight=pos_weight,
            ignore_index=ignore_index,
            align_corners=align_corners,
            total=total.data_ptr(),
            values=values.data_ptr(),
            workspace=cuda_runtime.workspace_on(student.device),
            stream=cuda_runtime.stream_of(student),
        )
    return total, values, gradient
