"""The softmax loss on Triton: buffers, grids and the order of the kernels. No value is read back to the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from ...triton_runtime import OPTIONS, device_of
from ..loss_operator import empty_gradient
from ..tensors import check_label_values, check_single_precision
from ..triton_launches import MOST_ADDED, added, fold_pixels, is_wide, poison_all, rows_of_search, search
from .options import TERMS
from .triton_kernels import count_regions, finish, make_coefficients
from .triton_pixels import loss_of_pixels
from .triton_terms import COLUMNS, LOG2_E, POISON, SUMS

_COUNTED = 1024  # pixels a block of `count_regions`
_COUNTED_BLOCKS = 8
_PIXELS = 256  # of a program of `loss_of_pixels`


@dataclass(frozen=True)
class Call:
    """A call's tensors and options; `wide`: whether a number of a pixel or a position may not fit in 32 bits."""

    student: Tensor
    teacher: Tensor | None
    label: Tensor
    old_classes: int
    weights: dict[str, float]
    averages: dict[str, int]
    kd_region: int
    alpha: float
    ignore_index: int
    align_corners: bool
    need_gradient: bool

    @property
    def wide(self) -> bool:
        return is_wide(self.student, self.label)

    @property
    def enlarged(self) -> bool:
        return self.student.shape[2:] != self.label.shape[1:]

    def active(self, *terms: str) -> bool:
        """Whether one of the terms is asked for."""
        return any(self.weights[term] != 0 for term in terms)


def softmax_loss(
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    old_classes: int,
    weights: list[float],
    averages: list[int],
    kd_region: int,
    alpha: float,
    ignore_index: int,
    align_corners: bool,
    check_labels: bool,
    need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``ciss_fast::softmax_loss`` with checked arguments: total, values, pixels, gradient.

    Labels on a GPU are not checked, which would mean to wait for it: wrong ones count as ignored.
    """
    check_single_precision("softmax_loss", student, teacher)
    if check_labels and not label.is_cuda:
        check_label_values(label, student.shape[1], ignore_index)
    call = Call(
        student,
        teacher,
        label,
        old_classes,
        dict(zip(TERMS, weights, strict=True)),
        dict(zip(TERMS, averages, strict=True)),
        kd_region,
        alpha,
        ignore_index,
        align_corners,
        need_gradient,
    )
    gradient = empty_gradient(student, need_gradient)
    total = student.new_empty((), dtype=torch.float32)
    values = student.new_empty(len(TERMS), dtype=torch.float32)
    pixels = student.new_empty(4, dtype=torch.int64)
    if label.numel() == 0:
        return total.zero_(), values.zero_(), pixels.zero_(), gradient.zero_()
    with device_of(student):
        coefficients, divisors = _coefficients(call, pixels)
        poison = student.new_empty((), dtype=torch.float32)
        sums, pixel_gradient = _pass_over_pixels(call, coefficients, gradient)
        _finish(call, sums, divisors, values, total, poison)
        if need_gradient and call.enlarged:
            fold_pixels(pixel_gradient, gradient, poison, align_corners, call.wide)
        elif need_gradient:
            poison_all(gradient, poison)
    return total, values, pixels, gradient


def _coefficients(call: Call, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The table of coefficients by region and the divisors of the terms; fills ``pixels``."""
    label, student = call.label, call.student
    batch, rows, columns = label.shape
    programs = triton.cdiv(rows * columns, _COUNTED * _COUNTED_BLOCKS)
    counts = student.new_empty((batch, programs, 8), dtype=torch.int32)
    count_regions[(programs, batch)](
        label, counts, student.shape[1], call.old_classes, call.ignore_index, rows * columns, columns, *label.stride(),
        PIXELS=_COUNTED, BLOCKS=_COUNTED_BLOCKS, WIDE=call.wide, num_warps=4, **OPTIONS,
    )  # fmt: skip
    coefficients = student.new_empty((5, COLUMNS.value), dtype=torch.float32)
    divisors = student.new_empty(len(TERMS), dtype=torch.float32)
    make_coefficients[(1,)](
        counts, pixels, coefficients, divisors, batch * programs, call.old_classes,
        *call.weights.values(), *call.averages.values(), call.kd_region, BLOCK=128, num_warps=4, **OPTIONS,
    )  # fmt: skip
    return coefficients, divisors


def _pass_over_pixels(call: Call, coefficients: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of sums, and the gradient at every pixel: the gradient itself where the logits are at label size."""
    student, teacher, label = call.student, call.teacher, call.label
    batch, classes, height, width = student.shape
    rows, columns = label.shape[1:]
    programs = triton.cdiv(rows * columns, _PIXELS)
    # At label size the pass itself reads every logit.
    searched = [x for x in (student, teacher) if x is not None and call.enlarged]
    sums = student.new_empty((batch * programs + sum(map(rows_of_search, searched)), SUMS.value), dtype=torch.float32)
    pixel_gradient = gradient
    if call.need_gradient and call.enlarged:
        pixel_gradient = student.new_empty((batch, classes, rows, columns), dtype=torch.float32)
    loss_of_pixels[(programs, batch)](
        student, student if teacher is None else teacher, label, coefficients, sums, pixel_gradient,
        classes, call.old_classes, call.ignore_index, call.kd_region, call.alpha * LOG2_E.value,
        height, width, rows, columns, rows * columns,
        *student.stride(), *(student if teacher is None else teacher).stride(), *label.stride(),
        *(pixel_gradient.stride() if call.need_gradient else (0, 0, 0, 0)),
        ENLARGED=call.enlarged,
        ALIGN_CORNERS=call.align_corners,
        GRADIENT=call.need_gradient,
        HAS_LOG_OLD=call.old_classes > 0 and call.active("cce", "kd"),
        HAS_TEACHER=teacher is not None and call.active("kd", "ckd", "ali"),
        HAS_CKD=call.active("ckd"),
        HAS_FOCAL=call.active("focal"),
        HAS_PSEUDO_LABEL=teacher is not None and call.active("focal"),
        PIXELS=_PIXELS, CLASSES=4 if call.enlarged else 8,  # four logits a class are read where enlarged
        WIDE=call.wide, num_warps=4, **OPTIONS,
    )  # fmt: skip
    row = batch * programs
    for logits in searched:
        search(logits, sums[row:], POISON.value)
        row += rows_of_search(logits)
    return sums, pixel_gradient


def _finish(call: Call, sums: Tensor, divisors: Tensor, values: Tensor, total: Tensor, poison: Tensor) -> None:
    rows = added(sums, POISON.value + 1)
    finish[(1,)](
        rows, divisors, values, total, poison, rows.shape[0], *call.weights.values(),
        BLOCK=MOST_ADDED, num_warps=4, **OPTIONS,
    )  # fmt: skip
