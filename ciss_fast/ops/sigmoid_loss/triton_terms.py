"""Device functions of the sigmoid loss: softplus and sigmoid with all their digits, and the distillation of a logit.

Everything is evaluated from e^-|z|, so that no difference loses its digits: README.md in this folder has the forms.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
# Terms in the order of options.TERMS; behind them what is neither 0 nor a number if a logit is not finite.
MBCE, KD, AC, POISON = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
SUMS = tl.constexpr(4)


@triton.jit
def new_class_of(label, classes, first_new, ignore_index):
    """Labels as channels of new classes; 0 where they are none."""
    is_new = (label >= first_new) & (label < classes) & (label != ignore_index)
    return tl.where(is_new, label, 0).to(tl.int32)


@triton.jit
def _parts(z):
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


@triton.jit
def softplus_and_sigmoid(z):
    """log(1 + e^z) and 1 / (1 + e^-z)."""
    logarithm, small, large = _parts(z)
    return logarithm + tl.maximum(z, 0.0), tl.where(z > 0, large, small)


@triton.jit
def distillation(z, z_teacher):
    """log(1 + e^z) - sigmoid(z') z, as a sum of parts that are not below 0, and its gradient on z."""
    logarithm, small, large = _parts(z)
    unused, small_teacher, large_teacher = _parts(z_teacher)
    above, above_teacher = z > 0, z_teacher > 0
    sigmoid = tl.where(above_teacher, large_teacher, small_teacher)
    opposite = tl.where(above_teacher, small_teacher, large_teacher)
    loss = logarithm + tl.where(above, opposite, -sigmoid) * z
    return loss, tl.where(above, opposite - small, small - sigmoid)
