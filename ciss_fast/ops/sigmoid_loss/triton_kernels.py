"""Triton kernels of the sigmoid loss: the pass over the pixels' logits, every class by itself, and the sums behind it.

Everything is evaluated from e^-|z|, so that no difference loses its digits: README.md in this folder has the forms.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_enlargement import enlarged, pixel_taps

LOG2_E = tl.constexpr(1.4426950408889634)
# Terms in the order of options.TERMS; behind them what is neither 0 nor a number if a logit is not finite.
MBCE, KD, AC, POISON = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
SUMS = tl.constexpr(4)

_SIZES = ("classes", "first_new", "ignore_index", "height", "width", "label_height", "label_width", "label_pixels")


@triton.jit
def sigmoid_parts(z):
    """log(1 + e^-|z|), the sigmoid of -|z| and that of |z|, each to a few units of its own last place.

    The logarithm is 2 artanh(s) with s = e / (2 + e) <= 1/3, as a series up to s^15: a hardware logarithm is exact in
    absolute terms only, and most logits make e small.
    """
    e = tl.exp2(-(tl.abs(z) * LOG2_E))
    s = e / (2.0 + e)
    square = s * s
    series = 1.0 / 13.0 + square * (1.0 / 15.0)
    series = 1.0 / 11.0 + square * series
    series = 1.0 / 9.0 + square * series
    series = 1.0 / 7.0 + square * series
    series = 1.0 / 5.0 + square * series
    series = 1.0 / 3.0 + square * series
    large = 1.0 / (1.0 + e)
    return 2.0 * s * (1.0 + square * series), e * large, large


@triton.jit(do_not_specialize=_SIZES)
def loss_of_pixels(
    student, teacher, label, sums, gradient,
    classes, first_new, ignore_index, positive_weight, of_mbce, of_kd, of_ac, height, width, label_height, label_width,
    label_pixels,
    student_image, student_class, student_row, student_column,
    teacher_image, teacher_class, teacher_row, teacher_column,
    label_image, label_row, label_column,
    gradient_image, gradient_class, gradient_row, gradient_column,
    ENLARGED: tl.constexpr, ALIGN_CORNERS: tl.constexpr, GRADIENT: tl.constexpr, HAS_TEACHER: tl.constexpr,
    PIXELS: tl.constexpr, CLASSES: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Sums [images, programs, 4] of the terms; the gradient at every pixel of the label.

    ``of_mbce``, ``of_kd``, ``of_ac``: weights of the terms over the number of pixels; 0 for a term not asked for.
    """
    image = tl.program_id(1).to(tl.int64)
    number = tl.program_id(0)
    if WIDE:
        number = number.to(tl.int64)
    pixel = number * PIXELS + tl.arange(0, PIXELS)
    present = pixel < label_pixels
    pixel = tl.minimum(pixel, label_pixels - 1)
    row, column = (pixel // label_width).to(tl.int64), (pixel % label_width).to(tl.int64)
    y = tl.load(label + image * label_image + row * label_row + column * label_column)
    new = (y >= first_new) & (y < classes) & (y != ignore_index)
    y = tl.where(new, y, 0).to(tl.int32)  # 0: no new class's positive
    student += image * student_image
    taps = pixel_taps(
        pixel, height, width, label_height, label_width, student_row, student_column, ENLARGED, ALIGN_CORNERS, WIDE
    )
    if HAS_TEACHER:
        teacher += image * teacher_image
        teacher_taps = pixel_taps(
            pixel, height, width, label_height, label_width, teacher_row, teacher_column, ENLARGED, ALIGN_CORNERS, WIDE
        )
    place = gradient + image * gradient_image + row * gradient_row + column * gradient_column
    mbce = tl.zeros([PIXELS], tl.float32)
    kd, ac, poison = mbce, mbce, mbce
    for first in range(0, classes, CLASSES):
        c = first + tl.arange(0, CLASSES)[:, None]
        inside = (c < classes) & present[None, :]
        z = enlarged(student, c.to(tl.int64) * student_class, inside, taps, ENLARGED, 0.0)
        poison += tl.sum(z * 0.0, 0)
        logarithm, small, large = sigmoid_parts(z)
        above = z > 0
        sigma, opposite = tl.where(above, large, small), tl.where(above, small, large)
        negative = logarithm + tl.maximum(z, 0.0)  # -log sigma(-z)
        is_auxiliary, is_new = c == 0, c >= first_new
        is_old = (is_auxiliary | is_new) == 0
        positive = is_new & (c == y[None, :])
        hit = positive_weight * (logarithm + tl.maximum(-z, 0.0))
        mbce += tl.sum(tl.where(inside & is_new, tl.where(positive, hit, negative), 0.0), 0)
        ac += tl.sum(tl.where(inside & is_auxiliary, negative, 0.0), 0)
        g = tl.where(is_new, of_mbce * tl.where(positive, -positive_weight * opposite, sigma), of_ac * sigma)
        if HAS_TEACHER:
            read = inside & is_old
            z_teacher = enlarged(teacher, c.to(tl.int64) * teacher_class, read, teacher_taps, ENLARGED, 0.0)
            poison += tl.sum(z_teacher * 0.0, 0)
            unused, small_teacher, large_teacher = sigmoid_parts(z_teacher)
            teacher_above = z_teacher > 0
            sigma_teacher = tl.where(teacher_above, large_teacher, small_teacher)
            opposite_teacher = tl.where(teacher_above, small_teacher, large_teacher)
            linear = tl.where(above, opposite_teacher, -sigma_teacher) * z
            kd += tl.sum(tl.where(read, logarithm + linear, 0.0), 0)
            g = tl.where(is_old, of_kd * tl.where(above, opposite_teacher - opposite, sigma - sigma_teacher), g)
        else:
            g = tl.where(is_old, 0.0, g)
        if GRADIENT:
            tl.store(place[None, :] + c.to(tl.int64) * gradient_class, g, mask=inside)
    out = sums + (image * tl.num_programs(0) + tl.program_id(0)) * SUMS
    tl.store(out + MBCE, tl.sum(mbce))
    tl.store(out + KD, tl.sum(kd))
    tl.store(out + AC, tl.sum(ac))
    tl.store(out + POISON, tl.sum(poison))


@triton.jit(do_not_specialize=("programs",))
def finish(
    added, values, total, poison_out, programs, divisor, weight_mbce, weight_kd, weight_ac, BLOCK: tl.constexpr
):
    """One program: values [3] of the terms, their weighted sum, and 0 (NaN if a logit is not finite)."""
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, SUMS)[None, :]
    sums = tl.sum(tl.load(added + row * SUMS + column, mask=row < programs, other=0.0), 0)
    term = tl.arange(0, SUMS)
    poison = tl.sum(tl.where(term == POISON, sums, 0.0)) * 0.0
    mbce = tl.where(weight_mbce != 0.0, tl.sum(tl.where(term == MBCE, sums, 0.0)) / divisor, 0.0)
    kd = tl.where(weight_kd != 0.0, tl.sum(tl.where(term == KD, sums, 0.0)) / divisor, 0.0)
    ac = tl.where(weight_ac != 0.0, tl.sum(tl.where(term == AC, sums, 0.0)) / divisor, 0.0)
    tl.store(values + MBCE, mbce.to(tl.float32))
    tl.store(values + KD, kd.to(tl.float32))
    tl.store(values + AC, ac.to(tl.float32))
    tl.store(total, (weight_mbce * mbce + weight_kd * kd + weight_ac * ac + poison).to(tl.float32))
    tl.store(poison_out, poison.to(tl.float32))
