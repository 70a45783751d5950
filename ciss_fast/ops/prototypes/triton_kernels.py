"""Triton kernels of `prototypes`; README.md in this folder has their structure.

REAL is the type of arithmetic and of results, tl.float32 or tl.float64.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def lengths_kernel(
    vectors,  # [outer, inner, dimension] by strides
    outer_stride,
    inner_stride,
    element_stride,
    inverse_lengths,  # [outer, inner], dense
    scaled,  # [outer, inner, dimension], dense: the vectors times a power of two, if SCALE
    inner,
    count,  # outer * inner
    dimension,
    SCALE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    REAL: tl.constexpr,
):
    """1 / length of vectors, at least 1e-12 as in torch.nn.functional.normalize, NaN where that is not finite.

    With SCALE the inverse lengths are those of the scaled vectors, whose length is from 1 to 2.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    start = vectors + (row // inner) * outer_stride + (row % inner) * inner_stride
    square = tl.zeros([ROWS], tl.float64)
    for first in range(0, dimension, COLUMNS):
        d = (first + column).to(tl.int64)
        inside = (row < count)[:, None] & (d < dimension)[None, :]
        part = tl.load(start[:, None] + d[None, :] * element_stride, mask=inside, other=0).to(tl.float64)
        square += tl.sum(part * part, axis=1)
    length = tl.maximum(tl.sqrt(square), 1e-12)
    length = tl.where(square < float("inf"), length, float("nan"))
    if SCALE:
        exponent = ((length.to(tl.int64, bitcast=True) >> 52) & 2047) - 1023
        exponent = tl.minimum(exponent, 120)  # also where it is not finite
        scale = ((1023 - exponent) << 52).to(tl.float64, bitcast=True)
        length *= scale
        factor = scale.to(REAL)[:, None]
        for first in range(0, dimension, COLUMNS):
            d = (first + column).to(tl.int64)
            inside = (row < count)[:, None] & (d < dimension)[None, :]
            part = tl.load(start[:, None] + d[None, :] * element_stride, mask=inside, other=0).to(REAL)
            place = scaled + row[:, None] * dimension + d[None, :]
            tl.store(place, (part * factor).to(scaled.dtype.element_ty), mask=inside)
    tl.store(inverse_lengths + row, (1 / length).to(inverse_lengths.dtype.element_ty), mask=row < count)


@triton.jit
def scores_kernel(
    positions,  # [count, dimension], dense, lengths up to 2
    memory,  # [classes, per_class, dimension] by strides
    class_stride,
    vector_stride,
    element_stride,
    position_inverse_lengths,  # [count], float64
    memory_inverse_lengths,  # [classes, per_class], REAL
    scores,  # [classes, count], float64
    count,
    per_class,
    dimension,
    position_blocks,
    POSITIONS: tl.constexpr,
    VECTORS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRODUCT: tl.constexpr,
    PRECISION: tl.constexpr,
    REAL: tl.constexpr,
):
    """v_c(p) of a class and a block of positions. Factors are of type PRODUCT, sums REAL and float64."""
    program = tl.program_id(0)
    c = (program // position_blocks).to(tl.int64)
    p = (program % position_blocks).to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS)
    depth = tl.arange(0, DEPTH)
    rows = positions + p[:, None] * dimension
    score = tl.zeros([POSITIONS], tl.float64)
    for first in range(0, per_class, VECTORS):
        s = (first + tl.arange(0, VECTORS)).to(tl.int64)
        columns = memory + c * class_stride + s[None, :] * vector_stride
        product = tl.zeros([POSITIONS, VECTORS], REAL)
        for start in range(0, dimension, DEPTH):
            d = (start + depth).to(tl.int64)
            inside = (p < count)[:, None] & (d < dimension)[None, :]
            left = tl.load(rows + d[None, :], mask=inside, other=0).to(PRODUCT)
            inside = (d < dimension)[:, None] & (s < per_class)[None, :]
            right = tl.load(columns + d[:, None] * element_stride, mask=inside, other=0).to(PRODUCT)
            product = tl.dot(left, right, product, input_precision=PRECISION, out_dtype=REAL)
        inverse = tl.load(memory_inverse_lengths + c * per_class + s, mask=s < per_class, other=0)
        cosine = tl.where(product < 0, 0.0, product) * inverse[None, :]  # NaN stays
        if REAL == tl.float64:
            score += tl.sum(cosine, axis=1)
        else:
            # Multiples of 2^-15, whose sum (up to 512) is exact, and what is left of them.
            multiple = (cosine + 384.0) - 384.0
            score += tl.sum(multiple, axis=1).to(tl.float64) + tl.sum(cosine - multiple, axis=1).to(tl.float64)
    score *= tl.load(position_inverse_lengths + p, mask=p < count, other=0)
    tl.store(scores + c * count + p, score, mask=p < count)


@triton.jit
def softmax_kernel(
    scores,  # [classes, count]
    highest,  # [classes], float64: the largest score; NaN if one is not finite
    weight_sums,  # [classes], float64: sum of exp(temperature (score - highest))
    count,
    temperature,
    temperature_rest,
    BLOCK: tl.constexpr,
    REAL: tl.constexpr,
):
    c = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    largest = tl.full([BLOCK], float("-inf"), tl.float64)
    poison = tl.zeros([BLOCK], tl.float64)
    for first in range(0, count, BLOCK):
        p = first + lane
        score = tl.load(scores + c * count + p, mask=p < count, other=float("-inf"))
        largest = tl.where(score > largest, score, largest)
        poison += tl.where(p < count, score, 0.0) * 0.0
    shift = tl.max(largest, axis=0) + tl.sum(poison, axis=0)
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, count, BLOCK):
        p = first + lane
        score = tl.load(scores + c * count + p, mask=p < count, other=float("-inf"))
        total += _weight(score, shift, temperature, temperature_rest, REAL).to(tl.float64)
    tl.store(highest + c, shift)
    tl.store(weight_sums + c, tl.sum(total, axis=0))


