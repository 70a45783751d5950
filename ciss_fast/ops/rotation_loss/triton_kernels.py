"""Triton kernels of `rotation_loss`; README.md in this folder describes them.

REAL is the type of arithmetic, tl.float32 or tl.float64. S is [order, order] per class, order being the dimension
padded with zeros (see the kernels of `cayley_rotate`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..cayley_rotate.triton_elimination import check_inverse, invert, solve_with_inverse
from ..cayley_rotate.triton_kernels import minimal_residuals


@triton.jit
def means_kernel(
    previous,  # [classes, columns], dense
    current,  # the same
    means,  # [2, columns]
    classes,
    columns,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    REAL: tl.constexpr,
):
    """Means over the classes, of a block of columns; programs: blocks, 2."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    rows = previous
    if tl.program_id(1) == 1:
        rows = current
    total = tl.zeros([ROWS, COLUMNS], REAL)
    for first in range(0, classes, ROWS):
        row = first + tl.arange(0, ROWS)
        inside = (row < classes)[:, None] & (column < columns)[None, :]
        total += tl.load(rows + row.to(tl.int64)[:, None] * columns + column[None, :], mask=inside, other=0)
    place = means + tl.program_id(1) * columns + column
    tl.store(place, tl.sum(total, axis=0) / classes, mask=column < columns)


@triton.jit
def _prototypes(previous, current, means, item, group, groups, dimension, LANES: tl.constexpr):
    """b, t and o of a class and group: its prototypes, centred, and the mean of the current ones."""
    lane = tl.arange(0, LANES)
    inside = lane < dimension
    place = item * dimension + lane
    mean = tl.load(means + (groups + group) * dimension + lane, mask=inside, other=0)
    b = tl.load(previous + place, mask=inside, other=0)
    b -= tl.load(means + group * dimension + lane, mask=inside, other=0)
    return b, tl.load(current + place, mask=inside, other=0) - mean, mean


@triton.jit
def _terms(
    rotated, target, mean, weight, bias, c, outputs, dimension, share, fidelity_weight,
    LANES: tl.constexpr, OUTPUTS: tl.constexpr, REAL: tl.constexpr,
):  # fmt: skip
    """1 - cos(rotated, target), the cross entropy against class c, and the adjoint of both on ``rotated``.

    The classifier is read once: a running maximum, and sums that are scaled down whenever it grows.
    """
    lane = tl.arange(0, LANES)
    wide = rotated.to(tl.float64)
    wide_target = target.to(tl.float64)
    squares = tl.sum(wide * wide, axis=0)
    least = squares * 0.0 + 1e-8
    of_rotated = tl.maximum(tl.sqrt(squares), least)
    norms = of_rotated * tl.maximum(tl.sqrt(tl.sum(wide_target * wide_target, axis=0)), least)
    cosine = tl.sum(wide * wide_target, axis=0) / norms
    scale = share * fidelity_weight
    on_rotated = tl.where(squares < 1e-16, 0.0, scale * cosine / tl.where(squares < 1e-16, 1.0, squares))
    adjoint = target * (-scale / norms).to(REAL) + rotated * on_rotated.to(REAL)

    features = rotated + mean
    largest = tl.full([], float("-inf"), REAL)
    own = tl.zeros([], tl.float64)
    total = tl.zeros([], tl.float64)
    poison = tl.zeros([], tl.float64)
    row_sum = tl.zeros([LANES], REAL)
    own_row = tl.zeros([LANES], REAL)
    for first in range(0, outputs, OUTPUTS):
        j = first + tl.arange(0, OUTPUTS)
        inside = (j < outputs)[:, None] & (lane < dimension)[None, :]
        rows = tl.load(weight + j.to(tl.int64)[:, None] * dimension + lane[None, :], mask=inside, other=0)
        logits = tl.sum(rows * features[None, :], axis=1) + tl.load(bias + j, mask=j < outputs, other=0)
        poison += tl.sum(logits * 0.0, axis=0).to(tl.float64)  # an infinity is as bad as a NaN
        own += tl.sum(tl.where(j == c, logits, 0.0), axis=0).to(tl.float64)
        own_row += tl.sum(tl.where((j == c)[:, None], rows, 0.0), axis=0)
        before = largest
        largest = tl.maximum(largest, tl.max(tl.where(j < outputs, logits, float("-inf")), axis=0))
        power = tl.where(j < outputs, tl.exp(logits - largest), 0.0)
        shrunk = tl.exp(before - largest)
        total = total * shrunk.to(tl.float64) + tl.sum(power.to(tl.float64), axis=0)
        row_sum = row_sum * shrunk + tl.sum(rows * power[:, None], axis=0)
    scale = share * (1 - fidelity_weight)
    total += poison
    adjoint += row_sum * (scale / total).to(REAL) - own_row * (scale + poison).to(REAL)
    return 1 - cosine, tl.log(total) - (own - largest.to(tl.float64)), adjoint


