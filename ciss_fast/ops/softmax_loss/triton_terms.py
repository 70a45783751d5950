"""Device functions of the softmax loss: regions, coefficients, and the terms of a pixel.

A region is a number: 0 unlabelled, 1 old, 2 new, 3 ignored; 4 stands for "no pixel". Logits are times log2(e), so that
all exponentials are powers of 2. README.md in this folder has the formulas; the names of the coefficients are those
of csrc/core/softmax_terms.h.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
LOWEST = tl.constexpr(-1e30)  # stands for minus infinity; finite, so that differences are

NO_PIXEL = tl.constexpr(4)
# Columns of the table of coefficients, a row per region.
LOG_ALL, LOG_OLD, LINEAR, LINEAR_BACKGROUND = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
LABEL, FOCAL, LOG_BACKGROUND_NEW = tl.constexpr(4), tl.constexpr(5), tl.constexpr(6)
COLUMNS = tl.constexpr(8)
# Terms in the order of options.TERMS; behind them what is neither 0 nor a number if a logit is not finite.
CE, CCE, KD, CKD, ALI, FOCAL_TERM, POISON = (tl.constexpr(i) for i in range(7))
SUMS = tl.constexpr(8)


@triton.jit
def region_of(label, classes, old_classes, ignore_index):
    """Region of pixels with the given labels, and their channel (0 where the label is none)."""
    invalid = (label < 0) | (label >= classes)
    ignored = invalid | (label == ignore_index)
    channel = tl.where(ignored, 0, label).to(tl.int32)
    labelled = tl.where(channel >= old_classes, 2, tl.where(channel == 0, 0, 1))
    return tl.where(ignored, 3, labelled), channel, invalid & (label != ignore_index)


@triton.jit
def coefficient(table, region, COLUMN: tl.constexpr):
    """A pixel's coefficient."""
    return tl.load(table + region * COLUMNS + COLUMN)


@triton.jit
def log2_of_sum(maximum, total):
    """log2 of ``total`` times 2^``maximum``; `LOWEST` for an empty sum."""
    return tl.where(total > 0, maximum + tl.log2(total), LOWEST)


@triton.jit
def log2_add(a, b):
    """log2(2^a + 2^b)."""
    highest = tl.maximum(a, b)
    return highest + tl.log2(tl.exp2(a - highest) + tl.exp2(b - highest))


@triton.jit
def pixel_terms(
    coefficients, region, kd_region, maximum_old, sum_old, maximum_new, sum_new, z_target, z_background, p_background,
    linear, linear_background,
    HAS_LOG_OLD: tl.constexpr, HAS_TEACHER: tl.constexpr, HAS_CKD: tl.constexpr, HAS_FOCAL: tl.constexpr,
):  # fmt: skip
    """Terms and gradient of pixels from the sums over their classes.

    Args:
        coefficients: address of the table.
        region: see above.
        kd_region: bits by region.
        maximum_old, sum_old: the sum of 2^(z - maximum) over old classes; maximum_new, sum_new: over new ones.
        z_target: logit of the label (focal: of the pseudo-label where unlabelled); any where there is none.
        z_background: the student's logit of class 0.
        p_background: the teacher's probability of class 0.
        linear: sum of p'_k z_k over old classes k >= 1; linear_background: p'_0 z_0.

    Returns:
        The values of ce, cce, kd, ckd, ali and focal in units of log 2, not yet divided. Then the gradient: factors of
        2^(z - maximum_old) and 2^(z - maximum_new), of the teacher's probabilities (to be subtracted), what class 0
        gets besides, and what is subtracted from the target's.
    """
    log_old = log2_of_sum(maximum_old, sum_old)
    log_new = log2_of_sum(maximum_new, sum_new)
    log_all = log2_add(log_old, log_new)
    ignored = region >= 3
    zero = tl.zeros_like(log_all)
    of_all = coefficient(coefficients, region, LOG_ALL)
    of_target = coefficient(coefficients, region, LABEL)
    of_teacher, background, kd, ckd, focal = zero, zero, zero, zero, zero
    ce = tl.where((region == 1) | (region == 2), log_all - z_target, 0.0)
    cce = tl.where(ignored, 0.0, log_all) - tl.where(region == 2, z_target, 0.0)
    ali = tl.where(region == 0, log_all - linear - linear_background, 0.0)
    if HAS_FOCAL:
        log_p = tl.minimum(z_target - log_all, 0.0)
        p = tl.exp2(log_p)
        rest = 1.0 - p
        focal = tl.where(ignored, 0.0, -rest * rest * log_p)
        factor = coefficient(coefficients, region, FOCAL) * (rest * rest - 2 * LN_2 * p * rest * log_p)
        of_all += factor
        of_target += factor
    factor_old = of_all * tl.exp2(maximum_old - log_all)
    factor_new = of_all * tl.exp2(maximum_new - log_all)
    if HAS_LOG_OLD:
        factor_old += coefficient(coefficients, region, LOG_OLD) * tl.exp2(maximum_old - log_old)
        cce -= tl.where(region <= 1, log_old, 0.0)
        in_region = ((kd_region >> region) & 1) == 1
        kd = tl.where(in_region, log_old - linear - linear_background, 0.0)
    if HAS_TEACHER:
        of_teacher = coefficient(coefficients, region, LINEAR)
        background = (of_teacher - coefficient(coefficients, region, LINEAR_BACKGROUND)) * p_background
    if HAS_CKD:
        log_both = log2_add(z_background, log_new)  # the background stands for itself and the new classes
        pull = coefficient(coefficients, region, LOG_BACKGROUND_NEW) * p_background
        ckd = tl.where(region < NO_PIXEL, log_all - p_background * log_both - linear, 0.0)
        factor_new -= pull * tl.exp2(maximum_new - log_both)
        background -= pull * tl.exp2(z_background - log_both)
    return ce, cce, kd, ckd, ali, focal, factor_old, factor_new, of_teacher, background, of_target
