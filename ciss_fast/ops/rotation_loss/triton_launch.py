"""Launches of the Triton kernels of `rotation_loss`: the same ones whatever the numbers are, and none waits.

A class that cannot be solved accurately is NaN, and its number of products is -2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...triton_runtime import OPTIONS, device_of
from ..cayley_rotate.triton_launch import (
    ACCEPTED,
    MOST_ELIMINATIONS,
    MOST_PRODUCTS,
    TILE,
    iteration_options,
    shape_options,
    unpacked,
    write_gradient,
)
from ..loss_operator import result_type
from .triton_kernels import finish_kernel, fit_directly_kernel, fit_kernel, means_kernel

COLUMNS = 32  # of a program that takes means


def rotation_loss(
    params: Tensor,
    previous: Tensor,
    current: Tensor,
    weight: Tensor,
    bias: Tensor,
    fidelity_weight: float,
    need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator on a GPU."""
    tensors = params, previous, current, weight, bias
    dtype = result_type(*tensors)
    dense = [tensor.detach().to(dtype).contiguous() for tensor in tensors]
    dense_params, dense_previous, dense_current, dense_weight, dense_bias = dense
    classes, dimension = previous.shape[0], previous.shape[-1]
    groups = 1 if previous.dim() == 2 else previous.shape[1]
    columns, programs = groups * dimension, min(classes, MOST_ELIMINATIONS)

    def room(*shape: int, of: torch.dtype = dtype) -> Tensor:
        return params.new_empty(shape, dtype=of)

    total, values, means = room(), room(2), room(2, columns)
    terms, products = room(classes, groups, 2, of=torch.float64), room(classes, groups, of=torch.int32)
    iterations = room(classes, of=torch.int32)
    gradient = torch.empty(params.shape if need_gradient else 0, dtype=dtype, device=params.device)
    solutions, adjoint_solutions = (room(classes, groups, dimension) for _ in range(2))
    # Not an argument of the kernels: these get a float in single precision.
    fidelity = torch.full((1,), fidelity_weight, dtype=torch.float64, device=params.device)
    skew = unpacked(dense_params, dimension)
    order = skew.shape[-1]
    options = {"GRADIENT": need_gradient, "OUTPUTS": 16, **shape_options(order, dtype)}
    with device_of(params):
        means_kernel[(-(-columns // COLUMNS), 2)](
            *(dense_previous, dense_current, means, classes, columns),
            COLUMNS=COLUMNS,
            ROWS=16,
            REAL=options["REAL"],
            **OPTIONS,
        )
        inputs = skew, dense_previous, dense_current, means, dense_weight, dense_bias, fidelity
        sizes = classes, groups, dimension, order, weight.shape[0]
        fit_kernel[(classes * groups,)](
            *(*inputs, solutions, adjoint_solutions, terms, products, room(classes, groups, order), *sizes),
            MOST_PRODUCTS,
            **iteration_options(dtype),
            **options,
        )
        fit_directly_kernel[(programs,)](
            *(*inputs, solutions, adjoint_solutions, terms, products, iterations),
            *(room(programs, order, order, of=torch.float64), room(programs, order, of=torch.float64), *sizes),
            ACCEPTED=ACCEPTED[dtype],
            BLOCK=TILE,
            TILE=TILE,
            **options,
        )
        finish_kernel[(1,)](
            *(terms, fidelity, total, values, classes * groups), BLOCK=256, REAL=options["REAL"], **OPTIONS
        )
    if need_gradient:
        write_gradient(solutions, adjoint_solutions, gradient)
    return total, values, iterations, gradient
