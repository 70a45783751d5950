"""Triton kernel that solves classes of `cayley_rotate` directly; README.md in this folder describes it."""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_kernels import norm, product_with_columns, share


@triton.jit
def elimination_kernel(
    skew,  # [classes, order, order], REAL; where the inverse is kept, it is overwritten by (I - sign S)^-1
    right_sides,  # [classes, vectors, dimension], dense
    solutions,
    rotated,
    products,  # [classes, vectors], int32; -1: not solved so far
    iterations,  # [classes], int32: their sum, -1: solved directly, -2: not accurate enough
    inverses,  # [programs, order, order], float64: workspace
    memory,  # [programs, order], float64: workspace
    classes,
    vectors,
    dimension,
    order,
    sign,
    ACCEPTED: tl.constexpr,
    FEW: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    REAL: tl.constexpr,
):
    """FEW vectors: those of classes the iteration has given up. Else: the inverses of all classes.

    Results that are not accurate enough are NaN.
    """
    lane = tl.arange(0, LANES)
    program = tl.program_id(0).to(tl.int64)
    inverse = inverses + program * order * order
    shared = memory + program * order
    for c in range(tl.program_id(0), classes, tl.num_programs(0)):
        matrix = skew + tl.cast(c, tl.int64) * order * order
        direct = -1
        total = 0
        if FEW:
            direct = 0
            for v in range(0, vectors):
                taken = tl.load(products + tl.cast(c, tl.int64) * vectors + v)
                total += taken
                direct = tl.minimum(direct, taken)
        if direct == -1:
            invert(matrix, inverse, order, -sign, BLOCK, TILE)
            error, poison = check_inverse(matrix, inverse, shared, dimension, order, sign, LANES, ROWS)
            accurate = error <= ACCEPTED  # false for NaN
            total = tl.where((poison == 0) & (accurate == 0), -2, -1)  # parameters that are no numbers are no failure
            poison += tl.where(accurate, 0.0, float("nan"))
            if FEW:
                for v in range(0, vectors):
                    place = (tl.cast(c, tl.int64) * vectors + v) * dimension + lane
                    right_side = tl.load(right_sides + place, mask=lane < dimension, other=0)
                    b = right_side.to(tl.float64)
                    x = solve_with_inverse(matrix, inverse, shared, b, order, sign, False, LANES, ROWS) + poison
                    tl.store(solutions + place, x.to(REAL), mask=lane < dimension)
                    tl.store(rotated + place, (2 * x - b).to(REAL), mask=lane < dimension)
            else:
                tl.debug_barrier()
                for first in range(0, order, ROWS):
                    place = (first + tl.arange(0, ROWS))[:, None] * order + lane[None, :]
                    inside = (lane < order)[None, :]
                    value = tl.load(inverse + place, mask=inside, other=0) + poison
                    tl.store(matrix + place, value.to(REAL), mask=inside)
        tl.store(iterations + c, total)
        tl.debug_barrier()


@triton.jit
def solve_with_inverse(
    matrix, inverse, shared, b, order, sign, TRANSPOSED: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr
):
    """x with (I + sign S) x = b, from (I - sign S)^-1, refined once; TRANSPOSED: with (I - sign S) x = b. In float64; a
    NaN or an infinity in b gives NaN."""
    x = _product_with_inverse(inverse, shared, b, order, TRANSPOSED, LANES, ROWS)
    share(shared, x, order, LANES)
    product = product_with_columns(matrix, shared, order, LANES, ROWS, tl.float64) * sign
    if TRANSPOSED:
        product = -product
    residual = b - x + product
    x += _product_with_inverse(inverse, shared, residual, order, TRANSPOSED, LANES, ROWS)
    return x + tl.sum(b * 0.0, axis=0)


@triton.jit
def _product_with_inverse(
    inverse, shared, vector, order, ROW_BY_ROW: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr
):
    """The sums over i of vector_i inverse_ij; ROW_BY_ROW: over j of inverse_ij vector_j, one i a lane."""
    lane = tl.arange(0, LANES)
    if ROW_BY_ROW:
        tl.debug_barrier()
        for first in range(0, order, ROWS):
            i = first + tl.arange(0, ROWS)
            part = tl.load(inverse + i[:, None] * order + lane[None, :], mask=(lane < order)[None, :], other=0)
            tl.store(shared + i, tl.sum(part * vector[None, :], axis=1))
        tl.debug_barrier()
        result = tl.load(shared + lane, mask=lane < order, other=0)
    else:
        share(shared, vector, order, LANES)
        result = product_with_columns(inverse, shared, order, LANES, ROWS, tl.float64)
    return result


