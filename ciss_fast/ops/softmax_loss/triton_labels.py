"""The labels' own part of ce and cce, -z_y, where logits are enlarged: linear in the logits of a cell's corners.

A program takes a cell; the sums over the pixels of a class of 1, t, s and s t (weights of the right and lower corners)
give value and gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_cells import CORNERS, corner_nodes, piece, rows_of_table, weight_of_right
from .triton_terms import CCE, CE, LABEL, SUMS, coefficient, region_of

_SIZES = (
    "classes", "old_classes", "ignore_index", "height", "width", "label_height", "label_width", "column_pieces",
    "row_cuts", "column_cuts", "pitch",
)  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def subtract_labels(
    student, label, coefficients, left_out, sums, partial,
    classes, old_classes, ignore_index, height, width, label_height, label_width,
    column_pieces, row_cuts, column_cuts, pitch, label_image, label_row, label_column,
    ALIGN_CORNERS: tl.constexpr, GRADIENT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Adds to the gradient and sums that `loss_of_cells` left, in cells that are not marked."""
    image, cell = tl.program_id(1).to(tl.int64), tl.program_id(0)
    number = image * tl.num_programs(0) + cell
    if tl.load(left_out + number) != 0:
        return
    row_piece, column_piece = cell // column_pieces, cell % column_pieces
    if WIDE:
        row_piece, column_piece = row_piece.to(tl.int64), column_piece.to(tl.int64)
    first_row, rows, top, bottom = piece(row_piece, height, label_height, row_cuts, ALIGN_CORNERS)
    first_column, columns, left, right = piece(column_piece, width, label_width, column_cuts, ALIGN_CORNERS)
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    present = (row < rows) & (column < columns)
    row, column = first_row + row, first_column + column
    down = weight_of_right(row, top, bottom, height, label_height, ALIGN_CORNERS)
    along = weight_of_right(column, left, right, width, label_width, ALIGN_CORNERS)
    place = label + image * label_image + row.to(tl.int64) * label_row + column.to(tl.int64) * label_column
    region, target, wrong = region_of(tl.load(place, mask=present, other=0), classes, old_classes, ignore_index)
    target = tl.where(present & ((region == 1) | (region == 2)), target, classes)
    corners = rows_of_table(student, corner_nodes(image, top, bottom, left, right, height, width), pitch)
    partial += number * CORNERS * pitch
    of_old, of_new = coefficient(coefficients, 1, LABEL), coefficient(coefficients, 2, LABEL)
    ce, cce = 0.0, 0.0
    # One class after the other that the cell shows: they are few.
    c = tl.min(target)
    while c < classes:
        pixels = tl.where(target == c, 1.0, 0.0)
        plain, right_sum = tl.sum(pixels), tl.sum(pixels * along)
        lower, both = tl.sum(pixels * down), tl.sum(pixels * down * along)
        weights = (plain - right_sum - lower + both, right_sum - both, lower - both, both)
        z = weights[0] * tl.load(corners[0] + c) + weights[1] * tl.load(corners[1] + c)
        z += weights[2] * tl.load(corners[2] + c) + weights[3] * tl.load(corners[3] + c)
        ce += z
        cce += tl.where(c >= old_classes, z, 0.0)
        if GRADIENT:
            factor = tl.where(c >= old_classes, of_new, of_old)
            for corner in tl.static_range(4):
                entry = partial + corner * pitch + c
                tl.store(entry, tl.load(entry) - factor * weights[corner])
        target = tl.where(target == c, classes, target)
        c = tl.min(target)
    entry = sums + number * SUMS
    tl.store(entry + CE, tl.load(entry + CE) - ce)
    tl.store(entry + CCE, tl.load(entry + CCE) - cce)
