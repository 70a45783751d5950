"""Triton kernels around the losses' passes: the table of logits, the gradient from cells, NaN for logits not finite."""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_cells import CORNERS, piece

PADDING = tl.constexpr(-1e30)  # stands for minus infinity; finite, so that differences are
_SIZES = (
    "classes", "first_class", "height", "width", "label_height", "label_width", "elements", "row_cuts", "column_cuts",
    "row_pieces", "column_pieces", "unread", "end_unread", "pitch",
)  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def make_table(
    logits, table, classes, first_class, height, width, pitch, scale,
    stride_image, stride_class, stride_row, stride_column,
    SHIFTED: tl.constexpr, NODES: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """The logits times ``scale`` as float32 [nodes, pitch], the classes of a node side by side.

    `PADDING` stands before ``first_class`` and behind ``classes``. SHIFTED: less the largest of the node, so that all
    mixtures of nodes are at or below 0.
    """
    image = tl.program_id(1).to(tl.int64)
    node = (tl.program_id(0).to(tl.int64) * NODES + tl.arange(0, NODES))[None, :]
    present = node < height * width
    place = logits + image * stride_image + node // width * stride_row + node % width * stride_column
    largest = tl.zeros([NODES], tl.float32)
    if SHIFTED:
        largest += PADDING
        for first in range(0, classes, CLASSES):
            c = (first + tl.arange(0, CLASSES)).to(tl.int64)[:, None]
            inside = (c >= first_class) & (c < classes)
            z = tl.load(place + c * stride_class, mask=inside & present, other=0.0).to(tl.float32) * scale
            largest = tl.maximum(largest, tl.max(tl.where(inside, z, PADDING), 0))
    out = table + (image * height * width + node) * pitch
    for first in range(0, pitch, CLASSES):
        c = (first + tl.arange(0, CLASSES)).to(tl.int64)[:, None]
        inside = (c >= first_class) & (c < classes)
        z = tl.load(place + c * stride_class, mask=inside & present, other=0.0).to(tl.float32) * scale
        tl.store(out + c, tl.where(inside, z - largest[None, :], PADDING), mask=(c < pitch) & present)


@triton.jit(do_not_specialize=_SIZES)
def gather_from_cells(
    partial, gradient, poison, classes, unread, end_unread, height, width, label_height, label_width,
    row_pieces, column_pieces, row_cuts, column_cuts, pitch,
    gradient_image, gradient_class, gradient_row, gradient_column,
    ALIGN_CORNERS: tl.constexpr, NODES: tl.constexpr, CLASSES: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradient [B, C, h, w] of the cells' [cells, corners, pitch]: every node takes from the cells around it, in order.

    A program takes a run of nodes of a row and a block of classes. Classes from ``unread`` to before ``end_unread`` are
    in no term: their gradient is 0.
    """
    blocks = tl.cdiv(width, NODES)
    i, j = tl.program_id(0) // blocks, tl.program_id(0) % blocks * NODES + tl.arange(0, NODES)
    if WIDE:
        i, j = i.to(tl.int64), j.to(tl.int64)
    c = (tl.program_id(1) * CLASSES + tl.arange(0, CLASSES)).to(tl.int64)[:, None]
    image = tl.program_id(2).to(tl.int64)
    inside = (c < classes) & (j < width)[None, :]
    read = inside & ((c < unread) | (c >= end_unread))
    total = tl.zeros([CLASSES, NODES], tl.float32)
    # The two segments that touch a node: with borders, the first of them is that before node 0.
    above, before = i, j
    if ALIGN_CORNERS:
        above, before = i - 1, j - 1
    for p in range(above * row_cuts, (above + 2) * row_cuts):
        first_row, rows, top, bottom = piece(p, height, label_height, row_cuts, ALIGN_CORNERS)
        if (p >= 0) & (p < row_pieces):
            for k in range(2 * column_cuts):
                q = before * column_cuts + k
                first_column, columns, left, right = piece(q, width, label_width, column_cuts, ALIGN_CORNERS)
                touches = (q >= 0) & (q < column_pieces)
                corner = tl.where(top == i, 0, 2) + tl.where(left == j, 0, 1)
                cell = (image * row_pieces + p) * column_pieces + q
                place = partial + ((cell * CORNERS + corner) * pitch)[None, :] + c
                total += tl.load(place, mask=read & touches[None, :], other=0.0)
    out = gradient + image * gradient_image + c * gradient_class + i.to(tl.int64) * gradient_row
    tl.store(out + (j.to(tl.int64) * gradient_column)[None, :], total + tl.load(poison), mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def spread_poison(gradient, poison, elements, BLOCK: tl.constexpr):
    """NaN all over a dense gradient if a logit is not finite; ``poison`` is 0 or NaN."""
    value = tl.load(poison)
    if value != 0.0:
        place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        tl.store(gradient + place, tl.zeros([BLOCK], tl.float32) + value, mask=place < elements)


@triton.jit(do_not_specialize=_SIZES)
def find_poison(
    logits, sums, classes, height, width, stride_image, stride_class, stride_row, stride_column,
    COLUMN: tl.constexpr, COLUMNS: tl.constexpr, NODES: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Rows of sums with 0, or NaN for a logit that is not finite, in ``COLUMN`` and zeros elsewhere."""
    image = tl.program_id(1).to(tl.int64)
    node = tl.program_id(0).to(tl.int64) * NODES + tl.arange(0, NODES)
    place = logits + image * stride_image + node // width * stride_row + node % width * stride_column
    poison = tl.zeros([NODES], tl.float32)
    for first in range(0, classes, CLASSES):
        c = (first + tl.arange(0, CLASSES)).to(tl.int64)[:, None]
        inside = (c < classes) & (node < height * width)[None, :]
        z = tl.load(place[None, :] + c * stride_class, mask=inside, other=0.0).to(tl.float32)
        poison += tl.sum(z * 0.0, 0)
    column = tl.arange(0, COLUMNS)
    row = sums + (image * tl.num_programs(0) + tl.program_id(0)) * COLUMNS
    tl.store(row + column, tl.where(column == COLUMN, tl.sum(poison), 0.0))
