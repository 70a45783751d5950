"""The pass over the logits where they are at label size: pixel by pixel, every class by itself."""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_terms import AC, KD, MBCE, POISON, SUMS, distillation, new_class_of, softplus_and_sigmoid

_SIZES = ("classes", "first_new", "ignore_index", "label_width", "label_pixels")


@triton.jit(do_not_specialize=_SIZES)
def loss_of_pixels(
    student, teacher, label, sums, gradient,
    classes, first_new, ignore_index, positive_weight, of_mbce, of_kd, of_ac, label_width, label_pixels,
    student_image, student_class, student_row, student_column,
    teacher_image, teacher_class, teacher_row, teacher_column,
    label_image, label_row, label_column,
    gradient_image, gradient_class, gradient_row, gradient_column,
    GRADIENT: tl.constexpr, HAS_TEACHER: tl.constexpr, PIXELS: tl.constexpr, CLASSES: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Sums [images, programs, 4] of the terms, and the gradient.

    ``of_mbce``, ``of_kd``, ``of_ac``: weights of the terms over the number of pixels; 0 for a term not asked for.
    """
    image = tl.program_id(1).to(tl.int64)
    number = tl.program_id(0)
    if WIDE:
        number = number.to(tl.int64)
    pixel = number * PIXELS + tl.arange(0, PIXELS)
    present = pixel < label_pixels
    row, column = (pixel // label_width).to(tl.int64), (pixel % label_width).to(tl.int64)
    y = tl.load(label + image * label_image + row * label_row + column * label_column, mask=present, other=0)
    y = new_class_of(y, classes, first_new, ignore_index)
    student += image * student_image + (row * student_row + column * student_column)[None, :]
    teacher += image * teacher_image + (row * teacher_row + column * teacher_column)[None, :]
    place = gradient + image * gradient_image + (row * gradient_row + column * gradient_column)[None, :]
    mbce = tl.zeros([PIXELS], tl.float32)
    kd, ac, poison = mbce, mbce, mbce
    for first in range(0, classes, CLASSES):
        c = first + tl.arange(0, CLASSES)[:, None]
        inside = (c < classes) & present[None, :]
        z = tl.load(student + c.to(tl.int64) * student_class, mask=inside, other=0.0).to(tl.float32)
        poison += tl.sum(z * 0.0, 0)
        is_new = c >= first_new
        positive = is_new & (c == y[None, :])
        # A positive pixel's loss is w softplus(-z), another's softplus(z).
        softplus, sigmoid = softplus_and_sigmoid(tl.where(positive, -z, z))
        factor = tl.where(positive, positive_weight, 1.0)
        mbce += tl.sum(tl.where(inside & is_new, factor * softplus, 0.0), 0)
        ac += tl.sum(tl.where(inside & (c == 0), softplus, 0.0), 0)
        g = tl.where(is_new, of_mbce, of_ac) * tl.where(positive, -factor, factor) * sigmoid
        is_old = (c > 0) & (c < first_new)
        if HAS_TEACHER:
            read = inside & is_old
            z_teacher = tl.load(teacher + c.to(tl.int64) * teacher_class, mask=read, other=0.0).to(tl.float32)
            poison += tl.sum(z_teacher * 0.0, 0)
            loss, of_old = distillation(z, z_teacher)
            kd += tl.sum(tl.where(read, loss, 0.0), 0)
            g = tl.where(is_old, of_kd * of_old, g)
        else:
            g = tl.where(is_old, 0.0, g)
        if GRADIENT:
            tl.store(place + c.to(tl.int64) * gradient_class, g, mask=inside)
    out = sums + (image * tl.num_programs(0) + tl.program_id(0)) * SUMS
    tl.store(out + MBCE, tl.sum(mbce))
    tl.store(out + KD, tl.sum(kd))
    tl.store(out + AC, tl.sum(ac))
    tl.store(out + POISON, tl.sum(poison))
