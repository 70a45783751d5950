"""The softmax loss on Triton: buffers, grids and the order of the kernels. No value is read back to the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from ...triton_runtime import OPTIONS, device_of
from ..loss_operator import empty_gradient
from ..tensors import check_label_values, check_single_precision
from ..triton_launches import (
    MOST_ADDED,
    Cells,
    added,
    check_batch,
    gather,
    is_wide,
    poison_all,
    rows_of_search,
    search,
    table_of,
)
from .options import TERMS
from .triton_cells import loss_of_cells
from .triton_kernels import count_regions, finish, make_coefficients
from .triton_labels import subtract_labels
from .triton_pixels import loss_of_pixels
from .triton_terms import COLUMNS, LOG2_E, POISON, SUMS

_COUNTED = 1024  # pixels a block of `count_regions`
_COUNTED_BLOCKS = 8
_PIXELS = 256  # of a program of `loss_of_pixels`
_ROWS, _CLASSES = 16, 4  # the most rows of a cell, and classes for so many, at a time in `loss_of_cells`


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
    def has_log_old(self) -> bool:
        return self.old_classes > 0 and self.active("cce", "kd")

    @property
    def has_teacher(self) -> bool:
        return self.teacher is not None and self.active("kd", "ckd", "ali")

    @property
    def has_focal(self) -> bool:
        return self.active("focal")

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
    check_batch("softmax_loss", student)
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
        if student.shape[2:] == label.shape[1:]:
            sums = _pass_over_pixels(call, coefficients, gradient)
            _finish(call, sums, divisors, values, total, poison)
            if need_gradient:
                poison_all(gradient, poison)
        else:
            cells = Cells.of(student, label, align_corners)
            sums, partial = _pass_over_cells(call, cells, coefficients)
            _finish(call, sums, divisors, values, total, poison)
            if need_gradient:
                gather(partial, gradient, poison, label, cells, align_corners, call.wide)
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


def _pass_over_pixels(call: Call, coefficients: Tensor, gradient: Tensor) -> Tensor:
    """Rows of sums, for logits at label size; fills ``gradient``."""
    programs = triton.cdiv(call.label.shape[1] * call.label.shape[2], _PIXELS)
    sums = call.student.new_empty((call.student.shape[0] * programs, SUMS.value), dtype=torch.float32)
    _launch_pixels(call, coefficients, sums, gradient, (programs, _PIXELS, 8, 8))
    return sums


def _pass_over_cells(call: Call, cells: Cells, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of sums and the cells' partial gradients, for logits of another size than the labels'."""
    student, teacher = call.student, call.teacher
    searched = [x for x in (student, teacher) if x is not None]
    row = cells.batch * cells.count
    sums = student.new_empty((row + sum(map(rows_of_search, searched)), SUMS.value), dtype=torch.float32)
    partial = cells.empty_partial(student) if call.need_gradient else sums
    # Sequences pay from two pixels on, and know nothing of empty cells; the focal term wants every pixel's logits.
    left_out = None
    if min(cells.rows.lengths[0], cells.columns.lengths[0]) >= 1 and cells.columns.longest >= 2 and not call.has_focal:
        left_out = _launch_cells(call, cells, coefficients, sums, partial)
    pixels = triton.next_power_of_2(cells.rows.longest * cells.columns.longest)
    classes, warps = max(4, min(32, 256 // pixels)), max(1, min(8, pixels // 32))
    _launch_pixels(call, coefficients, sums, partial, (cells.count, pixels, classes, warps), cells, left_out)
    for logits in searched:
        search(logits, sums[row:], POISON.value)
        row += rows_of_search(logits)
    return sums, partial


def _launch_cells(call: Call, cells: Cells, coefficients: Tensor, sums: Tensor, partial: Tensor) -> Tensor:
    """The cells that sequences suit; returns the marks of the others."""
    student, label = call.student, call.label
    table = table_of(student, cells, LOG2_E.value, shifted=True)
    teacher_table = table
    if call.has_teacher:
        teacher_table = table_of(call.teacher, cells, call.alpha * LOG2_E.value, shifted=True)
    left_out = student.new_empty((cells.batch, cells.count), dtype=torch.int32)
    sizes = (*student.shape[2:], *label.shape[1:], *cells.geometry, cells.pitch, *label.stride())
    rows = min(triton.next_power_of_2(cells.rows.longest), _ROWS)
    loss_of_cells[(cells.count, cells.batch)](
        table, teacher_table, label, coefficients, sums, partial, left_out,
        student.shape[1], call.old_classes, call.ignore_index, call.kd_region, *sizes,
        ALIGN_CORNERS=call.align_corners, GRADIENT=call.need_gradient, HAS_LOG_OLD=call.has_log_old,
        HAS_TEACHER=call.has_teacher, HAS_CKD=call.active("ckd"), SLOTS=cells.columns.longest, ROWS=rows,
        SEVERAL=cells.rows.longest > rows,
        CLASSES=_ROWS // rows * _CLASSES, WIDE=call.wide, num_warps=1, **OPTIONS,
    )  # fmt: skip
    tile = [triton.next_power_of_2(axis.longest) for axis in (cells.rows, cells.columns)]
    subtract_labels[(cells.count, cells.batch)](
        table, label, coefficients, left_out, sums, partial, student.shape[1], call.old_classes, call.ignore_index,
        *sizes, ALIGN_CORNERS=call.align_corners, GRADIENT=call.need_gradient,
        ROWS=tile[0], COLUMNS=tile[1], WIDE=call.wide, num_warps=1 if tile[0] * tile[1] <= 256 else 4, **OPTIONS,
    )  # fmt: skip
    return left_out


def _launch_pixels(
    call: Call,
    coefficients: Tensor,
    sums: Tensor,
    gradient: Tensor,
    shape: tuple[int, int, int, int],
    cells: Cells | None = None,
    chosen: Tensor | None = None,
) -> None:
    """``shape``: programs, pixels and classes of a block, warps; ``chosen``: marks of the cells to take."""
    student, teacher, label = call.student, call.teacher, call.label
    classes, height, width = student.shape[1:]
    rows, columns = label.shape[1:]
    programs, pixels, block, warps = shape
    of_cells = (*cells.geometry, cells.pitch) if cells is not None else None
    loss_of_pixels[(programs, student.shape[0])](
        student, student if teacher is None else teacher, label, coefficients, sums, gradient,
        label if chosen is None else chosen,
        classes, call.old_classes, call.ignore_index, call.kd_region, call.alpha * LOG2_E.value,
        height, width, rows, columns, rows * columns, *(of_cells or (1, 1, 1, 0)),
        *student.stride(), *(student if teacher is None else teacher).stride(), *label.stride(),
        *(gradient.stride() if call.need_gradient else (0, 0, 0, 0)),
        CELLS=cells is not None, CHOSEN=chosen is not None,
        ALIGN_CORNERS=call.align_corners, GRADIENT=call.need_gradient, HAS_LOG_OLD=call.has_log_old,
        HAS_TEACHER=call.has_teacher, HAS_CKD=call.active("ckd"), HAS_FOCAL=call.has_focal,
        HAS_PSEUDO_LABEL=teacher is not None and call.has_focal,
        PIXELS=pixels, CLASSES=block, WIDE=call.wide, num_warps=warps, **OPTIONS,
    )  # fmt: skip


def _finish(call: Call, sums: Tensor, divisors: Tensor, values: Tensor, total: Tensor, poison: Tensor) -> None:
    rows = added(sums, POISON.value + 1)
    finish[(1,)](
        rows, divisors, values, total, poison, rows.shape[0], *call.weights.values(),
        BLOCK=MOST_ADDED, num_warps=4, **OPTIONS,
    )  # fmt: skip
