"""The pass over the logits where they are enlarged: a program, one warp, takes a cell and a block of classes.

See `..triton_cells` for cells. A lane has a class and goes through the cell's pixels or quadrature nodes, for sums of
the gradient times 1, t, s and s t, t and s being the weights of the right and the lower corners: the gradient of the
four corners. Old classes, which are distilled, and those that follow labels are launched apart.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_cells import CORNERS, corner_nodes, piece, rows_of_table, store_corners
from .triton_nodes import change_along, line_across, logits_at, middle_of, node, rule_of
from .triton_terms import AC, KD, MBCE, SUMS, distillation, new_class_of, softplus_and_sigmoid

_SIZES = (
    "classes", "first_new", "ignore_index", "skipped", "height", "width", "label_height", "label_width",
    "column_pieces", "row_cuts", "column_cuts", "pitch",
)  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def loss_of_cells(
    student, teacher, label, rules, sums, partial,
    classes, first_new, ignore_index, skipped, positive_weight, of_mbce, of_kd, of_ac,
    height, width, label_height, label_width, column_pieces, row_cuts, column_cuts, pitch,
    label_image, label_row, label_column,
    DISTILS: tl.constexpr, ALIGN_CORNERS: tl.constexpr, GRADIENT: tl.constexpr, CLASSES: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Sums [images, blocks, cells, 4] of the terms and the gradient [images, cells, 4, pitch].

    ``student``, ``teacher``: tables of logits. DISTILS: of old classes, otherwise of channel 0 and of new classes;
    ``skipped`` blocks between those two have neither. ``of_mbce``, ``of_kd``, ``of_ac``: weights of the terms over the
    number of pixels.
    """
    image, block, cell = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0)
    row_piece, column_piece = cell // column_pieces, cell % column_pieces
    if WIDE:
        row_piece, column_piece = row_piece.to(tl.int64), column_piece.to(tl.int64)
    first_row, rows, top, bottom = piece(row_piece, height, label_height, row_cuts, ALIGN_CORNERS)
    first_column, columns, left, right = piece(column_piece, width, label_width, column_cuts, ALIGN_CORNERS)
    nodes = corner_nodes(image, top, bottom, left, right, height, width)
    along, along_change = middle_of(first_column, columns, left, right, width, label_width, ALIGN_CORNERS)
    down, down_change = middle_of(first_row, rows, top, bottom, height, label_height, ALIGN_CORNERS)
    first = (block + tl.where(block > 0, skipped, 0)) * CLASSES
    c = first + tl.arange(0, CLASSES)
    own = logits_at(rows_of_table(student, nodes, pitch), c)
    is_new = (c >= first_new) & (c < classes)
    if DISTILS:
        inside, differs, weight_of_term = (c > 0) & (c < first_new), 0, of_kd
        its = logits_at(rows_of_table(teacher, nodes, pitch), c)
    else:
        inside, weight_of_term = is_new | (c == 0), tl.where(is_new, of_mbce, of_ac)
        # The new class that all pixels show, or 0; where it differs between pixels, in this block, pixels are nodes.
        label += image * label_image + first_row.to(tl.int64) * label_row + first_column.to(tl.int64) * label_column
        row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
        present = (row < rows) & (column < columns)
        y = tl.load(label + row.to(tl.int64) * label_row + column.to(tl.int64) * label_column, mask=present, other=0)
        y = new_class_of(y, classes, first_new, ignore_index)
        y = tl.where((y >= first) & (y < first + CLASSES), y, 0)
        shown = tl.max(tl.max(y, 1))
        differs = tl.max(tl.max(tl.where(present & (y != shown), 1, 0), 1))
    change_x, change_y = change_along(own, 1, 2, inside), change_along(own, 2, 1, inside)
    if DISTILS:
        change_x = tl.maximum(change_x, change_along(its, 1, 2, inside))
        change_y = tl.maximum(change_y, change_along(its, 2, 1, inside))
    column_nodes, column_rule = rule_of(rules, columns, along_change * change_x, differs)
    row_nodes, row_rule = rule_of(rules, rows, down_change * change_y, differs)

    zero = tl.zeros([CLASSES], tl.float32)
    plain, right_sum, lower, both, value = zero, zero, zero, zero, zero
    for j in range(row_nodes):
        position, row_weight = node(row_rule, j, row_nodes, rows)
        s = down + position * down_change
        own_left, own_change = line_across(own, s)
        if DISTILS:
            its_left, its_change = line_across(its, s)
        line, moment = zero, zero
        for i in range(column_nodes):
            position, weight = node(column_rule, i, column_nodes, columns)
            t = along + position * along_change
            z = own_left + t * own_change
            if DISTILS:
                loss, g = distillation(z, its_left + t * its_change)
            else:
                of_pixel = tl.load(label + j * label_row + i * label_column, mask=differs != 0, other=0)
                of_pixel = tl.where(differs != 0, new_class_of(of_pixel, classes, first_new, ignore_index), shown)
                # A positive pixel's loss is w softplus(-z), another's softplus(z).
                positive = is_new & (c == of_pixel)
                softplus, sigmoid = softplus_and_sigmoid(tl.where(positive, -z, z))
                factor = tl.where(positive, positive_weight, 1.0)
                loss, g = factor * softplus, tl.where(positive, -factor, factor) * sigmoid
            value += row_weight * weight * loss
            line += weight * g
            moment += t * weight * g
        plain += row_weight * line
        right_sum += row_weight * moment
        lower += s * row_weight * line
        both += s * row_weight * moment
    if GRADIENT:
        w = weight_of_term
        place = partial + (image * tl.num_programs(0) + cell) * CORNERS * pitch + c
        store_corners(place, pitch, inside, w * plain, w * right_sum, w * lower, w * both, False, False)
    value = tl.where(inside, value, 0.0)
    term = tl.arange(0, SUMS)
    if DISTILS:
        found = tl.where(term == KD, tl.sum(value), 0.0)
    else:
        of_auxiliary = tl.sum(tl.where(is_new, 0.0, value))
        found = tl.where(term == MBCE, tl.sum(tl.where(is_new, value, 0.0)), tl.where(term == AC, of_auxiliary, 0.0))
    tl.store(sums + ((image * tl.num_programs(1) + block) * tl.num_programs(0) + cell) * SUMS + term, found)
