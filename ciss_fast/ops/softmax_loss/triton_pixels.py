"""The pass over the pixels' logits, pixel by pixel and with explicit maxima: the softmax loss in its plainest form.

Serves logits at label size, and sizes too close to it for `triton_cells`. A program takes a run of pixels of an image,
classes in blocks: once for the sums, once more for the gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_enlargement import enlarged, pixel_taps
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
    "label_pixels",
)  # fmt: skip


@triton.jit
def _add_exponentials(maximum, total, z):
    """``maximum`` and sum of 2^(z - maximum) of pixels, with a block [classes, pixels] of logits more."""
    highest = tl.maximum(maximum, tl.max(z, 0))
    return highest, total * tl.exp2(maximum - highest) + tl.sum(tl.exp2(z - highest[None, :]), 0)


@triton.jit(do_not_specialize=_SIZES)
def loss_of_pixels(
    student, teacher, label, coefficients, sums, gradient,
    classes, old_classes, ignore_index, kd_region, teacher_scale, height, width, label_height, label_width,
    label_pixels,
    student_image, student_class, student_row, student_column,
    teacher_image, teacher_class, teacher_row, teacher_column,
    label_image, label_row, label_column,
    gradient_image, gradient_class, gradient_row, gradient_column,
    ENLARGED: tl.constexpr, ALIGN_CORNERS: tl.constexpr, GRADIENT: tl.constexpr, HAS_LOG_OLD: tl.constexpr,
    HAS_TEACHER: tl.constexpr, HAS_CKD: tl.constexpr, HAS_FOCAL: tl.constexpr, HAS_PSEUDO_LABEL: tl.constexpr,
    PIXELS: tl.constexpr, CLASSES: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Sums [images, programs, 8] of the terms; the gradient at every pixel of the label."""
    image = tl.program_id(1).to(tl.int64)
    number = tl.program_id(0)
    if WIDE:
        number = number.to(tl.int64)
    pixel = number * PIXELS + tl.arange(0, PIXELS)
    present = pixel < label_pixels
    pixel = tl.minimum(pixel, label_pixels - 1)
    row, column = (pixel // label_width).to(tl.int64), (pixel % label_width).to(tl.int64)
    y = tl.load(label + image * label_image + row * label_row + column * label_column)
    region, target, wrong = region_of(y, classes, old_classes, ignore_index)
    region = tl.where(present, region, NO_PIXEL)
    student += image * student_image
    taps = pixel_taps(
        pixel, height, width, label_height, label_width, student_row, student_column, ENLARGED, ALIGN_CORNERS, WIDE
    )
    if HAS_TEACHER or HAS_PSEUDO_LABEL:
        teacher += image * teacher_image
        teacher_taps = pixel_taps(
            pixel, height, width, label_height, label_width, teacher_row, teacher_column, ENLARGED, ALIGN_CORNERS, WIDE
        )

    # A logit common to all classes cancels in every term: class 0 is the origin of the student's.
    origin = enlarged(student, 0, present, taps, ENLARGED, 0.0)
    lowest = tl.full([PIXELS], LOWEST, tl.float32)
    zero = tl.zeros([PIXELS], tl.float32)
    poison = zero
    maximum_old, sum_old, maximum_new, sum_new = lowest, zero, lowest, zero
    maximum_teacher, sum_teacher, linear, background_teacher = lowest, zero, zero, zero
    pseudo_label = tl.zeros([PIXELS], tl.int32)
    block = tl.arange(0, CLASSES)[:, None]
    for first in range(0, old_classes, CLASSES):
        c = first + block
        inside = (c < old_classes) & present[None, :]
        z = enlarged(student, c.to(tl.int64) * student_class, inside, taps, ENLARGED, 0.0) - origin[None, :]
        poison += tl.sum(tl.where(inside, z, 0.0) * 0.0, 0)
        z *= LOG2_E
        maximum_old, sum_old = _add_exponentials(maximum_old, sum_old, tl.where(inside, z, LOWEST))
        if HAS_TEACHER or HAS_PSEUDO_LABEL:
            z_teacher = enlarged(teacher, c.to(tl.int64) * teacher_class, inside, teacher_taps, ENLARGED, 0.0)
            poison += tl.sum(tl.where(inside, z_teacher, 0.0) * 0.0, 0)
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
        inside = (c < classes) & present[None, :]
        z = enlarged(student, c.to(tl.int64) * student_class, inside, taps, ENLARGED, 0.0) - origin[None, :]
        poison += tl.sum(tl.where(inside, z, 0.0) * 0.0, 0)
        maximum_new, sum_new = _add_exponentials(maximum_new, sum_new, tl.where(inside, z * LOG2_E, LOWEST))

    p_background, inverse_teacher = zero, zero
    if HAS_TEACHER:
        inverse_teacher = 1.0 / sum_teacher
        linear *= inverse_teacher
        p_background = background_teacher * inverse_teacher
    if HAS_PSEUDO_LABEL:
        target = tl.where(region == 0, tl.minimum(pseudo_label, classes - 1), target)
    target_offset = target.to(tl.int64) * student_class
    z_target = LOG2_E * (enlarged(student, target_offset, present, taps, ENLARGED, 0.0) - origin)
    # The background's logit is the origin, 0.
    ce, cce, kd, ckd, ali, focal, factor_old, factor_new, of_teacher, background, of_target = pixel_terms(
        coefficients, region, kd_region, maximum_old, sum_old, maximum_new, sum_new, z_target, zero, p_background,
        linear, zero, HAS_LOG_OLD, HAS_TEACHER, HAS_CKD, HAS_FOCAL,
    )  # fmt: skip
    out = sums + (image * tl.num_programs(0) + tl.program_id(0)) * SUMS
    tl.store(out + CE, tl.sum(ce))
    tl.store(out + CCE, tl.sum(cce))
    tl.store(out + KD, tl.sum(kd))
    tl.store(out + CKD, tl.sum(ckd))
    tl.store(out + ALI, tl.sum(ali))
    tl.store(out + FOCAL_TERM, tl.sum(focal))
    tl.store(out + POISON, tl.sum(poison))

    if GRADIENT:
        of_teacher *= inverse_teacher
        place = gradient + image * gradient_image + row * gradient_row + column * gradient_column
        for first in range(0, old_classes, CLASSES):
            c = first + block
            inside = (c < old_classes) & present[None, :]
            z = enlarged(student, c.to(tl.int64) * student_class, inside, taps, ENLARGED, 0.0) - origin[None, :]
            g = tl.exp2(tl.where(inside, LOG2_E * z, LOWEST) - maximum_old[None, :]) * factor_old[None, :]
            if HAS_TEACHER:
                z_teacher = enlarged(teacher, c.to(tl.int64) * teacher_class, inside, teacher_taps, ENLARGED, 0.0)
                e = tl.exp2(tl.where(inside, z_teacher * teacher_scale, LOWEST) - maximum_teacher[None, :])
                g -= e * of_teacher[None, :]
                g += tl.where(c == 0, background[None, :], 0.0)
            g -= tl.where(c == target[None, :], of_target[None, :], 0.0)
            tl.store(place[None, :] + c.to(tl.int64) * gradient_class, g, mask=inside)
        for first in range(old_classes, classes, CLASSES):
            c = first + block
            inside = (c < classes) & present[None, :]
            z = enlarged(student, c.to(tl.int64) * student_class, inside, taps, ENLARGED, 0.0) - origin[None, :]
            g = tl.exp2(tl.where(inside, LOG2_E * z, LOWEST) - maximum_new[None, :]) * factor_new[None, :]
            g -= tl.where(c == target[None, :], of_target[None, :], 0.0)
            tl.store(place[None, :] + c.to(tl.int64) * gradient_class, g, mask=inside)
