"""Triton kernels for gradients, shared by the losses: sums in a fixed order; NaN where a logit is not finite."""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_enlargement import first_pixel, weight_on_node

_SIZES = ("classes", "height", "width", "label_height", "label_width", "longest", "elements")


@triton.jit(do_not_specialize=_SIZES)
def gather_from_pixels(
    pixels, gradient, poison, classes, height, width, label_height, label_width, longest,
    gradient_image, gradient_class, gradient_row, gradient_column,
    ALIGN_CORNERS: tl.constexpr, NODES: tl.constexpr, CLASSES: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The adjoint of the enlargement: gradient [B, C, h, w] from the gradient at every pixel, [B, C, H, W], dense.

    A program takes a run of nodes of a row and a block of classes; ``longest`` is the largest number of pixels that
    read a node along a row.
    """
    blocks = tl.cdiv(width, NODES)
    i, j = tl.program_id(0) // blocks, tl.program_id(0) % blocks * NODES + tl.arange(0, NODES)
    if WIDE:
        i, j = i.to(tl.int64), j.to(tl.int64)
    c = (tl.program_id(1) * CLASSES + tl.arange(0, CLASSES)).to(tl.int64)[:, None]
    image = tl.program_id(2).to(tl.int64)
    inside = (c < classes) & (j < width)[None, :]
    plane = pixels + (image * classes + c) * label_height * label_width
    first_row = first_pixel(i - 1, height, label_height, ALIGN_CORNERS)
    end_row = first_pixel(i + 1, height, label_height, ALIGN_CORNERS)
    first_column = first_pixel(j - 1, width, label_width, ALIGN_CORNERS)
    end_column = first_pixel(j + 1, width, label_width, ALIGN_CORNERS)
    total = tl.zeros([CLASSES, NODES], tl.float32)
    for y in range(first_row, end_row):
        down = weight_on_node(y, i, height, label_height, ALIGN_CORNERS)
        for k in range(longest):
            x = first_column + k
            along = weight_on_node(x, j, width, label_width, ALIGN_CORNERS)
            read = inside & (x < end_column)[None, :]
            offset = y * label_width + x
            total += (down * along)[None, :] * tl.load(plane + offset[None, :], mask=read, other=0.0)
    place = gradient + image * gradient_image + c * gradient_class + i.to(tl.int64) * gradient_row
    tl.store(place + (j.to(tl.int64) * gradient_column)[None, :], total + tl.load(poison), mask=inside)


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
