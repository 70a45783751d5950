"""Device function of bilinear enlargement: where a pixel reads.

The rule is that of csrc/core/axis.h, PyTorch's, with positions as exact fractions. A node is a place of the logits' own
resolution. Integers are as wide as the arguments: callers widen ``x`` where positions may not fit in 32 bits.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def source_position(x, source, output, ALIGN_CORNERS: tl.constexpr, REAL: tl.constexpr = tl.float32):
    """Neighbouring nodes of output pixel ``x`` and the weight of the right one, of type REAL."""
    if ALIGN_CORNERS:
        numerator = x * (source - 1)
        denominator = tl.maximum(output - 1, 1)
    else:
        numerator = tl.maximum((2 * x + 1) * source - output, 0)
        denominator = 2 * output
    left = tl.minimum(numerator // denominator, source - 1)
    right = tl.minimum(left + 1, source - 1)
    fraction = tl.cast(numerator - left * denominator, REAL) / tl.cast(denominator, REAL)
    return left, right, tl.where(right > left, fraction, 0.0)
