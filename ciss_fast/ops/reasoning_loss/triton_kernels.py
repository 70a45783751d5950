"""Triton kernels of `reasoning_loss`; README.md in this folder has the formulas and their structure.

REAL is the type of arithmetic, tl.float32 or tl.float64; weights are dense and of that type. Pixels are numbered
through all images, row by row.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _pixel_offsets(pixel, height, width, batch_stride, row_stride, column_stride):
    """Where a channel's value of each pixel lies."""
    image = pixel // width // height
    return image * batch_stride + pixel // width % height * row_stride + pixel % width * column_stride


@triton.jit
def _scores(
    feature,  # by the pixels' offsets and channel_stride
    offsets,
    is_pixel,
    channel_stride,
    weight,  # [classes, channels], dense
    c,
    is_class,
    channels,
    POSITIVE: tl.constexpr,
    NEGATIVE: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    REAL: tl.constexpr,
):
    """Positive and negative scores [pixels, classes]; one that is not asked for is 0."""
    positive = tl.zeros([offsets.shape[0], c.shape[0]], REAL)
    negative = tl.zeros([offsets.shape[0], c.shape[0]], REAL)
    for first in range(0, channels, DEPTH):
        d = (first + tl.arange(0, DEPTH)).to(tl.int64)
        inside = is_pixel[:, None] & (d < channels)[None, :]
        f = tl.load(feature + offsets[:, None] + d[None, :] * channel_stride, mask=inside, other=0).to(REAL)
        inside = (d < channels)[:, None] & is_class[None, :]
        w = tl.load(weight + c[None, :] * channels + d[:, None], mask=inside, other=0)
        if POSITIVE:
            part = tl.where(w < 0, 0.0, w)  # NaN stays
            positive = tl.dot(f, part, positive, input_precision=PRECISION, out_dtype=REAL)
        if NEGATIVE:
            part = tl.where(w > 0, 0.0, w)
            negative = tl.dot(f, part, negative, input_precision=PRECISION, out_dtype=REAL)
    return positive, negative


@triton.jit
def _binary_cross_entropy(z, z_teacher, TERMS: tl.constexpr):
    """BCE(z, sigmoid(z')) and its derivative, each with all its digits (README.md); NaN for what is not finite.

    TERMS of the series log(1 + e) = 2 (k + k^3/3 + k^5/5 + ...), k = e / (2 + e) <= 1/3.
    """
    size = tl.abs(z)
    e = tl.exp(-size)
    e_teacher = tl.exp(-tl.abs(z_teacher))
    # The teacher's sigmoid where z is taken to be negative.
    of_teacher = tl.where(tl.where(z > 0, -z_teacher, z_teacher) < 0, e_teacher, 1.0) / (1 + e_teacher)
    k = e / (2 + e)
    square = k * k
    series = tl.zeros_like(z) + 1.0 / (2 * TERMS - 1)
    for i in tl.static_range(TERMS - 1, 0, -1):
        series = series * square + 1.0 / (2 * i - 1)
    value = 2 * k * series + size * of_teacher + (z * 0.0 + z_teacher * 0.0)
    gradient = of_teacher - e / (1 + e)
    return value, tl.where(z > 0, gradient, -gradient)


@triton.jit
def scores_kernel(
    feature,
    batch_stride,
    channel_stride,
    row_stride,
    column_stride,
    weight,
    channels,
    feature_old,
    old_batch_stride,
    old_channel_stride,
    old_row_stride,
    old_column_stride,
    weight_old,
    channels_old,
    sums,  # [programs, 2], float64: of the values of pos and neg
    gradients,  # [2, pixels, classes], REAL: on the scores of pos and neg, if GRADIENT
    pixels,
    height,
    width,
    classes,
    class_blocks,
    positive_factor,  # of a term's gradient, and what single precision leaves out of it
    positive_rest,
    negative_factor,
    negative_rest,
    POSITIVE: tl.constexpr,
    NEGATIVE: tl.constexpr,
    GRADIENT: tl.constexpr,
    PIXELS: tl.constexpr,
    CLASSES: tl.constexpr,
    DEPTH: tl.constexpr,
    TERMS: tl.constexpr,
    PRECISION: tl.constexpr,
    REAL: tl.constexpr,
):
    """Both scores of student and teacher for a block of pixels and classes; their losses and gradients."""
    program = tl.program_id(0).to(tl.int64)
    p = program // class_blocks * PIXELS + tl.arange(0, PIXELS)
    c = program % class_blocks * CLASSES + tl.arange(0, CLASSES)
    is_pixel = p < pixels
    is_class = c < classes
    offsets = _pixel_offsets(p, height, width, batch_stride, row_stride, column_stride)
    positive, negative = _scores(
        *(feature, offsets, is_pixel, channel_stride, weight, c, is_class, channels),
        *(POSITIVE, NEGATIVE, DEPTH, PRECISION, REAL),
    )
    offsets = _pixel_offsets(p, height, width, old_batch_stride, old_row_stride, old_column_stride)
    positive_old, negative_old = _scores(
        *(feature_old, offsets, is_pixel, old_channel_stride, weight_old, c, is_class, channels_old),
        *(POSITIVE, NEGATIVE, DEPTH, PRECISION, REAL),
    )
    inside = is_pixel[:, None] & is_class[None, :]
    place = gradients + p[:, None] * classes + c[None, :]
    if POSITIVE:
        value, gradient = _binary_cross_entropy(positive, positive_old, TERMS)
        total = tl.sum(tl.sum(tl.where(inside, value, 0.0), axis=1).to(tl.float64), axis=0)
        tl.store(sums + program * 2, total)
        if GRADIENT:
            factor = tl.cast(positive_factor, REAL) + tl.cast(positive_rest, REAL)
            tl.store(place, gradient * factor, mask=inside)
    else:
        tl.store(sums + program * 2, 0.0)
    if NEGATIVE:
        value, gradient = _binary_cross_entropy(negative, negative_old, TERMS)
        total = tl.sum(tl.sum(tl.where(inside, value, 0.0), axis=1).to(tl.float64), axis=0)
        tl.store(sums + program * 2 + 1, total)
        if GRADIENT:
            factor = tl.cast(negative_factor, REAL) + tl.cast(negative_rest, REAL)
            tl.store(place + pixels * tl.cast(classes, tl.int64), gradient * factor, mask=inside)
    else:
        tl.store(sums + program * 2 + 1, 0.0)


