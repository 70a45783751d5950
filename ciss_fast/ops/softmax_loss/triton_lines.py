"""Device functions of lines: a cell's pixels of one row, along which every logit is linear, so that 2^z is geometric.

A line has SLOTS pixels in tuples, slot SLOTS // 2 being its centre: z(k) = centre + (k - SLOTS // 2) slope. README.md
in this folder has the forms and their guard, which is that of csrc/cpu/softmax_geometric.h.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_terms import LOWEST

# A class may be left out of a cell where it stays below 2^-122. It must not start below 2^-120 and rise above that,
# nor change by more than 2^60 from the centre to an end.
LOWEST_CENTRE, DROPPED_BELOW, LARGEST_GROWTH = tl.constexpr(-120.0), tl.constexpr(-122.0), tl.constexpr(60.0)
# A sum below this may lack terms that were left out: 2^-60.
SMALLEST_SUM = tl.constexpr(8.67361737988e-19)


@triton.jit
def cell_lines(corners, c, inside, at_centre, change):
    """Centre and slope of classes ``c`` at the cell's upper corners, and at its lower ones.

    ``corners``: addresses of the four corners in the table; ``at_centre``, ``change``: weight of the right ones at the
    centre and its change from pixel to pixel.
    """
    top = tl.load(corners[0] + c, mask=inside, other=LOWEST)
    top_change = tl.load(corners[1] + c, mask=inside, other=LOWEST) - top
    bottom = tl.load(corners[2] + c, mask=inside, other=LOWEST)
    bottom_change = tl.load(corners[3] + c, mask=inside, other=LOWEST) - bottom
    top, bottom = top + at_centre * top_change, bottom + at_centre * bottom_change
    return top, change * top_change, bottom, change * bottom_change


@triton.jit
def is_wild(lines, SLOTS: tl.constexpr):
    """1 for classes whose sequences would lose accuracy in this cell, else 0."""
    growth = (SLOTS // 2) * tl.maximum(tl.abs(lines[1]), tl.abs(lines[3]))
    starts = tl.minimum(lines[0], lines[2]) > LOWEST_CENTRE
    stays = tl.maximum(lines[0], lines[2]) + growth < DROPPED_BELOW
    return tl.where((starts | stays) & (growth <= LARGEST_GROWTH), 0, 1)


@triton.jit
def line_at(lines, down):
    """Centre and slope [rows, classes] in rows whose weight of the lower corners is ``down``."""
    centre, slope, bottom, bottom_slope = lines
    centre = centre[None, :] + down[:, None] * (bottom - centre)[None, :]
    return centre, slope[None, :] + down[:, None] * (bottom_slope - slope)[None, :]


@triton.jit
def zeros(like, SLOTS: tl.constexpr):
    """A line of zeros."""
    line = ()
    for _slot in tl.static_range(SLOTS):
        line = line + (like,)
    return line


@triton.jit
def add_exponentials(sums, centre, slope, SLOTS: tl.constexpr):
    """``sums`` with 2^z more, which run outwards from the centre: three exponentials for all of the line."""
    e = tl.exp2(centre)
    ratio, inverse, behind = tl.exp2(slope), tl.exp2(-slope), e
    line = (sums[SLOTS // 2] + e,)
    for k in tl.static_range(SLOTS // 2 + 1, SLOTS):
        e = e * ratio
        line = line + (sums[k] + e,)
    for k in tl.static_range(SLOTS // 2):
        behind = behind * inverse
        line = (sums[SLOTS // 2 - 1 - k] + behind,) + line
    return line


@triton.jit
def add_teacher(sums, linear, centre, slope, z_centre, z_slope, SLOTS: tl.constexpr):
    """`add_exponentials` of the teacher's line, and ``linear`` with its 2^z' times the student's z more."""
    e = tl.exp2(centre)
    ratio, inverse, behind = tl.exp2(slope), tl.exp2(-slope), e
    line, products = (sums[SLOTS // 2] + e,), (linear[SLOTS // 2] + e * z_centre,)
    for k in tl.static_range(SLOTS // 2 + 1, SLOTS):
        e = e * ratio
        line = line + (sums[k] + e,)
        products = products + (linear[k] + e * (z_centre + (k - SLOTS // 2) * z_slope),)
    for k in tl.static_range(SLOTS // 2):
        behind = behind * inverse
        line = (sums[SLOTS // 2 - 1 - k] + behind,) + line
        products = (linear[SLOTS // 2 - 1 - k] + behind * (z_centre - (k + 1) * z_slope),) + products
    return line, products


@triton.jit
def sums_by_pixel(line, SLOTS: tl.constexpr, CLASSES: tl.constexpr):
    """A line's sums over the classes, as blocks [rows, CLASSES] with a slot in each class's place.

    So no lane computes what another one does: the pixels' own part is spread over all of them.
    """
    place = tl.arange(0, CLASSES)[None, :]
    block, blocks = tl.zeros_like(line[0]), ()
    for k in tl.static_range(SLOTS):
        sums = tl.sum(line[k], 1)[:, None]
        block = tl.where(place == k % CLASSES, sums, block)
        if (k % CLASSES == CLASSES - 1) or (k == SLOTS - 1):
            blocks = blocks + (block,)
    return blocks


@triton.jit
def weights_by_slot(blocks, SLOTS: tl.constexpr, CLASSES: tl.constexpr):
    """The other way: from such blocks to a line of [rows]."""
    place = tl.arange(0, CLASSES)[None, :]
    line = ()
    for k in tl.static_range(SLOTS):
        line = line + (tl.sum(tl.where(place == k % CLASSES, blocks[k // CLASSES], 0.0), 1),)
    return line


@triton.jit
def weigh(weights, centre, slope, SLOTS: tl.constexpr):
    """Sums over the line of w 2^z and of (k - SLOTS // 2) w 2^z, for weights [rows]: Horner's rule, inwards."""
    start, ratio, inverse = tl.exp2(centre), tl.exp2(slope), tl.exp2(-slope)
    plain = weights[SLOTS // 2][:, None]
    behind = weights[0][:, None]
    behind_moment = behind
    for k in tl.static_range(1, SLOTS // 2):
        behind = behind * inverse + weights[k][:, None]
        behind_moment = behind_moment * inverse + behind
    plain = plain + behind * inverse
    moment = -(behind_moment * inverse)
    if SLOTS > 2:
        ahead = weights[SLOTS - 1][:, None]
        ahead_moment = ahead
        for k in tl.static_range(1, SLOTS - SLOTS // 2 - 1):
            ahead = ahead * ratio + weights[SLOTS - 1 - k][:, None]
            ahead_moment = ahead_moment * ratio + ahead
        plain = plain + ahead * ratio
        moment = moment + ahead_moment * ratio
    return start * plain, start * moment
