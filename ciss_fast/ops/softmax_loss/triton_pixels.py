"""The pass over the logits pixel by pixel and with explicit maxima: the softmax loss in its plainest form.

Serves logits at label size: a program takes a run of pixels of an image. With CELLS a program takes a cell (see
`..triton_cells`) and sums its pixels' gradient up to that of the corners: for all cells, or those that `triton_cells`
has left out. Classes come in blocks: once for the sums, once more for the gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_cells import CORNERS, piece, store_corners, weight_of_right
from .triton_terms import (
    ALI,
    CCE,
    CE,
    CKD,
    FOCAL_TERM,
    KD,
    LOG2_E,
    LOWEST,
    NO_PIXEL,
    POISON,
    SUMS,
    pixel_terms,
    region_of,
)  # fmt: skip

_SIZES = (
    "classes", "old_classes", "ignore_index", "kd_region", "height", "width", "label_height", "label_width",
    "label_pixels", "column_pieces", "row_cuts", "column_cuts", "pitch",
)  # fmt: skip


@triton.jit
def _add_exponentials(maximum, total, z):
    """``maximum`` and sum of 2^(z - maximum) of pixels, with a block [classes, pixels] of logits more."""
    highest = tl.maximum(maximum, tl.max(z, 0))
    return highest, total * tl.exp2(maximum - highest) + tl.sum(tl.exp2(z - highest[None, :]), 0)


@triton.jit
def _logits_at(base, classes, inside, present, taps, down, along, CELLS: tl.constexpr):
    """Logits [classes, pixels] as float32; ``classes``: offsets of channels, [n, 1] or [1, pixels].

    ``taps``: offsets of a cell's corners in a plane, or of the pixels [1, pixels] themselves.
    """
    if CELLS:
        top = tl.load(base + classes + taps[0], mask=inside, other=0.0).to(tl.float32)
        top_right = tl.load(base + classes + taps[1], mask=inside, other=0.0).to(tl.float32)
        bottom = tl.load(base + classes + taps[2], mask=inside, other=0.0).to(tl.float32)
        bottom_right = tl.load(base + classes + taps[3], mask=inside, other=0.0).to(tl.float32)
        top = top + along * (top_right - top)
        bottom = bottom + along * (bottom_right - bottom)
        return top + down * (bottom - top)
    return tl.load(base + classes + taps[0], mask=inside & present, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=_SIZES)
def loss_of_pixels(
    student, teacher, label, coefficients, sums, gradient, chosen,
    classes, old_classes, ignore_index, kd_region, teacher_scale, height, width, label_height, label_width,
    label_pixels, column_pieces, row_cuts, column_cuts, pitch,
    student_image, student_class, student_row, student_column,
    teacher_image, teacher_class, teacher_row, teacher_column,
    label_image, label_row, label_column,
    gradient_image, gradient_class, gradient_row, gradient_column,
    CELLS: tl.constexpr, CHOSEN: tl.constexpr, ALIGN_CORNERS: tl.constexpr, GRADIENT: tl.constexpr,
    HAS_LOG_OLD: tl.constexpr, HAS_TEACHER: tl.constexpr, HAS_CKD: tl.constexpr, HAS_FOCAL: tl.constexpr,
    HAS_PSEUDO_LABEL: tl.constexpr, PIXELS: tl.constexpr, CLASSES: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Sums [images, programs, 8] of the terms; the gradient at every pixel, or the cells' [images, cells, 4, pitch].

    CHOSEN: of the cells those that are marked in ``chosen`` [images, cells].
    """
    image = tl.program_id(1).to(tl.int64)
    number = tl.program_id(0)
    out = sums + (image * tl.num_programs(0) + number) * SUMS
    if CHOSEN:
        if tl.load(chosen + image * tl.num_programs(0) + number) == 0:
            return
    place = gradient + (image * tl.num_programs(0) + number) * CORNERS * pitch
    if WIDE:
        number = number.to(tl.int64)
    if CELLS:
        first_row, rows, top, bottom = piece(number // column_pieces, height, label_height, row_cuts, ALIGN_CORNERS)
        first_column, columns, left, right = piece(
            number % column_pieces, width, label_width, column_cuts, ALIGN_CORNERS
        )
        pixel = tl.arange(0, PIXELS)
        present = pixel < rows * columns
        row, column = first_row + pixel // tl.maximum(columns, 1), first_column + pixel % tl.maximum(columns, 1)
        down = weight_of_right(row, top, bottom, height, label_height, ALIGN_CORNERS)
        along = weight_of_right(column, left, right, width, label_width, ALIGN_CORNERS)
        down, along = tl.where(present, down, 0.0)[None, :], tl.where(present, along, 0.0)[None, :]
        top, bottom, left, right = top.to(tl.int64), bottom.to(tl.int64), left.to(tl.int64), right.to(tl.int64)
        taps = (
            top * student_row + left * student_column, top * student_row + right * student_column,
            bottom * student_row + left * student_column, bottom * student_row + right * student_column,
        )  # fmt: skip
        teacher_taps = (
            top * teacher_row + left * teacher_column, top * teacher_row + right * teacher_column,
            bottom * teacher_row + left * teacher_column, bottom * teacher_row + right * teacher_column,
        )  # fmt: skip
    else:
        pixel = number * PIXELS + tl.arange(0, PIXELS)
        present = pixel < label_pixels
        row, column = pixel // label_width, pixel % label_width
        down, along = 0.0, 0.0
    row, column = row.to(tl.int64), column.to(tl.int64)
    if not CELLS:
        taps = ((row * student_row + column * student_column)[None, :],)
        teacher_taps = ((row * teacher_row + column * teacher_column)[None, :],)
        place = gradient + image * gradient_image + row * gradient_row + column * gradient_column
    y = tl.load(label + image * label_image + row * label_row + column * label_column, mask=present, other=0)
    region, target, wrong = region_of(y, classes, old_classes, ignore_index)
    region = tl.where(present, region, NO_PIXEL)
    shown = present[None, :]
    student += image * student_image
    teacher += image * teacher_image

    # A logit common to all classes cancels in every term: class 0 is the origin of the student's.
    origin = _logits_at(student, tl.zeros([1, PIXELS], tl.int64), shown, shown, taps, down, along, CELLS)
    lowest = tl.full([PIXELS], LOWEST, tl.float32)
    zero = tl.zeros([PIXELS], tl.float32)
    poison = zero
    maximum_old, sum_old, maximum_new, sum_new = lowest, zero, lowest, zero
    maximum_teacher, sum_teacher, linear, background_teacher = lowest, zero, zero, zero
    pseudo_label = tl.zeros([PIXELS], tl.int32)
    block = tl.arange(0, CLASSES)[:, None]
    for first in range(0, old_classes, CLASSES):
        c = first + block
        inside = c < old_classes
        channel = c.to(tl.int64)
        z = _logits_at(student, channel * student_class, inside, shown, taps, down, along, CELLS) - origin
        z = tl.where(inside & shown, z, 0.0)
        poison += tl.sum(z * 0.0, 0)
        z *= LOG2_E
        maximum_old, sum_old = _add_exponentials(maximum_old, sum_old, tl.where(inside, z, LOWEST))
        if HAS_TEACHER or HAS_PSEUDO_LABEL:
            z_teacher = _logits_at(teacher, channel * teacher_class, inside, shown, teacher_taps, down, along, CELLS)
            z_teacher = tl.where(inside & shown, z_teacher, 0.0)
            poison += tl.sum(z_teacher * 0.0, 0)
            z_teacher = tl.where(inside, z_teacher * teacher_scale, LOWEST)
            highest = tl.maximum(maximum_teacher, tl.max(z_teacher, 0))
            if HAS_PSEUDO_LABEL:
                best = tl.min(tl.where(z_teacher == highest[None, :], c, classes), 0)
                pseudo_label = tl.where(highest > maximum_teacher, best, pseudo_label)
            shrink = tl.exp2(maximum_teacher - highest)
            e = tl.exp2(z_teacher - highest[None, :])
            sum_teacher = sum_teacher * shrink + tl.sum(e, 0)
            linear = linear * shrink + tl.sum(tl.where(c > 0, e * z, 0.0), 0)
            background_teacher = background_teacher * shrink + tl.sum(tl.where(c == 0, e, 0.0), 0)
            maximum_teacher = highest
    for first in range(old_classes, classes, CLASSES):
        c = first + block
        inside = c < classes
        z = _logits_at(student, c.to(tl.int64) * student_class, inside, shown, taps, down, along, CELLS) - origin
        z = tl.where(inside & shown, z, 0.0)
        poison += tl.sum(z * 0.0, 0)
        maximum_new, sum_new = _add_exponentials(maximum_new, sum_new, tl.where(inside, z * LOG2_E, LOWEST))

    p_background, inverse_teacher = zero, zero
    if HAS_TEACHER:
        inverse_teacher = 1.0 / sum_teacher
        linear *= inverse_teacher
        p_background = background_teacher * inverse_teacher
    if HAS_PSEUDO_LABEL:
        target = tl.where(region == 0, tl.minimum(pseudo_label, classes - 1), target)
    target_offset = (target.to(tl.int64) * student_class)[None, :]
    z_target = _logits_at(student, target_offset, shown, shown, taps, down, along, CELLS) - origin
    z_target = LOG2_E * tl.sum(tl.where(shown, z_target, 0.0), 0)
    # The background's logit is the origin, 0.
    ce, cce, kd, ckd, ali, focal, factor_old, factor_new, of_teacher, background, of_target = pixel_terms(
        coefficients, region, kd_region, maximum_old, sum_old, maximum_new, sum_new, z_target, zero, p_background,
        linear, zero, HAS_LOG_OLD, HAS_TEACHER, HAS_CKD, HAS_FOCAL,
    )  # fmt: skip
    tl.store(out + CE, tl.sum(ce))
    tl.store(out + CCE, tl.sum(cce))
    tl.store(out + KD, tl.sum(kd))
    tl.store(out + CKD, tl.sum(ckd))
    tl.store(out + ALI, tl.sum(ali))
    tl.store(out + FOCAL_TERM, tl.sum(focal))
    tl.store(out + POISON, tl.sum(poison))

    if GRADIENT:
        of_teacher *= inverse_teacher
        for first in range(0, old_classes, CLASSES):
            c = first + block
            inside = c < old_classes
            channel = c.to(tl.int64)
            z = _logits_at(student, channel * student_class, inside, shown, taps, down, along, CELLS) - origin
            g = tl.exp2(tl.where(inside & shown, LOG2_E * z, LOWEST) - maximum_old[None, :]) * factor_old[None, :]
            if HAS_TEACHER:
                offset = channel * teacher_class
                z_teacher = _logits_at(teacher, offset, inside, shown, teacher_taps, down, along, CELLS)
                e = tl.exp2(tl.where(inside & shown, z_teacher * teacher_scale, LOWEST) - maximum_teacher[None, :])
                g -= e * of_teacher[None, :]
                g += tl.where(c == 0, background[None, :], 0.0)
            g -= tl.where(c == target[None, :], of_target[None, :], 0.0)
            _store(place, channel * gradient_class, c, inside, shown, g, down, along, pitch, CELLS)
        for first in range(old_classes, classes, CLASSES):
            c = first + block
            inside = c < classes
            channel = c.to(tl.int64)
            z = _logits_at(student, channel * student_class, inside, shown, taps, down, along, CELLS) - origin
            g = tl.exp2(tl.where(inside & shown, LOG2_E * z, LOWEST) - maximum_new[None, :]) * factor_new[None, :]
            g -= tl.where(c == target[None, :], of_target[None, :], 0.0)
            _store(place, channel * gradient_class, c, inside, shown, g, down, along, pitch, CELLS)


@triton.jit
def _store(place, channel, c, inside, shown, g, down, along, pitch, CELLS: tl.constexpr):
    """The gradient [classes, pixels] at ``place``: as it is, or as a cell's corners."""
    if CELLS:
        g = tl.where(inside & shown, g, 0.0)
        right, lower = g * along, g * down
        both = tl.sum(right * down, 1)[:, None]
        plain, right, lower = tl.sum(g, 1)[:, None], tl.sum(right, 1)[:, None], tl.sum(lower, 1)[:, None]
        store_corners(place + c, pitch, inside, plain, right, lower, both, False, False)
    else:
        tl.store(place[None, :] + channel, g, mask=inside & shown)
