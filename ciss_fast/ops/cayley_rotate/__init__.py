"""Rotations of feature vectors, one per class, parametrised by the Cayley transform (ALIFE-M, stage 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import backends, native
from . import operator  # noqa: F401  (registers the operators)
from .checks import check_tensors, check_types
from .reference import cayley_rotate_reference

__all__ = ["cayley_rotate"]

backends.register("cayley_rotate", reference=None, cpu=native.reason_without("cayley_rotate"))

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
        backend: "reference"; default: the compiled kernel where there is one.

    Returns:
        R_c x for every class and vector: the shape and type of ``vectors``, differentiable in both arguments.
        Arithmetic is float32, float64 where an argument is (the reference: always float64); bfloat16 and float16
        vectors are read as they are and the result is rounded to their type once. A NaN or an infinity in a class's
        parameters gives NaN in that class, one in a vector in that vector. With ``return_iterations`` also int32 [K]:
        the products with S that the iterative solution took, or -1 where the class was solved directly (by
        elimination).

    Raises:
        TypeError: an argument of another kind or a dtype that is not supported.
        ValueError: shapes or devices that do not fit; the message says what was expected and what came. Also, from
            the kernel and its backward pass, parameters so large (||S||_2 beyond 1e8 or so) that its arithmetic cannot
            solve for a class, which is named with the error reached.
        RuntimeError: ``backend`` names one that cannot run here (see ``python -m ciss_fast.info``).
    """
    check_types(params, vectors)
    check_tensors(params, vectors)
    if backends.choose("cayley_rotate", backend, vectors.device) == "reference":
        rotated = cayley_rotate_reference(params, vectors)
        iterations = torch.full(params.shape[:1], SOLVED_DIRECTLY, dtype=torch.int32, device=params.device)
    else:
        need_gradient = torch.is_grad_enabled() and (params.requires_grad or vectors.requires_grad)
        rotated, _, iterations = torch.ops.ciss_fast.cayley_rotate(params, vectors, need_gradient)
    return (rotated, iterations) if return_iterations else rotated
