"""Backend "cuda" of ``ciss_fast::cayley_rotate`` and its backward pass: memory, launches on the current stream.

Nothing waits, so there is no error for parameters that are too large to solve for: such classes are NaN, and their
number of iterations is `NOT_SOLVED`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ... import cuda_runtime
from ..tensors import check_single_precision

NOT_SOLVED = -2


def cayley_rotate(params: Tensor, vectors: Tensor, need_gradient: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator on a GPU, for any types but float64. Factors are not kept: the result for them is empty."""
    check_single_precision("cayley_rotate", params, vectors)
    right_sides = _dense(vectors)
    rotated, solutions, iterations = _solve(_dense(params), right_sides, 1)
    return (
        rotated.to(vectors.dtype),
        solutions if need_gradient else right_sides.new_empty(0),
        right_sides.new_empty(0, dtype=torch.uint8),
        iterations,
    )


def cayley_rotate_backward(
    params: Tensor, solutions: Tensor, factors: Tensor, iterations: Tensor, upstream: Tensor, need_params: bool
) -> tuple[Tensor, Tensor]:
    """The operator of the backward pass."""
    check_single_precision("cayley_rotate", params, upstream)
    dense_params = _dense(params)
    grad_params = torch.empty_like(dense_params) if need_params else None
    grad_vectors, _, _ = _solve(dense_params, _dense(upstream), -1, _dense(solutions), grad_params)
    grad_params = params.new_empty(0) if grad_params is None else grad_params.to(params.dtype)
    return grad_params, grad_vectors.to(upstream.dtype)


def _dense(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32).contiguous()


def _solve(
    params: Tensor,
    right_sides: Tensor,
    sign: int,
    forward_solutions: Tensor | None = None,
    grad_params: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated vectors, solutions, iterations; the gradient on the parameters is written to ``grad_params``."""
    rotated, solutions = torch.empty_like(right_sides), torch.empty_like(right_sides)
    iterations = torch.zeros(params.shape[0], dtype=torch.int32, device=params.device)
    if right_sides.numel() == 0:
        if grad_params is not None:
            grad_params.zero_()
        return rotated, solutions, iterations
    with cuda_runtime.on_device(right_sides):
        cuda_runtime.library().cayley_rotate(
            params=params.data_ptr(),
            right_sides=right_sides.data_ptr(),
            sign=sign,
            rotated=rotated.data_ptr(),
            solutions=solutions.data_ptr(),
            forward_solutions=0 if grad_params is None or forward_solutions is None else forward_solutions.data_ptr(),
            grad_params=0 if grad_params is None else grad_params.data_ptr(),
            iterations=iterations.data_ptr(),
            classes=right_sides.shape[0],
            vectors=1 if right_sides.dim() == 2 else right_sides.shape[1],
            dimension=right_sides.shape[-1],
            workspace=cuda_runtime.workspace_on(right_sides.device),
            stream=cuda_runtime.stream_of(right_sides),
        )
    return rotated, solutions, iterations
