"""Device functions of cells, which the losses' Triton kernels share where logits are enlarged.

An axis of the label map is cut into pieces (`axis.pieces`) whose pixels lie between the same two nodes, places of the
logits' own axis. A cell is a piece of rows times a piece of columns: its pixels lie between the same four nodes, its
corners, in the order top left, top right, bottom left, bottom right.
"""

from __future__ import annotations

import triton
import triton.language as tl

CORNERS = tl.constexpr(4)


@triton.jit
def _segment_begin(node, source, output, ALIGN_CORNERS: tl.constexpr):
    """`axis.segment_begin`."""
    if ALIGN_CORNERS:
        begin = (node * tl.maximum(output - 1, 1) + tl.maximum(source - 1, 1) - 1) // tl.maximum(source - 1, 1)
        begin = tl.where(node >= source - 1, output, tl.minimum(begin, output))
        return tl.where(node <= 0, 0, begin)
    begin = (tl.maximum((2 * node + 1) * output - source, 0) + 2 * source - 1) // (2 * source)
    return tl.where(node < 0, 0, tl.where(node < source, tl.minimum(begin, output), output))


@triton.jit
def piece(number, source, output, cuts, ALIGN_CORNERS: tl.constexpr):
    """First pixel and pixels of a piece, its left and right nodes."""
    node, part = number // cuts, number % cuts
    if not ALIGN_CORNERS:
        node -= 1
    begin = _segment_begin(node, source, output, ALIGN_CORNERS)
    pixels = _segment_begin(node + 1, source, output, ALIGN_CORNERS) - begin
    first = pixels * part // cuts
    after = pixels * (part + 1) // cuts
    left, right = tl.maximum(node, 0), tl.minimum(node + 1, source - 1)
    return begin + first, after - first, tl.minimum(left, source - 1), right


@triton.jit
def weight_of_right(x, left, right, source, output, ALIGN_CORNERS: tl.constexpr):
    """Weight of a piece's right node at its pixels ``x``."""
    if ALIGN_CORNERS:
        numerator = x * (source - 1)
        denominator = tl.maximum(output - 1, 1)
    else:
        numerator = (2 * x + 1) * source - output
        denominator = 2 * output
    fraction = (numerator - left * denominator).to(tl.float32) / denominator.to(tl.float32)
    return tl.where(right > left, fraction, 0.0)


@triton.jit
def change_of_weight(left, right, source, output, ALIGN_CORNERS: tl.constexpr):
    """Change of `weight_of_right` from pixel to pixel."""
    if ALIGN_CORNERS:
        change = (source - 1).to(tl.float32) / tl.maximum(output - 1, 1).to(tl.float32)
    else:
        change = source.to(tl.float32) / output.to(tl.float32)
    return tl.where(right > left, change, 0.0)


@triton.jit
def corner_nodes(image, top, bottom, left, right, height, width):
    """Numbers of a cell's four corners among the nodes of all images, 64 bits wide."""
    above = (image * height + top) * width
    below = (image * height + bottom) * width
    return above + left, above + right, below + left, below + right


@triton.jit
def rows_of_table(table, nodes, pitch):
    """Addresses of four nodes in a table [nodes, pitch]."""
    return table + nodes[0] * pitch, table + nodes[1] * pitch, table + nodes[2] * pitch, table + nodes[3] * pitch


@triton.jit
def store_corners(place, pitch, inside, plain, right, bottom, both, ADD: tl.constexpr, add):
    """A cell's gradient on its corners from the sums of the pixels' gradients times 1, t, s and s t.

    s and t: the pixels' weights of the lower and the right corners. ``place``: addresses of the top left corner's
    entries, ``pitch`` entries from corner to corner. ADD: where ``add`` is true the sums come on top of what is there.
    """
    corners = (plain - right - bottom + both, right - both, bottom - both, both)
    for corner in tl.static_range(4):
        value = corners[corner]
        if ADD:
            value += tl.where(add, tl.load(place + corner * pitch, mask=inside, other=0.0), 0.0)
        tl.store(place + corner * pitch, value, mask=inside)
