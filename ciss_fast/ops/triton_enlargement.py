"""Device functions of bilinear enlargement that Triton kernels share: where a pixel reads, which pixels read a node.

The rule is that of csrc/core/axis.h, PyTorch's, with positions as exact fractions. A node is a place of the logits' own
resolution. Integers are as wide as the arguments: callers widen ``x`` where `fits_in_32_bits` says so.
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


@triton.jit
def first_pixel(node, source, output, ALIGN_CORNERS: tl.constexpr):
    """The first output pixel whose left node is ``node`` or a later one; ``output`` where there is none."""
    if ALIGN_CORNERS:
        numerator = node * tl.maximum(output - 1, 1)
        denominator = tl.maximum(source - 1, 1)
    else:
        numerator = (2 * node + 1) * output - source
        denominator = 2 * source
    x = (tl.maximum(numerator, 0) + denominator - 1) // denominator
    return tl.where(node <= 0, 0, tl.where(node < source, tl.minimum(x, output), output))


@triton.jit
def weight_on_node(x, node, source, output, ALIGN_CORNERS: tl.constexpr):
    """Weight with which output pixel ``x`` reads ``node``."""
    left, right, fraction = source_position(x, source, output, ALIGN_CORNERS)
    return tl.where(left == node, 1.0 - fraction, tl.where(right == node, fraction, 0.0))


@triton.jit
def pixel_taps(
    pixel, height, width, label_height, label_width, stride_row, stride_column,
    ENLARGED: tl.constexpr, ALIGN_CORNERS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Offsets of the four logits that pixels (numbered along rows) read in a plane, and their weights down and right.

    Where the logits are at label size the first offset alone counts.
    """
    if WIDE:
        pixel = pixel.to(tl.int64)
    y = pixel // label_width
    x = pixel % label_width
    if ENLARGED:
        top, bottom, down = source_position(y, height, label_height, ALIGN_CORNERS)
        left, right, along = source_position(x, width, label_width, ALIGN_CORNERS)
    else:
        top, bottom, down = y, y, 0.0
        left, right, along = x, x, 0.0
    top, bottom = top.to(tl.int64) * stride_row, bottom.to(tl.int64) * stride_row
    left, right = left.to(tl.int64) * stride_column, right.to(tl.int64) * stride_column
    return top + left, top + right, bottom + left, bottom + right, down, along


@triton.jit
def enlarged(base, classes, mask, taps, ENLARGED: tl.constexpr, other: tl.constexpr):
    """Logits at the pixels of ``taps`` as float32; ``base``: address of the image, ``classes``: offsets of channels."""
    value = tl.load(base + classes + taps[0], mask=mask, other=other).to(tl.float32)
    if ENLARGED:
        top_right = tl.load(base + classes + taps[1], mask=mask, other=other).to(tl.float32)
        bottom = tl.load(base + classes + taps[2], mask=mask, other=other).to(tl.float32)
        bottom_right = tl.load(base + classes + taps[3], mask=mask, other=other).to(tl.float32)
        value = value + taps[5] * (top_right - value)
        bottom = bottom + taps[5] * (bottom_right - bottom)
        value = value + taps[4] * (bottom - value)
    return value
