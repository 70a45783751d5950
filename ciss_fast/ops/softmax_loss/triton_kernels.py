"""Triton kernels of the softmax loss that run before and after the pass over the pixels' logits.

`count_regions` -> `make_coefficients` -> (the pass) -> `add_sums` -> `finish`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_terms import (
    ALI,
    CCE,
    CE,
    CKD,
    COLUMNS,
    FOCAL,
    FOCAL_TERM,
    KD,
    LABEL,
    LINEAR,
    LINEAR_BACKGROUND,
    LN_2,
    LOG_ALL,
    LOG_BACKGROUND_NEW,
    LOG_OLD,
    POISON,
    SUMS,
    region_of,
)  # fmt: skip

_SIZES = ("classes", "old_classes", "ignore_index", "label_pixels", "label_width", "programs")
_CHOICES = ("average_ce", "average_cce", "average_kd", "average_ckd", "average_ali", "average_focal", "kd_region")


@triton.jit(do_not_specialize=_SIZES)
def count_regions(
    label, counts, classes, old_classes, ignore_index, label_pixels, label_width, stride_image, stride_row,
    stride_column, PIXELS: tl.constexpr, BLOCKS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Pixels of each region (and with wrong labels), by program: counts [images, programs, 8]."""
    image = tl.program_id(1).to(tl.int64)
    unlabelled = tl.zeros([PIXELS], tl.int32)
    old, new, ignored, invalid = unlabelled, unlabelled, unlabelled, unlabelled
    for block in range(BLOCKS):
        pixel = tl.program_id(0) * BLOCKS + block
        if WIDE:
            pixel = pixel.to(tl.int64)
        pixel = pixel * PIXELS + tl.arange(0, PIXELS)
        present = pixel < label_pixels
        row, column = (pixel // label_width).to(tl.int64), (pixel % label_width).to(tl.int64)
        y = tl.load(label + image * stride_image + row * stride_row + column * stride_column, mask=present, other=0)
        region, channel, wrong = region_of(y, classes, old_classes, ignore_index)
        unlabelled += (present & (region == 0)).to(tl.int32)
        old += (present & (region == 1)).to(tl.int32)
        new += (present & (region == 2)).to(tl.int32)
        ignored += (present & (region == 3)).to(tl.int32)
        invalid += (present & wrong).to(tl.int32)
    out = counts + (image * tl.num_programs(0) + tl.program_id(0)) * 8
    tl.store(out, tl.sum(unlabelled))
    tl.store(out + 1, tl.sum(old))
    tl.store(out + 2, tl.sum(new))
    tl.store(out + 3, tl.sum(ignored))
    tl.store(out + 4, tl.sum(invalid))


@triton.jit
def _divisor(average, region_pixels, valid_pixels, all_pixels):
    """Number of pixels that a term is averaged over; 1 for none, whose sum is 0."""
    pixels = tl.where(average == 0, all_pixels, tl.where(average == 1, valid_pixels, region_pixels))
    return tl.maximum(pixels, 1).to(tl.float32)


@triton.jit(do_not_specialize=(*_SIZES, *_CHOICES))
def make_coefficients(
    counts, pixels, coefficients, divisors, programs, old_classes,
    weight_ce, weight_cce, weight_kd, weight_ckd, weight_ali, weight_focal,
    average_ce, average_cce, average_kd, average_ckd, average_ali, average_focal, kd_region, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: pixels [4] by region, divisors [6] by term, the table of coefficients by region and column."""
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, 8)[None, :]
    total = tl.zeros([BLOCK, 8], tl.int64)
    for first in range(0, programs, BLOCK):
        inside = (first + row < programs) & (column < 4)
        total += tl.load(counts + (first + row).to(tl.int64) * 8 + column, mask=inside, other=0).to(tl.int64)
    by_region = tl.sum(total, 0)
    region = tl.arange(0, 8)
    tl.store(pixels + region, by_region, mask=region < 4)
    unlabelled = tl.sum(tl.where(region == 0, by_region, 0))
    old = tl.sum(tl.where(region == 1, by_region, 0))
    new = tl.sum(tl.where(region == 2, by_region, 0))
    everything = tl.sum(by_region)
    valid = unlabelled + old + new
    in_kd = ((kd_region >> region) & 1) == 1
    divide_ce = _divisor(average_ce, old + new, valid, everything)
    divide_cce = _divisor(average_cce, valid, valid, everything)
    divide_kd = _divisor(average_kd, tl.sum(tl.where(in_kd, by_region, 0)), valid, everything)
    divide_ckd = _divisor(average_ckd, everything, valid, everything)
    divide_ali = _divisor(average_ali, unlabelled, valid, everything)
    divide_focal = _divisor(average_focal, valid, valid, everything)
    shared = tl.maximum(old_classes, 1).to(tl.float32)  # kd and ckd are divided by the number of old classes
    divide_kd *= shared
    divide_ckd *= shared
    tl.store(divisors + CE, divide_ce)
    tl.store(divisors + CCE, divide_cce)
    tl.store(divisors + KD, divide_kd)
    tl.store(divisors + CKD, divide_ckd)
    tl.store(divisors + ALI, divide_ali)
    tl.store(divisors + FOCAL_TERM, divide_focal)

    ce, cce, ckd = weight_ce / divide_ce, weight_cce / divide_cce, weight_ckd / divide_ckd
    ali, focal = weight_ali / divide_ali, weight_focal / divide_focal
    kd = tl.where(in_kd, weight_kd / divide_kd, 0.0)
    is_unlabelled, is_old, is_new = region == 0, region == 1, region == 2
    is_valid, is_pixel = region < 3, region < 4
    ali = tl.where(is_unlabelled, ali, 0.0)
    ckd = tl.where(is_pixel, ckd, 0.0)
    ce, old_and_new_cce = tl.where(is_old | is_new, ce, 0.0), tl.where(is_valid, cce, 0.0)
    out = coefficients + region * COLUMNS
    inside = region < 5
    tl.store(out + LOG_ALL, ce + old_and_new_cce + ali + ckd, mask=inside)
    tl.store(out + LOG_OLD, kd - tl.where(is_unlabelled | is_old, cce, 0.0), mask=inside)
    tl.store(out + LINEAR_BACKGROUND, ali + kd, mask=inside)
    tl.store(out + LINEAR, ali + kd + ckd, mask=inside)
    tl.store(out + LABEL, ce + tl.where(is_new, cce, 0.0), mask=inside)
    tl.store(out + FOCAL, tl.where(is_valid, focal, 0.0), mask=inside)
    tl.store(out + LOG_BACKGROUND_NEW, ckd, mask=inside)


@triton.jit
def _value(sums, term, divisors, TERM: tl.constexpr, weight, poison):
    """A term's value, 0 where it is not asked for."""
    value = tl.sum(tl.where(term == TERM, sums, 0.0)) / tl.load(divisors + TERM).to(tl.float64)
    return tl.where(weight != 0.0, LN_2 * value + poison, 0.0)


@triton.jit(do_not_specialize=("programs",))
def finish(
    added, divisors, values, total, poison_out, programs,
    weight_ce, weight_cce, weight_kd, weight_ckd, weight_ali, weight_focal, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: values [6] of the terms, their weighted sum, and 0 (NaN if a logit is not finite)."""
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, SUMS)[None, :]
    inside = row < programs
    sums = tl.sum(tl.load(added + row * SUMS + column, mask=inside, other=0.0), 0)
    term = tl.arange(0, SUMS)
    poison = tl.sum(tl.where(term == POISON, sums, 0.0))
    poison = poison * 0.0
    ce = _value(sums, term, divisors, CE, weight_ce, poison)
    cce = _value(sums, term, divisors, CCE, weight_cce, poison)
    kd = _value(sums, term, divisors, KD, weight_kd, poison)
    ckd = _value(sums, term, divisors, CKD, weight_ckd, poison)
    ali = _value(sums, term, divisors, ALI, weight_ali, poison)
    focal = _value(sums, term, divisors, FOCAL_TERM, weight_focal, poison)
    tl.store(values + CE, ce.to(tl.float32))
    tl.store(values + CCE, cce.to(tl.float32))
    tl.store(values + KD, kd.to(tl.float32))
    tl.store(values + CKD, ckd.to(tl.float32))
    tl.store(values + ALI, ali.to(tl.float32))
    tl.store(values + FOCAL_TERM, focal.to(tl.float32))
    weighted = weight_ce * ce + weight_cce * cce + weight_kd * kd + weight_ckd * ckd + weight_ali * ali
    tl.store(total, (weighted + weight_focal * focal + poison).to(tl.float32))
    tl.store(poison_out, poison.to(tl.float32))
