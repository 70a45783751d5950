"""The sigmoid loss on Triton: buffers, grids and the order of the kernels. No value is read back to the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from ...triton_runtime import OPTIONS, device_of
from ..gauss_rule import rule_entries
from ..loss_operator import empty_gradient
from ..tensors import check_label_values, check_single_precision
from ..triton_launches import (
    LONGEST_PIECE,
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
from .triton_kernels import finish
from .triton_nodes import ENTRIES, store_rules
from .triton_pixels import loss_of_pixels
from .triton_terms import POISON, SUMS

_PIXELS, _CLASSES = 256, 4  # of a program at label size
_BLOCK = 32  # classes of a program's cell


@dataclass(frozen=True)
class Call:
    """A call's tensors and options; ``teacher``: None if not read."""

    student: Tensor
    teacher: Tensor | None
    label: Tensor
    first_new: int
    weights: list[float]
    pos_weight: float
    ignore_index: int
    align_corners: bool
    need_gradient: bool

    @property
    def options(self) -> tuple[float, ...]:
        """Arguments of kernels: the factor on positives, the terms' weights over the number of pixels."""
        return self.pos_weight, *(weight / self.label.numel() for weight in self.weights)

    @property
    def wide(self) -> bool:
        """Whether a number of a pixel or a position may not fit in 32 bits."""
        return is_wide(self.student, self.label)


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
    check_batch("sigmoid_loss", student)
    if check_labels and not label.is_cuda:
        check_label_values(label, student.shape[1], ignore_index)
    gradient = empty_gradient(student, need_gradient)
    total = student.new_empty((), dtype=torch.float32)
    values = student.new_empty(len(TERMS), dtype=torch.float32)
    if label.numel() == 0:
        return total.zero_(), values.zero_(), gradient.zero_()
    call = Call(
        student, teacher, label, 1 + old_classes, weights, pos_weight, ignore_index, align_corners, need_gradient
    )
    poison = student.new_empty((), dtype=torch.float32)
    with device_of(student):
        if student.shape[2:] == label.shape[1:]:
            _finish(call, _pass_over_pixels(call, gradient), values, total, poison)
            if need_gradient:
                poison_all(gradient, poison)
        else:
            cells = Cells.of(student, label, align_corners)
            sums, partial = _pass_over_cells(call, cells)
            _finish(call, sums, values, total, poison)
            if need_gradient:
                unread = (1, call.first_new) if teacher is None else (0, 0)
                gather(partial, gradient, poison, label, cells, align_corners, call.wide, unread)
    return total, values, gradient


def _pass_over_pixels(call: Call, gradient: Tensor) -> Tensor:
    """Rows of sums, for logits at label size; fills ``gradient``."""
    student, label = call.student, call.label
    teacher = student if call.teacher is None else call.teacher
    batch, classes, height, width = student.shape
    programs = triton.cdiv(height * width, _PIXELS)
    sums = student.new_empty((batch * programs, SUMS.value), dtype=torch.float32)
    loss_of_pixels[(programs, batch)](
        student, teacher, label, sums, gradient,
        classes, call.first_new, call.ignore_index, *call.options, width, height * width,
        *student.stride(), *teacher.stride(), *label.stride(),
        *(gradient.stride() if call.need_gradient else (0, 0, 0, 0)),
        GRADIENT=call.need_gradient, HAS_TEACHER=call.teacher is not None,
        PIXELS=_PIXELS, CLASSES=_CLASSES, WIDE=call.wide, num_warps=8, **OPTIONS,
    )  # fmt: skip
    return sums


def _pass_over_cells(call: Call, cells: Cells) -> tuple[Tensor, Tensor]:
    """Rows of sums and the cells' partial gradients, for logits of another size than the labels'."""
    student, teacher = call.student, call.teacher
    classes = student.shape[1]
    table = table_of(student, cells)
    teacher_table = table if teacher is None else table_of(teacher, cells, first_class=1)
    rules = _rules(call, cells)
    # Blocks of classes: those with old classes, if they are distilled; the one with channel 0, those with new classes.
    distilled = 0 if teacher is None else triton.cdiv(call.first_new, _BLOCK)
    skipped = max(call.first_new // _BLOCK - 1, 0)
    following = triton.cdiv(classes, _BLOCK) - skipped
    searched = [student] if teacher is None else [student, teacher[:, 1:]]
    row = cells.batch * cells.count * (distilled + following)
    sums = student.new_empty((row + sum(map(rows_of_search, searched)), SUMS.value), dtype=torch.float32)
    partial = cells.empty_partial(student) if call.need_gradient else sums

    def launch(blocks: int, sums: Tensor, skipped: int, distils: bool) -> None:
        loss_of_cells[(cells.count, blocks, cells.batch)](
            table, teacher_table, call.label, rules, sums, partial,
            classes, call.first_new, call.ignore_index, skipped, *call.options,
            *student.shape[2:], *call.label.shape[1:], *cells.geometry, cells.pitch, *call.label.stride(),
            DISTILS=distils, ALIGN_CORNERS=call.align_corners, GRADIENT=call.need_gradient, CLASSES=_BLOCK,
            ROWS=triton.next_power_of_2(cells.rows.longest), COLUMNS=triton.next_power_of_2(cells.columns.longest),
            WIDE=call.wide, num_warps=1, **OPTIONS,
        )  # fmt: skip

    if distilled:
        launch(distilled, sums, 0, True)
    launch(following, sums[cells.batch * cells.count * distilled :], skipped, False)
    for logits in searched:
        search(logits, sums[row:], POISON.value)
        row += rows_of_search(logits)
    return sums, partial


def _rules(call: Call, cells: Cells) -> Tensor:
    """The table of quadrature rules, for the numbers of pixels that pieces have."""
    lengths = tuple(sorted({*cells.rows.lengths, *cells.columns.lengths} - {0}))
    rules = call.student.new_empty((LONGEST_PIECE + 1, ENTRIES.value), dtype=torch.float32)
    values = tuple(value for length in lengths for value in rule_entries(length))
    store_rules[(1,)](rules, LENGTHS=lengths, VALUES=values, num_warps=1, **OPTIONS)
    return rules


def _finish(call: Call, sums: Tensor, values: Tensor, total: Tensor, poison: Tensor) -> None:
    rows = added(sums, SUMS.value)
    finish[(1,)](
        rows, values, total, poison, rows.shape[0], float(call.label.numel()), *call.weights,
        BLOCK=MOST_ADDED, num_warps=4, **OPTIONS,
    )  # fmt: skip
