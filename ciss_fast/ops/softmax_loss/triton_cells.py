"""The pass over the logits where they are enlarged: a program, one warp, a cell (see `..triton_cells`).

A lane has rows of the cell and every so many classes; the pixels of its lines are unrolled. Twice over the classes:
sums of exponentials, from which every pixel gets the weights of the exponentials in its gradient; then the sums of
these over the cell, which are the gradient of its four corners. A cell whose logits the sequences of `triton_lines` do
not suit is marked, for `triton_pixels` to do it again. The labels' own part of ce and cce is `triton_labels`'.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_cells import (
    CORNERS,
    change_of_weight,
    corner_nodes,
    piece,
    rows_of_table,
    store_corners,
    weight_of_right,
)
from .triton_lines import (
    SMALLEST_SUM,
    add_exponentials,
    add_teacher,
    cell_lines,
    is_wild,
    line_at,
    sums_by_pixel,
    weigh,
    weights_by_slot,
    zeros,
)
from .triton_terms import ALI, CCE, CE, CKD, KD, NO_PIXEL, SUMS, pixel_terms, region_of

_SIZES = (
    "classes", "old_classes", "ignore_index", "kd_region", "height", "width", "label_height", "label_width",
    "column_pieces", "row_cuts", "column_cuts", "pitch",
)  # fmt: skip


@triton.jit
def _store_gradient(place, pitch, inside, plain, moment, down, at_centre, change, SEVERAL: tl.constexpr, later):
    """The sums over rows of `weigh` as the corners' gradient; ``later``: on top of what earlier rows left."""
    lower, lower_moment = tl.sum(down[:, None] * plain, 0), tl.sum(down[:, None] * moment, 0)
    plain, moment = tl.sum(plain, 0), tl.sum(moment, 0)
    right, both = at_centre * plain + change * moment, at_centre * lower + change * lower_moment
    store_corners(place, pitch, inside, plain, right, lower, both, SEVERAL, later)


