"""Triton kernels of `cayley_rotate` but the elimination; README.md in this folder derives and describes them.

REAL is the type of arithmetic, tl.float32 or tl.float64. Matrices are [order, order] per class, order being the
dimension padded with zeros (an inverse: with ones on the diagonal).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def unpack_kernel(
    params,  # [classes, dimension (dimension - 1) / 2], dense
    skew,  # [classes, order, order]
    dimension,
    order,
    tiles,
    TILE: tl.constexpr,
):
    """S = (U - U^T) / 2 from the entries of U above the diagonal, row by row; a tile and its mirror image a program."""
    program = tl.program_id(0)
    row_tile = program // tiles % tiles
    column_tile = program % tiles
    if row_tile <= column_tile:
        c = (program // (tiles * tiles)).to(tl.int64)
        i = (row_tile * TILE + tl.arange(0, TILE)).to(tl.int64)[:, None]
        j = (column_tile * TILE + tl.arange(0, TILE)).to(tl.int64)[None, :]
        above = (i < j) & (j < dimension)
        class_params = params + c * (tl.cast(dimension, tl.int64) * (dimension - 1) // 2)
        upper = 0.5 * tl.load(class_params + packed_place(i, j, dimension), mask=above, other=0)
        matrix = skew + c * order * order
        if row_tile == column_tile:
            tl.store(matrix + i * order + j, upper - tl.trans(upper))
        else:
            tl.store(matrix + i * order + j, upper)
            tl.store(matrix + tl.trans(j) * order + tl.trans(i), -tl.trans(upper))


@triton.jit
def packed_place(i, j, dimension):
    """Where the entry (i, j) above the diagonal is among those of a class."""
    return i * (2 * dimension - i - 1) // 2 + j - i - 1


@triton.jit
def product_with_columns(matrix, vector, order, LANES: tl.constexpr, ROWS: tl.constexpr, REAL: tl.constexpr):
    """The sums over i of vector_i matrix_ij, one j a lane; both in memory, REAL. With S in the place of the matrix
    it is -S vector. ``order`` is a multiple of ROWS."""
    lane = tl.arange(0, LANES)
    total = tl.zeros([ROWS, LANES], REAL)
    for first in range(0, order, ROWS):
        i = first + tl.arange(0, ROWS)
        part = tl.load(matrix + i[:, None] * order + lane[None, :], mask=(lane < order)[None, :], other=0)
        total += part.to(REAL) * tl.load(vector + i).to(REAL)[:, None]
    return tl.sum(total, axis=0)


@triton.jit
def share(memory, values, order, LANES: tl.constexpr):
    """Write a vector to memory so that all threads of the program can read it."""
    lane = tl.arange(0, LANES)
    tl.debug_barrier()
    tl.store(memory + lane, values, mask=lane < order)
    tl.debug_barrier()


@triton.jit
def norm(values):
    """Length of a vector, float64."""
    wide = values.to(tl.float64)
    return tl.sqrt(tl.sum(wide * wide, axis=0))


@triton.jit
def minimal_residuals(
    matrix,  # [order, order]: S
    shared,  # [order]: workspace
    right_side,  # one element a lane
    trying,  # int32; where it is 0 nothing is tried
    order,
    sign,
    most_products,
    WANTED: tl.constexpr,
    ACCEPTED: tl.constexpr,
    TRIAL_PRODUCTS: tl.constexpr,
    FEW_PRODUCTS: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    REAL: tl.constexpr,
):
    """x with (I + sign S) x = right side, how many products that took, and whether it is solved, 1 or 0
    (README.md; csrc/cpu/skew_krylov.h is the same)."""
    size = norm(right_side)
    finite = size < float("inf")
    b = tl.where(finite & (size > 0), right_side.to(tl.float64) / size, 0.0).to(REAL)
    x = tl.zeros([LANES], REAL)
    residual = b
    remaining_norm = tl.where(finite & (size > 0), 1.0, 0.0).to(tl.float64)
    taken = 0
    largest_beta = 0.0 * remaining_norm
    solved = tl.where(trying == 1, 1, 0)
    going = tl.where((remaining_norm > 0) & (solved == 1), 1, 0)
    while going == 1:
        # A correction: the solution for the residual.
        v = (residual.to(tl.float64) / remaining_norm).to(REAL)
        v_before = tl.zeros([LANES], REAL)
        w = tl.zeros([LANES], REAL)
        w_before = tl.zeros([LANES], REAL)
        remaining = remaining_norm
        beta = 0.0 * remaining_norm
        cosine = beta + 1.0
        sine = beta
        sine_before = beta
        correcting = 1
        while correcting == 1:
            share(shared, v, order, LANES)
            product = -product_with_columns(matrix, shared, order, LANES, ROWS, REAL) * sign
            taken += 1
            product += v_before * beta.to(REAL)
            next_beta = norm(product)
            largest_beta = tl.maximum(largest_beta, next_beta)
            diagonal = tl.sqrt(1 / (cosine * cosine) + next_beta * next_beta)
            coupling = sine_before * beta
            cosine = 1 / (cosine * diagonal)
            sine_before = sine
            sine = next_beta / diagonal
            next_w = v * (1 / diagonal).to(REAL) + w_before * (coupling / diagonal).to(REAL)
            x += next_w * (cosine * remaining).to(REAL)
            w_before = w
            w = next_w
            v_before = v
            v = product * (1 / tl.where(next_beta > 0, next_beta, 1.0)).to(REAL)
            beta = next_beta
            remaining *= -sine
            slow = (taken == TRIAL_PRODUCTS) & (tl.abs(remaining) > 0.1)
            # Not a number ends it as well.
            correcting = tl.where((tl.abs(remaining) > WANTED) & (taken < most_products) & (slow == 0), 1, 0)
        solved = tl.where(tl.abs(remaining) <= WANTED, 1, 0)
        # So few products with a small S leave no room for the recurrences to drift.
        going = tl.where((solved == 1) & ((taken > FEW_PRODUCTS) | (largest_beta >= 1)), 1, 0)
        if going == 1:
            share(shared, x, order, LANES)
            residual = b - x + product_with_columns(matrix, shared, order, LANES, ROWS, REAL) * sign
            taken += 1
            before = remaining_norm
            remaining_norm = norm(residual)
            solved = tl.where(remaining_norm <= 0.5 * before, 1, 0)
            going = tl.where((solved == 1) & (remaining_norm > ACCEPTED), 1, 0)
    solution = tl.where(finite, x.to(tl.float64) * size, float("nan")).to(REAL)
    return solution, taken, solved


@triton.jit
def krylov_kernel(
    skew,  # [classes, order, order]
    right_sides,  # [classes, vectors, dimension], dense
    solutions,  # the same: x
    rotated,  # the same: 2 x - b
    products,  # [classes, vectors], int32: how many it took, or -1: not solved
    known,  # [classes], int32: where it is -1 nothing is tried, if KNOWN
    memory,  # [classes, vectors, order]: workspace
    vectors,
    dimension,
    order,
    sign,
    most_products,
    WANTED: tl.constexpr,
    ACCEPTED: tl.constexpr,
    TRIAL_PRODUCTS: tl.constexpr,
    FEW_PRODUCTS: tl.constexpr,
    KNOWN: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    REAL: tl.constexpr,
):
    """(I + sign S) x = b for one vector by minimal residuals."""
    item = tl.program_id(0).to(tl.int64)
    c = item // vectors
    lane = tl.arange(0, LANES)
    right_side = tl.load(right_sides + item * dimension + lane, mask=lane < dimension, other=0)
    trying = tl.full([], 1, tl.int32)
    if KNOWN:
        trying = tl.where(tl.load(known + c) == -1, 0, 1)
    solution, taken, solved = minimal_residuals(
        skew + c * order * order, memory + item * order, right_side, trying, order, sign, most_products,
        WANTED, ACCEPTED, TRIAL_PRODUCTS, FEW_PRODUCTS, LANES, ROWS, REAL,
    )  # fmt: skip
    place = item * dimension + lane
    tl.store(solutions + place, solution, mask=lane < dimension)
    tl.store(rotated + place, 2 * solution - right_side, mask=lane < dimension)
    tl.store(products + item, tl.where(solved == 1, taken, -1))


@triton.jit
def apply_kernel(
    inverse,  # [classes, order, order]: (I - sign S)^-1
    right_sides,  # [classes, vectors, dimension], dense
    solutions,
    rotated,
    vectors,
    dimension,
    order,
    vector_blocks,
    element_blocks,
    VECTORS: tl.constexpr,
    ELEMENTS: tl.constexpr,
    DEPTH: tl.constexpr,
    REAL: tl.constexpr,
):
    """x = b (I - sign S)^-1, the solution of (I + sign S) x = b, and 2 x - b, for a block of a class's vectors."""
    program = tl.program_id(0)
    c = (program // (vector_blocks * element_blocks)).to(tl.int64)
    v = (program // element_blocks % vector_blocks * VECTORS + tl.arange(0, VECTORS)).to(tl.int64)
    j = program % element_blocks * ELEMENTS + tl.arange(0, ELEMENTS)
    rows = right_sides + (c * vectors + v[:, None]) * dimension
    matrix = inverse + c * order * order
    x = tl.zeros([VECTORS, ELEMENTS], REAL)
    poison = tl.zeros([VECTORS], REAL)  # NaN for a vector that is not finite
    for first in range(0, dimension, DEPTH):
        i = first + tl.arange(0, DEPTH)
        b = tl.load(rows + i[None, :], mask=(v < vectors)[:, None] & (i < dimension)[None, :], other=0)
        inside = (i < dimension)[:, None] & (j < dimension)[None, :]
        part = tl.load(matrix + i[:, None] * order + j[None, :], mask=inside, other=0)
        x = tl.dot(b, part, x, input_precision="ieee", out_dtype=REAL)
        poison += tl.sum(b * 0.0, axis=1)
    x += poison[:, None]
    inside = (v < vectors)[:, None] & (j < dimension)[None, :]
    place = (c * vectors + v[:, None]) * dimension + j[None, :]
    tl.store(solutions + place, x, mask=inside)
    tl.store(rotated + place, 2 * x - tl.load(right_sides + place, mask=inside, other=0), mask=inside)


@triton.jit
def gradient_kernel(
    forward_solutions,  # [classes, vectors, dimension], dense: x
    backward_solutions,  # the same: z
    gradient,  # [classes, dimension (dimension - 1) / 2], dense
    vectors,
    dimension,
    tiles,
    TILE: tl.constexpr,
    VECTORS: tl.constexpr,
    REAL: tl.constexpr,
):
    """The sum over a class's vectors of x_i z_j - z_i x_j, i < j. VECTORS: 1, or how many a product takes at once."""
    program = tl.program_id(0)
    row_tile = program // tiles % tiles
    column_tile = program % tiles
    if row_tile <= column_tile:
        c = (program // (tiles * tiles)).to(tl.int64)
        i = row_tile * TILE + tl.arange(0, TILE)
        j = column_tile * TILE + tl.arange(0, TILE)
        result = tl.zeros([TILE, TILE], REAL)
        if VECTORS == 1:
            for vector in range(0, vectors):
                start = (c * vectors + vector) * dimension
                x_i = tl.load(forward_solutions + start + i, mask=i < dimension, other=0)
                x_j = tl.load(forward_solutions + start + j, mask=j < dimension, other=0)
                z_i = tl.load(backward_solutions + start + i, mask=i < dimension, other=0)
                z_j = tl.load(backward_solutions + start + j, mask=j < dimension, other=0)
                result += x_i[:, None] * z_j[None, :] - z_i[:, None] * x_j[None, :]
        else:
            for first in range(0, vectors, VECTORS):
                v = (first + tl.arange(0, VECTORS)).to(tl.int64)
                start = (c * vectors + v) * dimension
                at_i = start[None, :] + i[:, None]
                at_j = start[:, None] + j[None, :]
                in_i = (v < vectors)[None, :] & (i < dimension)[:, None]
                in_j = (v < vectors)[:, None] & (j < dimension)[None, :]
                x_i = tl.load(forward_solutions + at_i, mask=in_i, other=0)
                z_j = tl.load(backward_solutions + at_j, mask=in_j, other=0)
                result = tl.dot(x_i, z_j, result, input_precision="ieee", out_dtype=REAL)
                z_i = tl.load(backward_solutions + at_i, mask=in_i, other=0)
                x_j = tl.load(forward_solutions + at_j, mask=in_j, other=0)
                result = tl.dot(-z_i, x_j, result, input_precision="ieee", out_dtype=REAL)
        row = i.to(tl.int64)[:, None]
        column = j.to(tl.int64)[None, :]
        class_gradient = gradient + c * (tl.cast(dimension, tl.int64) * (dimension - 1) // 2)
        above = (row < column) & (column < dimension)
        tl.store(class_gradient + packed_place(row, column, dimension), result, mask=above)