@triton.jit
def check_inverse(matrix, inverse, shared, dimension, order, sign, LANES: tl.constexpr, ROWS: tl.constexpr):
    """How far the solution for a vector of 1 and -1 is off, relative to its length, which no single wrong row of the
    inverse leaves right; and 0, or NaN where a parameter is not finite."""
    lane = tl.arange(0, LANES)
    hashed = lane.to(tl.uint32) * 2654435769
    b = tl.where(lane < dimension, tl.where((hashed >> 31) == 0, 1.0, -1.0), 0.0).to(tl.float64)
    share(shared, b, order, LANES)
    x = product_with_columns(inverse, shared, order, LANES, ROWS, tl.float64)
    share(shared, x, order, LANES)
    residual = b - x + product_with_columns(matrix, shared, order, LANES, ROWS, tl.float64) * sign
    share(shared, b * 0.0, order, LANES)
    zero = product_with_columns(matrix, shared, order, LANES, ROWS, tl.float64)
    return norm(residual) / norm(b), tl.sum(zero, axis=0)


@triton.jit
def invert(matrix, inverse, order, sign, BLOCK: tl.constexpr, TILE: tl.constexpr):
    """inverse = (I + sign S)^-1 by block Gauss-Jordan elimination in place, without pivots: no block's symmetric part
    is smaller than I. ``order`` is a multiple of TILE, TILE of BLOCK."""
    small = tl.arange(0, BLOCK)
    large = tl.arange(0, TILE)
    for first in range(0, order, TILE):
        i = first + large
        for start in range(0, order, TILE):
            j = start + large
            place = i[:, None] * order + j[None, :]
            unit = tl.where(i[:, None] == j[None, :], 1.0, 0.0).to(tl.float64)
            tl.store(inverse + place, unit + tl.load(matrix + place).to(tl.float64) * sign)
    tl.debug_barrier()
    for first in range(0, order, BLOCK):
        k = first + small
        pivot = _invert_block(tl.load(inverse + k[:, None] * order + k[None, :]), BLOCK)
        for start in range(0, order, TILE):  # the pivot's rows
            j = start + large
            place = inverse + k[:, None] * order + j[None, :]
            row = tl.dot(pivot, tl.load(place), out_dtype=tl.float64)
            tl.debug_barrier()
            tl.store(place, row, mask=((j < first) | (j >= first + BLOCK))[None, :])
        tl.debug_barrier()
        for above in range(0, order, TILE):  # all other rows
            i = above + large
            other_row = ((i < first) | (i >= first + BLOCK))[:, None]
            column_place = inverse + i[:, None] * order + k[None, :]
            column = tl.load(column_place)
            for start in range(0, order, TILE):
                j = start + large
                place = inverse + i[:, None] * order + j[None, :]
                update = tl.dot(column, tl.load(inverse + k[:, None] * order + j[None, :]), out_dtype=tl.float64)
                other = other_row & ((j < first) | (j >= first + BLOCK))[None, :]
                tl.store(place, tl.load(place, mask=other, other=0) - update, mask=other)
            tl.debug_barrier()
            tl.store(column_place, -tl.dot(column, pivot, out_dtype=tl.float64), mask=other_row)
        tl.debug_barrier()
        tl.store(inverse + k[:, None] * order + k[None, :], pivot)
        tl.debug_barrier()


@triton.jit
def _invert_block(block, BLOCK: tl.constexpr):
    """The inverse of a block held in registers: Gauss-Jordan elimination, a pivot at a time."""
    row_index = tl.arange(0, BLOCK)[:, None]
    column_index = tl.arange(0, BLOCK)[None, :]
    for p in range(0, BLOCK):
        row = tl.sum(tl.where(row_index == p, block, 0.0), axis=0)
        column = tl.sum(tl.where(column_index == p, block, 0.0), axis=1)
        reciprocal = 1 / tl.sum(tl.where(tl.arange(0, BLOCK) == p, row, 0.0), axis=0)
        row *= reciprocal
        inner = block - column[:, None] * row[None, :]
        in_row = tl.where(column_index == p, reciprocal, tl.broadcast_to(row[None, :], [BLOCK, BLOCK]))
        in_column = tl.broadcast_to(-(column * reciprocal)[:, None], [BLOCK, BLOCK])
        block = tl.where(row_index == p, in_row, tl.where(column_index == p, in_column, inner))
    return block