@triton.jit
def feature_gradient_kernel(
    gradients,  # [2, pixels, classes], on the scores
    weight,
    result,  # by strides
    batch_stride,
    channel_stride,
    row_stride,
    column_stride,
    poison,  # 0, or NaN where a score is not finite
    pixels,
    height,
    width,
    classes,
    channels,
    channel_blocks,
    POSITIVE: tl.constexpr,
    NEGATIVE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    REAL: tl.constexpr,
):
    """G+ max(w, 0) + G- min(w, 0) for a block of pixels and channels."""
    program = tl.program_id(0).to(tl.int64)
    p = program // channel_blocks * PIXELS + tl.arange(0, PIXELS)
    d = program % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)
    total = tl.zeros([PIXELS, CHANNELS], REAL)
    for first in range(0, classes, DEPTH):
        c = (first + tl.arange(0, DEPTH)).to(tl.int64)
        in_gradients = (p < pixels)[:, None] & (c < classes)[None, :]
        place = gradients + p[:, None] * classes + c[None, :]
        in_weight = (c < classes)[:, None] & (d < channels)[None, :]
        w = tl.load(weight + c[:, None] * channels + d[None, :], mask=in_weight, other=0)
        if POSITIVE:
            g = tl.load(place, mask=in_gradients, other=0)
            total = tl.dot(g, tl.where(w < 0, 0.0, w), total, input_precision=PRECISION, out_dtype=REAL)
        if NEGATIVE:
            g = tl.load(place + pixels * tl.cast(classes, tl.int64), mask=in_gradients, other=0)
            total = tl.dot(g, tl.where(w > 0, 0.0, w), total, input_precision=PRECISION, out_dtype=REAL)
    offsets = _pixel_offsets(p, height, width, batch_stride, row_stride, column_stride)
    place = result + offsets[:, None] + d[None, :] * channel_stride
    tl.store(place, total + tl.load(poison).to(REAL), mask=(p < pixels)[:, None] & (d < channels)[None, :])


@triton.jit
def weight_gradient_kernel(
    gradients,  # [2, pixels, classes], on the scores
    feature,
    batch_stride,
    channel_stride,
    row_stride,
    column_stride,
    weight,
    result,  # [chunks, classes, channels], dense
    pixels,
    height,
    width,
    classes,
    channels,
    pixels_of_chunk,
    class_blocks,
    channel_blocks,
    POSITIVE: tl.constexpr,
    NEGATIVE: tl.constexpr,
    CLASSES: tl.constexpr,
    CHANNELS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    REAL: tl.constexpr,
):
    """What a chunk of pixels adds to the gradient on the weights: G+^T f where w > 0, G-^T f where w < 0."""
    program = tl.program_id(0).to(tl.int64)
    chunk = program // (class_blocks * channel_blocks)
    c = program // channel_blocks % class_blocks * CLASSES + tl.arange(0, CLASSES)
    d = program % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)
    positive = tl.zeros([CLASSES, CHANNELS], REAL)
    negative = tl.zeros([CLASSES, CHANNELS], REAL)
    end = tl.minimum((chunk + 1) * pixels_of_chunk, pixels)
    for first in range(chunk * pixels_of_chunk, end, DEPTH):
        p = first + tl.arange(0, DEPTH).to(tl.int64)
        offsets = _pixel_offsets(p, height, width, batch_stride, row_stride, column_stride)
        inside = (p < end)[:, None] & (d < channels)[None, :]
        f = tl.load(feature + offsets[:, None] + d[None, :] * channel_stride, mask=inside, other=0).to(REAL)
        inside = (c < classes)[:, None] & (p < end)[None, :]
        place = gradients + p[None, :] * classes + c[:, None]
        if POSITIVE:
            g = tl.load(place, mask=inside, other=0)
            positive = tl.dot(g, f, positive, input_precision=PRECISION, out_dtype=REAL)
        if NEGATIVE:
            g = tl.load(place + pixels * tl.cast(classes, tl.int64), mask=inside, other=0)
            negative = tl.dot(g, f, negative, input_precision=PRECISION, out_dtype=REAL)
    inside = (c < classes)[:, None] & (d < channels)[None, :]
    w = tl.load(weight + c[:, None] * channels + d[None, :], mask=inside, other=0)
    both = 0.5 * (positive + negative)  # at 0 the mean of the two
    value = tl.where(w > 0, positive, tl.where(w < 0, negative, both))
    tl.store(result + (chunk * classes + c[:, None]) * channels + d[None, :], value, mask=inside)
