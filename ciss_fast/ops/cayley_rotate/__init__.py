"""Rotations of feature vectors, one per class, parametrised by the Cayley transform (ALIFE-M, stage 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import backends, cuda_runtime, native, triton_runtime
from . import operator  # noqa: F401  (registers the operators)
from .checks import check_tensors, check_types
from .reference import cayley_rotate_reference

__all__ = ["cayley_rotate"]

backends.register(
    "cayley_rotate",
    reference=None,
    cpu=native.reason_without("cayley_rotate"),
    triton=triton_runtime.reason_without,
    cuda=cuda_runtime.reason_without,
)

SOLVED_DIRECTLY = -1


def cayley_rotate(
    params: Tensor, vectors: Tensor, *, return_iterations: bool = False, backend: str | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Vectors rotated by their class's matrix R = (I - S)(I + S)^-1 with S = (U - U^T) / 2 (Cayley transform).

    U is strictly upper triangular; its entries are the parameters. R is orthogonal whatever they are. S is that of
    ALIFE's code; the poster writes U - U^T, the same family of rotations with parameters half as large. No inverse
    is formed: with (I + S) y = x, R x = 2 y - x.

    Args:
        params: [K, D (D - 1) / 2], for each of K classes the entries of U row by row, in the order of
            ``torch.triu_indices(D, D, 1)``; float32 or float64, any strides.
        vectors: [K, D], one vector a class (fitting), or [K, S, D], S of them (applying); float32, float64, bfloat16
            or float16, any strides.
        return_iterations: also return how much work each class was.
        backend: "cpu" (compiled kernel), "triton" or "cuda" (GPUs; "cuda" without double precision) or
            "reference"; default: the kernel that runs on the vectors' device.

    Returns:
        R_c x for every class and vector: the shape and type of ``vectors``, differentiable in both arguments.
        Arithmetic is float32, float64 where an argument is (the reference: always float64); bfloat16 and float16
        vectors are read as they are and the result is rounded to their type once. The solutions y are off by at most
        1e-6 (1e-8 in double precision; usually far less) of the vector's norm, for ||S|| up to 100 and beyond; the
        gradient on the parameters is as accurate as the products of solutions it is made of. A NaN or an infinity
        among a class's parameters gives NaN for the class, one in a vector gives NaN for the vector.
        With ``return_iterations`` also int32 [K]: the products with S that the iterative solution for all of the
        class's vectors took, or -1 where the class was solved directly, by elimination (large S, or more than 8
        vectors; the reference always). The backward pass takes about as many. -2, on a GPU only: not solved, see
        ValueError.

    Raises:
        TypeError: an argument of another kind or a dtype that is not supported.
        ValueError: shapes or devices that do not fit; the message says what was expected and what came. Also, from
            the kernel and its backward pass, parameters so large that double precision does not reach that accuracy
            (||S|| beyond some 10,000); the message names the class and the error reached. A GPU is not waited for:
            there such a class is NaN and its iterations are -2.
        RuntimeError: ``backend`` names one that cannot run here (see ``python -m ciss_fast.info``).
    """
    check_types(params, vectors)
    check_tensors(params, vectors)
    asked_for, backend = backend, backends.choose("cayley_rotate", backend, vectors.device)
    if asked_for is None and backend == "cuda" and torch.float64 in (params.dtype, vectors.dtype):
        backend = "reference"
    if backend == "reference":
        rotated = cayley_rotate_reference(params, vectors)
        iterations = torch.full(params.shape[:1], SOLVED_DIRECTLY, dtype=torch.int32, device=params.device)
    else:
        need_gradient = torch.is_grad_enabled() and (params.requires_grad or vectors.requires_grad)
        rotated, _, _, iterations = torch.ops.ciss_fast.cayley_rotate(
            params, vectors, need_gradient, backend=backend
        )
    return (rotated, iterations) if return_iterations else rotated
