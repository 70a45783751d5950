"""Sums over a cell of the sigmoid loss by quadrature: its nodes along an axis, and the rules behind them.

Where logits change little over a piece of an axis, the sum over its pixels is that of a few nodes (`..gauss_rule`).
Otherwise, or where labels differ within a cell, every pixel is a node.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..gauss_rule import LIMITS, NODES
from ..triton_cells import change_of_weight, weight_of_right

RULES = tl.constexpr(len(NODES))
RULE_NODES = tl.constexpr(NODES)
RULE_LIMITS = tl.constexpr(LIMITS)
ENTRIES = tl.constexpr(2 * sum(NODES))  # of the rules for one number of points: position and weight of every node


@triton.jit
def store_rules(rules, LENGTHS: tl.constexpr, VALUES: tl.constexpr):
    """One program: the table [points, ENTRIES] at the numbers of points that there are."""
    for i in tl.static_range(len(LENGTHS)):
        for k in tl.static_range(ENTRIES):
            tl.store(rules + LENGTHS[i] * ENTRIES + k, VALUES[i * ENTRIES + k])


@triton.jit
def rule_of(rules, pixels, change, every_pixel):
    """Number of nodes of a piece of an axis, and their address, where logits change by ``change`` from pixel to pixel.

    As many nodes as pixels stand for the pixels themselves, which have no entries.
    """
    count, offset = pixels, 0
    first = ENTRIES
    for rule in tl.static_range(RULES - 1, -1, -1):  # the smallest that serves
        first -= 2 * RULE_NODES[rule]
        serves = (change * pixels <= RULE_LIMITS[rule]) & (pixels > RULE_NODES[rule]) & (every_pixel == 0)
        count, offset = tl.where(serves, RULE_NODES[rule], count), tl.where(serves, first, offset)
    return count, rules + pixels * ENTRIES + offset


@triton.jit
def node(rule, number, count, pixels):
    """A node's distance from the middle of the piece, in pixels, and the number of pixels it stands for."""
    is_pixel = count == pixels
    position = tl.load(rule + 2 * number, mask=is_pixel == 0, other=0.0)
    weight = tl.load(rule + 2 * number + 1, mask=is_pixel == 0, other=1.0)
    return tl.where(is_pixel, number - 0.5 * (pixels - 1), position), weight


@triton.jit
def middle_of(first, pixels, left, right, source, output, ALIGN_CORNERS: tl.constexpr):
    """Weight of the right node in the middle of a piece, and its change from pixel to pixel."""
    change = change_of_weight(left, right, source, output, ALIGN_CORNERS)
    start = weight_of_right(first, left, right, source, output, ALIGN_CORNERS)
    return start + 0.5 * (pixels - 1) * change, change


@triton.jit
def logits_at(corners, c):
    """Logits of classes ``c`` at the corners whose addresses in the table these are."""
    return tl.load(corners[0] + c), tl.load(corners[1] + c), tl.load(corners[2] + c), tl.load(corners[3] + c)


@triton.jit
def change_along(corners, FIRST: tl.constexpr, SECOND: tl.constexpr, inside):
    """Largest difference between neighbouring corners, along rows (1, 2) or columns (2, 1), of classes ``inside``."""
    first, second = tl.abs(corners[FIRST] - corners[0]), tl.abs(corners[3] - corners[SECOND])
    return tl.max(tl.where(inside, tl.maximum(first, second), 0.0))


@triton.jit
def line_across(corners, down):
    """Logits at the left end of the line where the lower corners weigh ``down``, and their change to its right end."""
    left = corners[0] + down * (corners[2] - corners[0])
    return left, corners[1] + down * (corners[3] - corners[1]) - left