@triton.jit(do_not_specialize=_SIZES)
def loss_of_cells(
    student, teacher, label, coefficients, sums, partial, left_out,
    classes, old_classes, ignore_index, kd_region, height, width, label_height, label_width,
    column_pieces, row_cuts, column_cuts, pitch, label_image, label_row, label_column,
    ALIGN_CORNERS: tl.constexpr, GRADIENT: tl.constexpr, HAS_LOG_OLD: tl.constexpr, HAS_TEACHER: tl.constexpr,
    HAS_CKD: tl.constexpr, SLOTS: tl.constexpr, ROWS: tl.constexpr, SEVERAL: tl.constexpr, CLASSES: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Sums [images, cells, 8] of the terms, the gradient [images, cells, 4, pitch], marks [images, cells].

    ``student``, ``teacher``: tables of logits times log2(e), less the largest of each node.
    """
    MIDDLE: tl.constexpr = SLOTS // 2
    image, cell = tl.program_id(1).to(tl.int64), tl.program_id(0)
    row_piece, column_piece = cell // column_pieces, cell % column_pieces
    if WIDE:
        row_piece, column_piece = row_piece.to(tl.int64), column_piece.to(tl.int64)
    first_row, rows, top, bottom = piece(row_piece, height, label_height, row_cuts, ALIGN_CORNERS)
    first_column, columns, left, right = piece(column_piece, width, label_width, column_cuts, ALIGN_CORNERS)
    middle = first_column + columns // 2
    at_centre = weight_of_right(middle, left, right, width, label_width, ALIGN_CORNERS)
    change = change_of_weight(left, right, width, label_width, ALIGN_CORNERS)
    nodes = corner_nodes(image, top, bottom, left, right, height, width)
    own, its = rows_of_table(student, nodes, pitch), rows_of_table(teacher, nodes, pitch)
    number = image * tl.num_programs(0) + cell
    label += image * label_image
    partial += number * CORNERS * pitch
    block = tl.arange(0, CLASSES)
    first_new = old_classes // CLASSES * CLASSES  # the block with the first new class may have old ones too

    none = tl.zeros([ROWS, CLASSES], tl.float32)
    ce, cce, kd, ckd, ali = none, none, none, none, none
    wild, small = tl.zeros([CLASSES], tl.int32), tl.zeros([ROWS, CLASSES], tl.int32)
    for begin in range(0, rows, ROWS):
        line = begin + tl.arange(0, ROWS)
        row = first_row + tl.minimum(line, rows - 1)
        down = weight_of_right(row, top, bottom, height, label_height, ALIGN_CORNERS)

        sum_old = zeros(none, SLOTS)
        sum_new, sum_teacher, linear = sum_old, sum_old, sum_old
        for first in range(0, old_classes, CLASSES):
            c = first + block
            lines = cell_lines(own, c, c < old_classes, at_centre, change)
            wild = tl.maximum(wild, is_wild(lines, SLOTS))
            centre, slope = line_at(lines, down)
            sum_old = add_exponentials(sum_old, centre, slope, SLOTS)
            if HAS_TEACHER:
                if HAS_CKD:  # which takes class 0 by itself
                    centre, slope = tl.where(c[None, :] == 0, 0.0, centre), tl.where(c[None, :] == 0, 0.0, slope)
                lines = cell_lines(its, c, c < old_classes, at_centre, change)
                wild = tl.maximum(wild, is_wild(lines, SLOTS))
                teacher_centre, teacher_slope = line_at(lines, down)
                sum_teacher, linear = add_teacher(
                    sum_teacher, linear, teacher_centre, teacher_slope, centre, slope, SLOTS
                )
        old_sums = sums_by_pixel(sum_old, SLOTS, CLASSES)
        if HAS_TEACHER:
            teacher_sums, products = sums_by_pixel(sum_teacher, SLOTS, CLASSES), sums_by_pixel(linear, SLOTS, CLASSES)
        for first in range(first_new, classes, CLASSES):
            c = first + block
            lines = cell_lines(own, c, (c >= old_classes) & (c < classes), at_centre, change)
            wild = tl.maximum(wild, is_wild(lines, SLOTS))
            centre, slope = line_at(lines, down)
            sum_new = add_exponentials(sum_new, centre, slope, SLOTS)
        new_sums = sums_by_pixel(sum_new, SLOTS, CLASSES)
        if HAS_CKD:
            zeroth = tl.arange(0, 1)
            background, background_slope = line_at(cell_lines(own, zeroth, zeroth == 0, at_centre, change), down)
            its_background, its_slope = line_at(cell_lines(its, zeroth, zeroth == 0, at_centre, change), down)

        # The pixels, CLASSES slots at a time in the place of the classes; weights of their exponentials.
        begin_slot = MIDDLE - columns // 2
        end_slot = begin_slot + columns
        of_old, of_new, of_teacher = (), (), ()
        of_background, of_background_moment = none, none
        for part in tl.static_range((SLOTS + CLASSES - 1) // CLASSES):
            weight_old, weight_new, weight_teacher = none, none, none
            if (part * CLASSES < end_slot) & ((part + 1) * CLASSES > begin_slot):
                slot = part * CLASSES + block[None, :]
                column = middle + slot - MIDDLE
                present = (slot >= begin_slot) & (slot < end_slot) & (line < rows)[:, None]
                place = row.to(tl.int64)[:, None] * label_row + column.to(tl.int64) * label_column
                y = tl.load(label + place, mask=present, other=0)
                region, target, wrong = region_of(y, classes, old_classes, ignore_index)
                region = tl.where(present, region, NO_PIXEL)
                old, new = old_sums[part], new_sums[part]
                too_small = old + new < SMALLEST_SUM
                inverse, product, z_background, p_background, its_product = none, none, none, none, none
                if HAS_LOG_OLD:
                    too_small = too_small | (old < SMALLEST_SUM)
                if HAS_TEACHER:
                    too_small = too_small | (teacher_sums[part] < SMALLEST_SUM)
                    inverse = 1.0 / teacher_sums[part]
                    product = inverse * products[part]
                if HAS_CKD:
                    z_background = background + (slot - MIDDLE) * background_slope
                    too_small = too_small | (tl.exp2(z_background) + new < SMALLEST_SUM)
                    p_background = inverse * tl.exp2(its_background + (slot - MIDDLE) * its_slope)
                    its_product = p_background * z_background
                small = tl.maximum(small, tl.where(present & too_small, 1, 0))
                its_ce, its_cce, its_kd, its_ckd, its_ali, focal, factor_old, factor_new, pull, extra, o = pixel_terms(
                    coefficients, region, kd_region, none, old, none, new, none, z_background, p_background, product,
                    its_product, HAS_LOG_OLD, HAS_TEACHER, HAS_CKD, False,
                )  # fmt: skip
                ce, cce, kd, ckd, ali = ce + its_ce, cce + its_cce, kd + its_kd, ckd + its_ckd, ali + its_ali
                weight_old, weight_new = tl.where(present, factor_old, 0.0), tl.where(present, factor_new, 0.0)
                weight_teacher = tl.where(present, pull * inverse, 0.0)
                if HAS_CKD:
                    extra = tl.where(present, extra, 0.0)
                    of_background += extra
                    of_background_moment += (slot - MIDDLE) * extra
            of_old, of_new = of_old + (weight_old,), of_new + (weight_new,)
            of_teacher = of_teacher + (weight_teacher,)

        if GRADIENT:
            of_old, of_new = weights_by_slot(of_old, SLOTS, CLASSES), weights_by_slot(of_new, SLOTS, CLASSES)
            if HAS_TEACHER:
                of_teacher = weights_by_slot(of_teacher, SLOTS, CLASSES)
            if HAS_CKD:
                extra_plain = tl.sum(of_background, 1)[:, None]
                extra_moment = tl.sum(of_background_moment, 1)[:, None]
            for first in range(0, old_classes, CLASSES):
                c = first + block
                inside = c < old_classes
                centre, slope = line_at(cell_lines(own, c, inside, at_centre, change), down)
                plain, moment = weigh(of_old, centre, slope, SLOTS)
                if HAS_TEACHER:
                    centre, slope = line_at(cell_lines(its, c, inside, at_centre, change), down)
                    less, moment_less = weigh(of_teacher, centre, slope, SLOTS)
                    plain, moment = plain - less, moment - moment_less
                if HAS_CKD:
                    plain += tl.where(c[None, :] == 0, extra_plain, 0.0)
                    moment += tl.where(c[None, :] == 0, extra_moment, 0.0)
                _store_gradient(partial + c, pitch, inside, plain, moment, down, at_centre, change, SEVERAL, begin > 0)
            for first in range(first_new, classes, CLASSES):
                c = first + block
                inside = (c >= old_classes) & (c < classes)
                centre, slope = line_at(cell_lines(own, c, inside, at_centre, change), down)
                plain, moment = weigh(of_new, centre, slope, SLOTS)
                _store_gradient(partial + c, pitch, inside, plain, moment, down, at_centre, change, SEVERAL, begin > 0)
            if SEVERAL:
                tl.debug_barrier()  # the next rows add to what these have stored
    tl.store(left_out + number, tl.maximum(tl.max(wild), tl.max(tl.max(small, 0))))
    out = sums + number * SUMS
    term = tl.arange(0, SUMS)
    row_of_sums = tl.where(term == CE, tl.sum(ce), 0.0) + tl.where(term == CCE, tl.sum(cce), 0.0)
    row_of_sums += tl.where(term == KD, tl.sum(kd), 0.0) + tl.where(term == CKD, tl.sum(ckd), 0.0)
    tl.store(out + term, row_of_sums + tl.where(term == ALI, tl.sum(ali), 0.0))
