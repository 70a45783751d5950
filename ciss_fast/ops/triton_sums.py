"""Triton kernel that adds up what the programs of a pass found, in a fixed order."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=("programs", "share"))
def add_sums(sums, added, programs, share, COLUMNS: tl.constexpr, USED: tl.constexpr, BLOCK: tl.constexpr):
    """Rows [programs, COLUMNS] of float32 added up ``share`` at a time to rows of float64; the first USED columns."""
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, COLUMNS)[None, :]
    begin = tl.program_id(0).to(tl.int64) * share
    total = tl.zeros([BLOCK, COLUMNS], tl.float64)
    for first in range(0, share, BLOCK):
        here = first + row
        inside = (here < share) & (begin + here < programs) & (column < USED)
        total += tl.load(sums + (begin + here) * COLUMNS + column, mask=inside, other=0.0).to(tl.float64)
    tl.store(added + tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.sum(total, 0))
