"""``ciss_fast::cayley_rotate`` as a PyTorch operator: schema, kernels, fake kernel, autograd, autocast.

With (I + S) x = b the result is 2 x - b; the backward pass solves the transposed system, (I - S) z = adjoint, the same
way: the gradient on b is 2 z - adjoint, that on the parameters comes from x and z.

Classes that are solved directly leave their factors to the backward pass. How many these are is known only when the
forward pass has seen the numbers, whereas an operator's results have shapes that are known before. So the result
``factors`` is always empty, and the factors are in the storage behind it. Where a copy has lost that storage, the
backward pass factorises again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import native
from ..device_kernels import implement, with_backend, without_backend
from .checks import accuracy_error, check_gradient_tensors, check_tensors

library = torch.library.Library("ciss_fast", "FRAGMENT")
_SCHEMA = (
    "(Tensor params, Tensor vectors, bool need_gradient) "
    "-> (Tensor rotated, Tensor solutions, Tensor factors, Tensor iterations)"
)
_BACKWARD_SCHEMA = (
    "(Tensor params, Tensor solutions, Tensor factors, Tensor iterations, Tensor upstream, bool need_params) "
    "-> (Tensor grad_params, Tensor grad_vectors)"
)
library.define(f"cayley_rotate{with_backend(_SCHEMA)}")
library.define(f"cayley_rotate_backward{with_backend(_BACKWARD_SCHEMA)}")


def _arithmetic_type(params: Tensor, vectors: Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (params.dtype, vectors.dtype) else torch.float32


def _dense(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype).contiguous()


def _solve(
    params: Tensor,
    right_sides: Tensor,
    sign: int,
    rotated: Tensor,
    iterations: Tensor,
    **more: int | Callable[[int], int] | None,
) -> None:
    """Everything dense and of one type. ``rotated`` and ``iterations`` are written; for the rest see csrc/bindings."""
    kernel = native.function("cayley_rotate")
    optional = dict.fromkeys(
        ("solutions", "forward_solutions", "grad_params", "forward_iterations", "factors", "factor_bytes"), 0
    )
    item, error, accepted = kernel(
        params=params.data_ptr(),
        right_sides=right_sides.data_ptr(),
        sign=sign,
        rotated=rotated.data_ptr(),
        iterations=iterations.data_ptr(),
        **(optional | {"new_factors": None} | more),
        classes=right_sides.shape[0],
        vectors=1 if right_sides.dim() == 2 else right_sides.shape[1],
        dimension=right_sides.shape[-1],
        double_precision=right_sides.dtype == torch.float64,
        threads=torch.get_num_threads(),
    )
    if item >= 0:
        raise ValueError(accuracy_error(params, item, error, accepted))


def _cayley_rotate_cpu(params: Tensor, vectors: Tensor, need_gradient: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_tensors(params, vectors)
    dtype = _arithmetic_type(params, vectors)
    right_sides = _dense(vectors, dtype)
    rotated = torch.empty_like(right_sides)
    solutions = torch.empty_like(right_sides) if need_gradient else right_sides.new_empty(0)
    factors = right_sides.new_empty(0, dtype=torch.uint8)
    iterations = torch.zeros(params.shape[0], dtype=torch.int32)

    def new_factors(size: int) -> int:
        nonlocal factors
        factors = right_sides.new_empty(size, dtype=torch.uint8)
        return factors.data_ptr()

    _solve(
        _dense(params, dtype),
        right_sides,
        1,
        rotated,
        iterations,
        solutions=solutions.data_ptr() if need_gradient else 0,
        new_factors=new_factors if need_gradient else None,
    )
    return rotated.to(vectors.dtype), solutions, factors[:0], iterations


def _cayley_rotate_fake(params: Tensor, vectors: Tensor, need_gradient: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = _arithmetic_type(params, vectors)
    return (
        vectors.new_empty(vectors.shape),
        vectors.new_empty(vectors.shape if need_gradient else (0,), dtype=dtype),
        vectors.new_empty(0, dtype=torch.uint8),
        vectors.new_empty(params.shape[0], dtype=torch.int32),
    )


def _cayley_rotate_backward_cpu(
    params: Tensor, solutions: Tensor, factors: Tensor, iterations: Tensor, upstream: Tensor, need_params: bool
) -> tuple[Tensor, Tensor]:
    check_tensors(params, upstream)
    check_gradient_tensors(solutions, iterations, upstream)
    dtype = solutions.dtype
    right_sides = _dense(upstream, dtype)
    grad_vectors = torch.empty_like(right_sides)
    dense_params = _dense(params, dtype)
    grad_params = torch.empty_like(dense_params) if need_params else None
    forward_solutions, forward_iterations = solutions.contiguous(), iterations.contiguous()
    storage = factors.untyped_storage()
    _solve(
        dense_params,
        right_sides,
        -1,
        grad_vectors,
        forward_iterations.clone(),  # says which classes are solved directly; counts of the backward pass are not kept
        forward_solutions=forward_solutions.data_ptr() if need_params else 0,
        grad_params=0 if grad_params is None else grad_params.data_ptr(),
        forward_iterations=forward_iterations.data_ptr(),
        factors=storage.data_ptr(),
        factor_bytes=storage.nbytes(),
    )
    grad_params = params.new_empty(0) if grad_params is None else grad_params.to(params.dtype)
    return grad_params, grad_vectors.to(upstream.dtype)


def _cayley_rotate_backward_fake(
    params: Tensor, solutions: Tensor, factors: Tensor, iterations: Tensor, upstream: Tensor, need_params: bool
) -> tuple[Tensor, Tensor]:
    return params.new_empty(params.shape if need_params else (0,)), upstream.new_empty(upstream.shape)


def _cayley_rotate_triton(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from .triton_launch import cayley_rotate_triton  # triton need not be installed

    return cayley_rotate_triton(*arguments)


def _cayley_rotate_backward_triton(*arguments: Any) -> tuple[Tensor, Tensor]:
    from .triton_launch import cayley_rotate_backward_triton

    return cayley_rotate_backward_triton(*arguments)


def _cayley_rotate_cuda(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from .cuda_launch import cayley_rotate

    check_tensors(*arguments[:2])
    return cayley_rotate(*arguments)


def _cayley_rotate_backward_cuda(*arguments: Any) -> tuple[Tensor, Tensor]:
    from .cuda_launch import cayley_rotate_backward

    params, solutions, _, iterations, upstream, _ = arguments
    check_tensors(params, upstream)
    check_gradient_tensors(solutions, iterations, upstream)
    return cayley_rotate_backward(*arguments)


def _setup_context(ctx, inputs, keyword_only_inputs, output) -> None:
    params, _, ctx.has_solutions = inputs
    ctx.backend = keyword_only_inputs["backend"]
    _, solutions, factors, iterations = output
    ctx.mark_non_differentiable(solutions, factors, iterations)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(params, solutions, factors, iterations)


def _backward(ctx, upstream: Tensor | None, *unused: Tensor | None):
    if upstream is None:
        return None, None, None
    if not ctx.has_solutions:
        raise RuntimeError("cayley_rotate: the gradient was not asked for when the vectors were rotated")
    params, solutions, factors, iterations = ctx.saved_tensors
    need_params, need_vectors = ctx.needs_input_grad[:2]
    grad_params, grad_vectors = torch.ops.ciss_fast.cayley_rotate_backward(
        params, solutions, factors, iterations, upstream, need_params, backend=ctx.backend
    )
    return grad_params if need_params else None, grad_vectors if need_vectors else None, None


def _no_double_backward(ctx, *upstream: Tensor):
    raise RuntimeError("cayley_rotate: expected a single backward pass, got a second derivative (not supported)")


implement(
    library, "cayley_rotate", cpu=_cayley_rotate_cpu, triton=_cayley_rotate_triton, cuda=_cayley_rotate_cuda
)
torch.library.register_fake("ciss_fast::cayley_rotate", without_backend(_cayley_rotate_fake), lib=library)
torch.library.register_autograd("ciss_fast::cayley_rotate", _backward, setup_context=_setup_context, lib=library)
implement(
    library,
    "cayley_rotate_backward",
    op="cayley_rotate",
    cpu=_cayley_rotate_backward_cpu,
    triton=_cayley_rotate_backward_triton,
    cuda=_cayley_rotate_backward_cuda,
)
torch.library.register_fake(
    "ciss_fast::cayley_rotate_backward", without_backend(_cayley_rotate_backward_fake), lib=library
)
torch.library.register_autograd("ciss_fast::cayley_rotate_backward", _no_double_backward, lib=library)
# Under autocast the operators take every dtype as it comes and compute in float32 at least.
for _key in ("AutocastCPU", "AutocastCUDA"):
    library.impl("cayley_rotate", torch.library.fallthrough_kernel, _key)
    library.impl("cayley_rotate_backward", torch.library.fallthrough_kernel, _key)
