"""Launches of the Triton kernels of `cayley_rotate`."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from ...triton_runtime import OPTIONS, device_of
from ..triton_sizes import power_of_two_from
from .checks import check_gradient_tensors, check_tensors
from .triton_elimination import elimination_kernel
from .triton_kernels import apply_kernel, gradient_kernel, krylov_kernel, unpack_kernel

MOST_PRODUCTS = 80  # of an iterative solution
MOST_FEW_VECTORS = 8  # solved for one by one; more of them by an inverse
MOST_ELIMINATIONS = 64  # at a time: each needs a matrix of workspace
TILE = 32
# Norms of the residual for a right side of norm 1, as in csrc/cpu/skew_krylov.h.
WANTED = {torch.float32: 5e-7, torch.float64: 1e-14}
ACCEPTED = {torch.float32: 1e-6, torch.float64: 1e-8}


def cayley_rotate_triton(params: Tensor, vectors: Tensor, need_gradient: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The kernel of ``ciss_fast::cayley_rotate``. Nothing is kept for the backward pass but the solutions."""
    check_tensors(params, vectors)
    dtype = torch.float64 if torch.float64 in (params.dtype, vectors.dtype) else torch.float32
    solutions, rotated, iterations = _solve(_dense(params, dtype), _dense(vectors, dtype), 1, None)
    return (
        rotated.to(vectors.dtype),
        solutions if need_gradient else solutions.new_empty(0),
        solutions.new_empty(0, dtype=torch.uint8),
        iterations,
    )


def cayley_rotate_backward_triton(
    params: Tensor, solutions: Tensor, factors: Tensor, iterations: Tensor, upstream: Tensor, need_params: bool
) -> tuple[Tensor, Tensor]:
    """The kernel of ``ciss_fast::cayley_rotate_backward``."""
    check_tensors(params, upstream)
    check_gradient_tensors(solutions, iterations, upstream)
    dtype = solutions.dtype
    adjoint = _dense(upstream, dtype)
    backward_solutions, grad_vectors, _ = _solve(_dense(params, dtype), adjoint, -1, iterations.contiguous())
    if not need_params:
        return params.new_empty(0), grad_vectors.to(upstream.dtype)
    grad_params = params.new_empty(params.shape, dtype=dtype)
    write_gradient(solutions.contiguous(), backward_solutions, grad_params)
    return grad_params.to(params.dtype), grad_vectors.to(upstream.dtype)


def _solve(params: Tensor, right_sides: Tensor, sign: int, known: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """x with (I + sign S) x = b, 2 x - b, and the iterations; everything dense and of one type.

    ``known``: iterations of the forward pass, by which classes are solved directly without trying.
    """
    dtype = right_sides.dtype
    classes, vectors, dimension = _sizes(right_sides)
    solutions, rotated = torch.empty_like(right_sides), torch.empty_like(right_sides)
    iterations = torch.zeros(classes, dtype=torch.int32, device=params.device)
    if right_sides.numel() == 0:
        return solutions, rotated, iterations
    few = vectors <= MOST_FEW_VECTORS
    programs = min(classes, MOST_ELIMINATIONS)
    skew = unpacked(params, dimension)
    order = skew.shape[-1]
    shape = shape_options(order, dtype)
    with device_of(params):
        products = iterations.new_empty((classes, vectors)) if few else iterations
        if few:
            krylov_kernel[(classes * vectors,)](
                *(skew, right_sides, solutions, rotated, products, products if known is None else known),
                *(params.new_empty((classes, vectors, order)), vectors, dimension, order, sign, MOST_PRODUCTS),
                KNOWN=known is not None,
                **iteration_options(dtype),
                **shape,
            )
        elimination_kernel[(programs,)](
            *(skew, right_sides, solutions, rotated, products, iterations),
            params.new_empty((programs, order, order), dtype=torch.float64),
            params.new_empty((programs, order), dtype=torch.float64),
            *(classes, vectors, dimension, order, sign),
            ACCEPTED=ACCEPTED[dtype],
            FEW=few,
            BLOCK=TILE,
            TILE=TILE,
            **shape,
        )
        if not few:
            block = 64 if dtype == torch.float32 else 32
            vector_blocks, element_blocks = -(-vectors // block), -(-dimension // block)
            apply_kernel[(classes * vector_blocks * element_blocks,)](
                *(skew, right_sides, solutions, rotated, vectors, dimension, order, vector_blocks, element_blocks),
                VECTORS=block,
                ELEMENTS=block,
                DEPTH=32,
                REAL=_real(dtype),
                **OPTIONS,
            )
    return solutions, rotated, iterations


def unpacked(params: Tensor, dimension: int) -> Tensor:
    """S of every class, [classes, order, order]: the dimension padded with zeros to whole tiles."""
    tiles = -(-dimension // TILE)
    order = tiles * TILE
    skew = params.new_empty((len(params), order, order))
    with device_of(params):
        unpack_kernel[(len(params) * tiles * tiles,)](params, skew, dimension, order, tiles, TILE=TILE, **OPTIONS)
    return skew


def shape_options(order: int, dtype: torch.dtype) -> dict[str, object]:
    """Of kernels that have a vector in registers."""
    lanes = power_of_two_from(order)
    return {"LANES": lanes, "ROWS": 16, "REAL": _real(dtype), "num_warps": min(8, lanes // 32), **OPTIONS}


def iteration_options(dtype: torch.dtype) -> dict[str, float]:
    """Of kernels that solve by minimal residuals."""
    return {"WANTED": WANTED[dtype], "ACCEPTED": ACCEPTED[dtype], "TRIAL_PRODUCTS": 16, "FEW_PRODUCTS": 8}


def write_gradient(forward_solutions: Tensor, backward_solutions: Tensor, grad_params: Tensor) -> None:
    """The gradient on the parameters from the dense solutions of both passes."""
    if grad_params.numel() == 0:
        return
    classes, vectors, dimension = _sizes(backward_solutions)
    tiles = -(-dimension // TILE)
    with device_of(grad_params):
        gradient_kernel[(classes * tiles * tiles,)](
            *(forward_solutions, backward_solutions, grad_params, vectors, dimension, tiles),
            TILE=TILE,
            VECTORS=1 if vectors <= MOST_FEW_VECTORS else 32,
            REAL=_real(grad_params.dtype),
            **OPTIONS,
        )


def _sizes(vectors: Tensor) -> tuple[int, int, int]:
    """Classes, vectors of a class, dimension."""
    return vectors.shape[0], 1 if vectors.dim() == 2 else vectors.shape[1], vectors.shape[-1]


def _dense(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype).contiguous()


def _real(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32