@triton.jit
def fit_kernel(
    skew,  # [classes, order, order]
    previous,  # [classes, groups, dimension], dense
    current,  # the same
    means,  # [2, groups, dimension]
    weight,  # [outputs, dimension], dense
    bias,  # [outputs]
    fidelity_weight,  # [1], float64
    solutions,  # [classes, groups, dimension]: x
    adjoint_solutions,  # the same: z
    terms,  # [classes, groups, 2], float64
    products,  # [classes, groups], int32: of both solutions, or -1: not solved
    memory,  # [classes, groups, order]: workspace
    classes,
    groups,
    dimension,
    order,
    outputs,
    most_products,
    WANTED: tl.constexpr,
    ACCEPTED: tl.constexpr,
    TRIAL_PRODUCTS: tl.constexpr,
    FEW_PRODUCTS: tl.constexpr,
    GRADIENT: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    REAL: tl.constexpr,
):
    """Both terms of one class and group and, with GRADIENT, both solutions that the gradient is made of."""
    item = tl.program_id(0).to(tl.int64)
    c = item // groups
    matrix = skew + c * order * order
    shared = memory + item * order
    lane = tl.arange(0, LANES)
    b, target, mean = _prototypes(previous, current, means, item, item % groups, groups, dimension, LANES)
    weight_of_fidelity = tl.load(fidelity_weight)
    share_of_mean = 1.0 / tl.cast(classes * groups, tl.float64)
    trying = tl.full([], 1, tl.int32)
    x, taken, solved = minimal_residuals(
        matrix, shared, b, trying, order, 1, most_products,
        WANTED, ACCEPTED, TRIAL_PRODUCTS, FEW_PRODUCTS, LANES, ROWS, REAL,
    )  # fmt: skip
    fidelity, regulariser, adjoint = _terms(
        2 * x - b, target, mean, weight, bias, c, outputs, dimension, share_of_mean, weight_of_fidelity,
        LANES, OUTPUTS, REAL,
    )  # fmt: skip
    place = item * dimension + lane
    tl.store(terms + 2 * item, fidelity)
    tl.store(terms + 2 * item + 1, regulariser)
    if GRADIENT:
        tl.store(solutions + place, x, mask=lane < dimension)
        z, more, solved = minimal_residuals(
            matrix, shared, adjoint, solved, order, -1, most_products,
            WANTED, ACCEPTED, TRIAL_PRODUCTS, FEW_PRODUCTS, LANES, ROWS, REAL,
        )  # fmt: skip
        taken += more
        tl.store(adjoint_solutions + place, z, mask=lane < dimension)
    tl.store(products + item, tl.where(solved == 1, taken, -1))


@triton.jit
def fit_directly_kernel(
    skew,  # arguments as those of `fit_kernel`
    previous,
    current,
    means,
    weight,
    bias,
    fidelity_weight,
    solutions,
    adjoint_solutions,
    terms,
    products,
    iterations,  # [classes], int32: sums of the products, -1: solved directly, -2: not accurate enough
    inverses,  # [programs, order, order], float64: workspace
    memory,  # [programs, order], float64: workspace
    classes,
    groups,
    dimension,
    order,
    outputs,
    ACCEPTED: tl.constexpr,
    GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    REAL: tl.constexpr,
):
    """The same for classes with a group that is not solved, by an inverse; what is not accurate enough is NaN."""
    lane = tl.arange(0, LANES)
    program = tl.program_id(0).to(tl.int64)
    inverse = inverses + program * order * order
    shared = memory + program * order
    weight_of_fidelity = tl.load(fidelity_weight)
    share_of_mean = 1.0 / tl.cast(classes * groups, tl.float64)
    for class_number in range(tl.program_id(0), classes, tl.num_programs(0)):
        c = tl.cast(class_number, tl.int64)
        matrix = skew + c * order * order
        direct = 0
        count = 0
        for g in range(0, groups):
            taken = tl.load(products + c * groups + g)
            count += taken
            direct = tl.minimum(direct, taken)
        if direct == -1:
            invert(matrix, inverse, order, -1, BLOCK, TILE)
            error, poison = check_inverse(matrix, inverse, shared, dimension, order, 1, LANES, ROWS)
            accurate = error <= ACCEPTED  # false for NaN
            count = tl.where((poison == 0) & (accurate == 0), -2, -1)  # parameters that are no numbers are no failure
            poison += tl.where(accurate, 0.0, float("nan"))
            for g in range(0, groups):
                item = c * groups + g
                b, target, mean = _prototypes(previous, current, means, item, g, groups, dimension, LANES)
                right_side = b.to(tl.float64)
                x = solve_with_inverse(matrix, inverse, shared, right_side, order, 1, False, LANES, ROWS) + poison
                x = x.to(REAL)
                fidelity, regulariser, adjoint = _terms(
                    2 * x - b, target, mean, weight, bias, c, outputs, dimension, share_of_mean, weight_of_fidelity,
                    LANES, OUTPUTS, REAL,
                )  # fmt: skip
                place = item * dimension + lane
                tl.store(terms + 2 * item, fidelity)
                tl.store(terms + 2 * item + 1, regulariser)
                if GRADIENT:
                    z = solve_with_inverse(matrix, inverse, shared, adjoint.to(tl.float64), order, 1, True, LANES, ROWS)
                    tl.store(solutions + place, x, mask=lane < dimension)
                    tl.store(adjoint_solutions + place, z.to(REAL), mask=lane < dimension)
        tl.store(iterations + c, count)
        tl.debug_barrier()


@triton.jit
def finish_kernel(
    terms,  # [count, 2], float64
    fidelity_weight,  # [1], float64
    total,  # [1]
    values,  # [2]
    count,
    BLOCK: tl.constexpr,
    REAL: tl.constexpr,
):
    """The means of both terms, and the loss; one program."""
    row = tl.arange(0, BLOCK)
    fidelity = tl.zeros([BLOCK], tl.float64)
    regulariser = tl.zeros([BLOCK], tl.float64)
    for first in range(0, count, BLOCK):
        place = terms + 2 * (first + row)
        fidelity += tl.load(place, mask=first + row < count, other=0)
        regulariser += tl.load(place + 1, mask=first + row < count, other=0)
    fid = tl.sum(fidelity, axis=0) / count
    reg = tl.sum(regulariser, axis=0) / count
    weight = tl.load(fidelity_weight)
    tl.store(total, (weight * fid + (1 - weight) * reg).to(REAL))
    tl.store(values, fid.to(REAL))
    tl.store(values + 1, reg.to(REAL))
