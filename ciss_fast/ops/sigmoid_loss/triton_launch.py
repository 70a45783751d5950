"""The sigmoid loss on Triton: buffers, grids and the order of the kernels. No value is read back to the host."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ...triton_runtime import OPTIONS, device_of
from ..loss_operator import empty_gradient
from ..tensors import check_label_values, check_single_precision
from ..triton_launches import MOST_ADDED, added, fold_pixels, is_wide, poison_all, rows_of_search, search
from .options import TERMS
from .triton_kernels import POISON, SUMS, finish, loss_of_pixels

_PIXELS, _CLASSES = 256, 4  # of a program


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
    """``ciss_fast::sigmoid_loss`` with checked arguments: total, values, gradient. ``teacher``: None if not read.

    Labels on a GPU are not checked, which would mean to wait for it: wrong ones are negatives for every class.
    """
    check_single_precision("sigmoid_loss", student, teacher)
    if check_labels and not label.is_cuda:
        check_label_values(label, student.shape[1], ignore_index)
    gradient = empty_gradient(student, need_gradient)
    total = student.new_empty((), dtype=torch.float32)
    values = student.new_empty(len(TERMS), dtype=torch.float32)
    if label.numel() == 0:
        return total.zero_(), values.zero_(), gradient.zero_()
    batch, classes, height, width = student.shape
    rows, columns = label.shape[1:]
    is_enlarged, wide = student.shape[2:] != label.shape[1:], is_wide(student, label)
    programs = triton.cdiv(rows * columns, _PIXELS)
    # At label size the pass itself reads every logit.
    searched = [x for x in (student, None if teacher is None else teacher[:, 1:]) if x is not None and is_enlarged]
    sums = student.new_empty((batch * programs + sum(map(rows_of_search, searched)), SUMS.value), dtype=torch.float32)
    pixel_gradient = gradient
    if need_gradient and is_enlarged:
        pixel_gradient = student.new_empty((batch, classes, rows, columns), dtype=torch.float32)
    poison = student.new_empty((), dtype=torch.float32)
    with device_of(student):
        loss_of_pixels[(programs, batch)](
            student, student if teacher is None else teacher, label, sums, pixel_gradient,
            classes, 1 + old_classes, ignore_index, pos_weight, *(w / label.numel() for w in weights),
            height, width, rows, columns, rows * columns,
            *student.stride(), *(student if teacher is None else teacher).stride(), *label.stride(),
            *(pixel_gradient.stride() if need_gradient else (0, 0, 0, 0)),
            ENLARGED=is_enlarged, ALIGN_CORNERS=align_corners, GRADIENT=need_gradient,
            HAS_TEACHER=teacher is not None, PIXELS=_PIXELS, CLASSES=_CLASSES, WIDE=wide, num_warps=4, **OPTIONS,
        )  # fmt: skip
        row = batch * programs
        for logits in searched:
            search(logits, sums[row:], POISON.value)
            row += rows_of_search(logits)
        partial = added(sums, SUMS.value)
        finish[(1,)](
            partial, values, total, poison, partial.shape[0], float(label.numel()), *weights,
            BLOCK=MOST_ADDED, num_warps=4, **OPTIONS,
        )  # fmt: skip
        if need_gradient and is_enlarged:
            fold_pixels(pixel_gradient, gradient, poison, align_corners, wide)
        elif need_gradient:
            poison_all(gradient, poison)
    return total, values, gradient
