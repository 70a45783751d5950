"""Triton kernels of `predict` and `confusion`; README.md in this folder has their structure."""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_enlargement import source_position


@triton.jit
def _tile(columns, row_tiles, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The image, the rows and the columns of this program's tile of pixels; tiles are numbered row by row."""
    program = tl.program_id(0).to(tl.int64)
    image = program // (columns * row_tiles)
    y = (program // columns % row_tiles) * ROWS + tl.arange(0, ROWS)
    x = (program % columns) * COLUMNS + tl.arange(0, COLUMNS)
    return image, y, x


@triton.jit
def _largest_classes(
    logits,
    class_stride,
    row_stride,
    column_stride,
    classes,
    height,
    width,
    label_height,
    label_width,
    y,
    x,
    SIGMOID: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    REAL: tl.constexpr,
    INDEX: tl.constexpr,
):
    """The classes [rows, columns] of the pixels (y, x) of the image whose logits are given; y covers at most three
    source rows."""
    rows: tl.constexpr = y.shape[0]
    columns: tl.constexpr = x.shape[0]
    # Beyond the border the last pixel is computed again, and not stored.
    x_inside = tl.minimum(x, label_width - 1).to(INDEX)
    left, right, x_fraction = source_position(x_inside, width, label_width, ALIGN_CORNERS, REAL)
    y_inside = tl.minimum(y, label_height - 1).to(INDEX)
    above, _, y_fraction = source_position(y_inside, height, label_height, ALIGN_CORNERS, REAL)
    # Rows lie between the first two of three source rows, or between the last two: weights of the two differences.
    first = tl.min(above, axis=0)
    is_lower = above > first
    upper_weight = tl.where(is_lower, 1.0, y_fraction)[:, None]
    lower_weight = tl.where(is_lower, y_fraction, 0.0)[:, None]
    row_0 = logits + first.to(tl.int64) * row_stride
    row_1 = logits + tl.minimum(first + 1, height - 1).to(tl.int64) * row_stride
    row_2 = logits + tl.minimum(first + 2, height - 1).to(tl.int64) * row_stride
    left_offset = left.to(tl.int64) * column_stride
    right_offset = right.to(tl.int64) * column_stride

    best = tl.zeros([rows, columns], tl.int32)
    if SIGMOID:  # channel 0 is no class: background unless a logit is above 0
        highest = tl.zeros([rows, columns], REAL)
    else:
        highest = tl.full([rows, columns], float("-inf"), REAL)
    for c in range(1 if SIGMOID else 0, classes):
        offset = c * class_stride
        z_0 = _between(row_0 + offset, left_offset, right_offset, x_fraction, REAL)
        z_1 = _between(row_1 + offset, left_offset, right_offset, x_fraction, REAL)
        z_2 = _between(row_2 + offset, left_offset, right_offset, x_fraction, REAL)
        z = tl.fma(upper_weight, (z_1 - z_0)[None, :], tl.broadcast_to(z_0[None, :], [rows, columns]))
        z = tl.fma(lower_weight, (z_2 - z_1)[None, :], z)
        higher = z > highest
        highest = tl.where(higher, z, highest)
        best = tl.where(higher, c, best)
    return best


@triton.jit
def _between(row, left_offset, right_offset, fraction, REAL: tl.constexpr):
    """A source row's values at the columns of a tile."""
    left = tl.load(row + left_offset).to(REAL)
    return tl.fma(fraction, tl.load(row + right_offset).to(REAL) - left, left)


@triton.jit
def predict_kernel(
    logits,
    batch_stride,
    class_stride,
    row_stride,
    column_stride,
    labels,  # [batch, label_height, label_width], dense
    classes,
    height,
    width,
    label_height,
    label_width,
    column_tiles,
    row_tiles,
    SIGMOID: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    REAL: tl.constexpr,
    INDEX: tl.constexpr,
):
    image, y, x = _tile(column_tiles, row_tiles, ROWS, COLUMNS)
    best = _largest_classes(
        logits + image * batch_stride,
        tl.cast(class_stride, tl.int64),
        row_stride,
        column_stride,
        classes,
        height,
        width,
        label_height,
        label_width,
        y,
        x,
        SIGMOID,
        ALIGN_CORNERS,
        REAL,
        INDEX,
    )
    place = labels + (image * label_height + y[:, None]) * label_width + x[None, :]
    inside = (y < label_height)[:, None] & (x < label_width)[None, :]
    tl.store(place, best.to(labels.dtype.element_ty), mask=inside)


@triton.jit
def confusion_kernel(
    logits,
    batch_stride,
    class_stride,
    row_stride,
    column_stride,
    label,
    label_batch_stride,
    label_row_stride,
    label_column_stride,
    counts,  # [num_classes, num_classes], int64, dense, 0 before
    num_classes,
    ignore_index,
    classes,
    height,
    width,
    label_height,
    label_width,
    column_tiles,
    row_tiles,
    SIGMOID: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    REAL: tl.constexpr,
    INDEX: tl.constexpr,
):
    image, y, x = _tile(column_tiles, row_tiles, ROWS, COLUMNS)
    best = _largest_classes(
        logits + image * batch_stride,
        tl.cast(class_stride, tl.int64),
        row_stride,
        column_stride,
        classes,
        height,
        width,
        label_height,
        label_width,
        y,
        x,
        SIGMOID,
        ALIGN_CORNERS,
        REAL,
        INDEX,
    )
    inside = (y < label_height)[:, None] & (x < label_width)[None, :]
    place = label + image * label_batch_stride + y[:, None] * label_row_stride + x[None, :] * label_column_stride
    truth = tl.load(place, mask=inside, other=0).to(tl.int64)
    counted = inside & (truth != ignore_index) & (truth >= 0) & (truth < num_classes)
    cell = truth * num_classes + best
    # One addition for a tile, or for a column of it, whose pixels all belong to the same cell; else one a pixel.
    beyond = tl.full([ROWS, COLUMNS], 1, tl.int64) << 62
    lowest = tl.min(tl.where(counted, cell, beyond), axis=0)
    highest = tl.max(tl.where(counted, cell, -1), axis=0)
    number = tl.sum(counted.to(tl.int32), axis=0)
    tile_cell = tl.max(highest, axis=0)
    if tl.min(lowest, axis=0) >= tile_cell:
        tl.atomic_add(counts + tl.maximum(tile_cell, 0), tl.sum(number, axis=0).to(tl.int64), sem="relaxed")
    else:
        is_uniform = lowest >= highest
        tl.atomic_add(
            counts + tl.maximum(highest, 0), number.to(tl.int64), mask=is_uniform & (number > 0), sem="relaxed"
        )
        tl.atomic_add(
            counts + tl.where(counted, cell, 0),
            counted.to(tl.int64),
            mask=counted & (is_uniform == 0)[None, :],
            sem="relaxed",
        )
