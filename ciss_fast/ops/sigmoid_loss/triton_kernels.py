"""Triton kernel behind the sigmoid loss's passes: from sums to the values of the terms and the total."""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_terms import AC, KD, MBCE, POISON, SUMS


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