@triton.jit
def _weight(score, highest, temperature, temperature_rest, REAL: tl.constexpr):
    """exp(temperature (score - highest)), the exponent in float64.

    Numbers reach a kernel in single precision: ``temperature_rest`` is what the temperature is short of.
    """
    factor = tl.cast(temperature, tl.float64) + tl.cast(temperature_rest, tl.float64)
    return tl.exp((factor * (score - highest)).to(REAL))


@triton.jit
def weighted_sums_kernel(
    scores,  # [classes, count]
    highest,  # [classes]
    feature_prev,
    prev_position_stride,
    prev_element_stride,
    feature_curr,
    curr_position_stride,
    curr_element_stride,
    sums,  # [chunks, 2, classes, dimension], REAL, dense: of the previous and the current features
    count,
    classes,
    dimension,
    temperature,
    temperature_rest,
    positions_of_chunk,
    class_blocks,
    element_blocks,
    CLASSES: tl.constexpr,
    ELEMENTS: tl.constexpr,
    POSITIONS: tl.constexpr,
    PRECISION: tl.constexpr,
    REAL: tl.constexpr,
):
    """Sums of the features of a chunk of positions, each weighted by exp(temperature (score - highest))."""
    program = tl.program_id(0)
    element_block = program % element_blocks
    class_block = program // element_blocks % class_blocks
    which = program // (element_blocks * class_blocks) % 2
    chunk = (program // (element_blocks * class_blocks * 2)).to(tl.int64)
    c = (class_block * CLASSES + tl.arange(0, CLASSES)).to(tl.int64)
    d = (element_block * ELEMENTS + tl.arange(0, ELEMENTS)).to(tl.int64)
    shift = tl.load(highest + c, mask=c < classes, other=0)
    result = tl.zeros([CLASSES, ELEMENTS], REAL)
    end = tl.minimum((chunk + 1) * positions_of_chunk, count)
    for first in range(chunk * positions_of_chunk, end, POSITIONS):
        p = first + tl.arange(0, POSITIONS).to(tl.int64)
        inside = (c < classes)[:, None] & (p < end)[None, :]
        score = tl.load(scores + c[:, None] * count + p[None, :], mask=inside, other=float("-inf"))
        weight = _weight(score, shift[:, None], temperature, temperature_rest, REAL)
        inside = (p < end)[:, None] & (d < dimension)[None, :]
        if which == 0:
            place = feature_prev + p[:, None] * prev_position_stride + d[None, :] * prev_element_stride
            feature = tl.load(place, mask=inside, other=0).to(REAL)
        else:
            place = feature_curr + p[:, None] * curr_position_stride + d[None, :] * curr_element_stride
            feature = tl.load(place, mask=inside, other=0).to(REAL)
        result = tl.dot(weight, feature, result, input_precision=PRECISION, out_dtype=REAL)
    place = sums + ((chunk * 2 + which) * classes + c[:, None]) * dimension + d[None, :]
    tl.store(place, result, mask=(c < classes)[:, None] & (d < dimension)[None, :])
